"""Aioli: estimate the mixing law during the run, then move the proportions down its gradient.

One round is LearnParams (Algorithm 2, learn_params.py: short segments on perturbed mixtures, with the
held-out losses L before and after each) and a phase of training on the updated proportions (Algorithm 1):

    L(t) - L(t + 1) = A p                      the law: A_kj is the drop of target k per unit of group j
    A               = LearnParams              estimated in every round
    p_j             <- p_j exp(eta sum_k A_kj) / Z     with A shifted to be non-negative, of sum 1

The targets are the groups' own held-out sets (the paper), or others (its section F.5, there one). Each row of
A is multiplied by what its target counts in the objective, before A is shifted and divided by its sum.

The segments of LearnParams are real training steps; what a round costs beyond them is one evaluation per
segment. The evaluation that ends one segment is the start of the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from titan_aioli.methods.aioli.learn_params import (
    Mixtures,
    Order,
    check_learn_params,
    count_mixtures,
    draw_sweep_order,
    normalized,
    perturbed_mixture,
    shifted_sum,
    solve_mixing_matrix,
)
from titan_aioli.methods.aioli.regression import (
    add_level,
    add_segment,
    certainty,
    column_sum_errors,
    level,
    scaled,
    slopes,
    spread,
    training_observation,
    without_trend,
)
from titan_aioli.methods.aioli.state import (
    CONSTANT,
    LEARN_PARAMS,
    MOVED,
    NOT_FINITE,
    START,
    TOO_FEW,
    TRAIN,
    AioliState,
    initial_state,
)
from titan_aioli.methods.checks import require_choice, require_count, require_number, require_weights
from titan_aioli.methods.faults import STAY, skipped_note, unusable
from titan_aioli.methods.objective import Objective
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import normalize, softmax

UpdateRule = Literal["cumulative", "restart"]
Start = Literal["uniform", "prior"]


@dataclass(frozen=True)
class Aioli:
    """Online estimate of a linear dynamic mixing law, and exponentiated gradient on it.

    Source: Chen et al. 2024, arXiv:2411.05735, Algorithms 1 and 2. Where the released code differs
    (restart from uniform weights with `ema`, permutations per sweep), both behaviours are offered by name.
    """

    observes: ClassVar[str] = "validation"
    aliases: ClassVar[dict[str, str]] = {"update": "update_rule"}
    over_targets: ClassVar[tuple[str, ...]] = (
        "mixing/predicted_drop",
        "mixing/measured_drop",
        "aioli/target_weight",
    )

    num_sweeps: int = 4
    """Passes over the perturbed mixtures, one for each group, in one LearnParams."""
    steps_per_mixture: int = 4
    """Consecutive optimizer steps on one perturbed mixture."""
    steps_per_round: int | None = None
    """Optimizer steps of a round: LearnParams and the training after it. Unset: 8 times LearnParams."""
    one_hot_factor: float = 0.75
    """Share of the swept group in its perturbed mixture, above 1 / number of groups, at most 1."""
    eta: float = 0.2
    """Step size of the update of the proportions."""
    ema: float | None = None
    """Weight on the past in a moving average of the mixing matrix A. Unset: no average."""
    diagonal: bool = False  # needs one_hot_factor < 1, as in the released code
    """Use the diagonal of A only."""
    normalize: bool = True  # False: A in nats per segment
    """Shift A to be non-negative and divide it by its sum before the update."""
    update_rule: UpdateRule = "cumulative"  # restart: the released code where `ema` is set; p stays in a box
    """Weights multiply over the rounds (the paper), or start from uniform in every round."""
    order: Order = "per_sweep"  # shuffled: the paper
    """Order of the perturbed mixtures: a permutation for every sweep, or one over all sweeps."""
    mixtures: Mixtures = "one_hot"
    """Perturbed mixtures: around uniform (the paper), centred on the current proportions, or opposite pairs
    of them, towards and away from each group."""
    pooling: float | None = None  # the drops of a round count in units of their own spread
    """Weight on the evidence of past rounds in a running regression. Unset: each round alone (the paper)."""
    pool_training: bool = False
    """With pooling: also use the training phase of each round as an observation, not LearnParams alone."""
    shrink: bool = False
    """Shorten the step where the column sums of A differ little beyond their standard errors."""
    prior: Sequence[float] | None = None
    """[G] weights trained on first, for `prior_steps` (Aioli restricted)."""
    prior_steps: int = 0
    """Optimizer steps on the prior. 0: none."""
    start: Start = "uniform"
    """What the weights start from: uniform, also after a prior (the paper and the released code), or the
    prior, which the rounds then adjust."""
    seed: int = 0
    """Seed of the sweep orders."""
    orders: Sequence[Sequence[int]] | None = None
    """Explicit swept groups, one list per round, to replay a recorded run. Later rounds follow `order`."""
    objective: Objective | None = None
    """What each target counts. None: every target the same."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        check_learn_params(
            num_groups,
            self.num_sweeps,
            self.steps_per_mixture,
            self.one_hot_factor,
            self.diagonal,
            self.order,
            self.orders,
            self.mixtures,
        )
        require_number("aioli.eta", self.eta, above=0, what="the step size")
        require_choice("aioli.update", self.update_rule, get_args(UpdateRule))
        require_choice("aioli.start", self.start, get_args(Start))
        if self.ema is not None:
            require_number("aioli.ema", self.ema, at_least=0, below=1, what="the weight on the past")
        require_count("aioli.prior_steps", self.prior_steps, smallest=0, why="0: no prior")
        if self.prior is not None:
            require_weights("aioli.prior", self.prior, num_groups)
        elif self.prior_steps > 0:
            raise ValueError(f"aioli.prior_steps is {self.prior_steps} but no aioli.prior is given")
        if self.start == "prior" and (self.prior is None or min(self.prior) <= 0):
            raise ValueError(
                f'aioli.start is "prior" and aioli.prior is {self.prior}: give every group a weight above 0'
            )
        self._check_targets(num_groups, num_targets or num_groups)
        self._check_round(num_groups)
        self._check_regression(num_groups)

    def _check_targets(self, num_groups: int, num_targets: int) -> None:
        self._objective.check(num_targets)
        if self.diagonal and num_targets != num_groups:
            raise ValueError(
                f"aioli.diagonal is true: A of {num_targets} targets and {num_groups} groups has no diagonal"
            )

    def _check_round(self, num_groups: int) -> None:
        """LearnParams leaves some of a round to train."""
        if self.train_steps(num_groups) < 1:
            mixtures = self.num_mixtures(num_groups)
            raise ValueError(
                f"aioli.steps_per_round is {self.steps_per_round}, but LearnParams alone takes num_sweeps x "
                f"steps_per_mixture x {'groups' if mixtures == num_groups else 'mixtures'} = "
                f"{self.num_sweeps} x {self.steps_per_mixture} x {mixtures} = "
                f"{self.learn_params_steps(num_groups)} steps: "
                "set it above that, or fewer sweeps or steps"
            )

    def _check_regression(self, num_groups: int) -> None:
        """The options that need regression.py fit the others and the number of segments."""
        if self.pooling is not None:
            require_number(
                "aioli.pooling", self.pooling, at_least=0, below=1, what="the weight on past rounds"
            )
        elif self.pool_training:
            raise ValueError(
                "aioli.pool_training is true but aioli.pooling is not set: set it, to 0.8 for example"
            )
        options = {
            f'mixtures = "{self.mixtures}"': self.mixtures != "one_hot",
            "pooling": self.pooling is not None,
            "shrink": self.shrink,
        }
        chosen = [name for name, is_chosen in options.items() if is_chosen]
        if not chosen or num_groups == 1:
            return
        if self.diagonal:
            raise ValueError(f"aioli.diagonal is true: it cannot be combined with {' and '.join(chosen)}")
        segments = self.num_sweeps * self.num_mixtures(num_groups)
        if self.pooling is None and segments < num_groups + 2:
            raise ValueError(
                f"aioli.num_sweeps is {self.num_sweeps}: with {' and '.join(chosen)} it must be at least 2, "
                f"since {segments} segments cannot tell noise from signal (or set aioli.pooling)"
            )

    def init(self, num_groups: int, num_targets: int | None = None) -> AioliState:
        num_targets = num_groups if num_targets is None else num_targets
        memory = self._objective.start(num_targets)
        state = initial_state(num_groups, num_targets, self.pooling is not None, memory)
        log_weights = self._first_log_weights(num_groups)
        return state._replace(log_weights=log_weights, proportions=softmax(log_weights))

    def phase(self, state: AioliState) -> Phase:
        num_groups = len(state.proportions)
        if state.stage == START and self.prior is not None and self.prior_steps > 0:
            return Phase(normalize(self.prior, "aioli.prior"), self.prior_steps, "prior")
        if state.stage == START:
            return Phase(state.proportions.copy(), 0, "measure")
        if state.stage == LEARN_PARAMS:
            return Phase(self.perturbed(state), self.steps_per_mixture, "learn_params")
        return Phase(state.proportions.copy(), self.train_steps(num_groups), "train")

    def update(self, state: AioliState, observation: np.ndarray | None) -> AioliState:
        assert observation is not None, "aioli observes held-out losses"
        losses = np.array(observation, dtype=np.float64)
        if state.stage == START:
            return self._begin_round(state._replace(losses=losses))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is sorted out below
            end = self._end_segment if state.stage == LEARN_PARAMS else self._end_round
            return end(state, losses)

    def report(self, state: AioliState) -> dict[str, np.ndarray | str]:
        if state.stage == TRAIN:
            names = ["raw_A", "solved_A", "normalized_A"] + (["ema_A"] if self.ema is not None else [])
            learned: dict[str, np.ndarray | str] = {name: getattr(state, name) for name in [*names, "stderr"]}
            if self.shrink:
                learned["step_scale"] = np.array(state.step_scale)
            if state.target_memory.size:
                learned["target_weights"] = self._row_weights(state)
            if state.note == CONSTANT:
                learned["note"] = f"{STAY}: A is constant over the groups"
            if state.note == TOO_FEW:
                learned["note"] = f"{STAY}: too few stretches for the regression yet"
            if state.note == NOT_FINITE:
                all_drops = state.evidence[0, 2 + len(state.proportions) :]
                learned["note"] = skipped_note(unusable(all_drops))
            return learned
        if state.round == 0 or state.segment > 0:
            return {}
        return {"predicted_drop": state.predicted_drop, "measured_drop": state.measured_drop}

    def metrics(self, state: AioliState) -> dict[str, np.ndarray]:
        if state.stage == TRAIN:
            learned = {"aioli/column_sum": state.normalized_A.sum(axis=0), "aioli/stderr": state.stderr}
            is_weighted = state.target_memory.size > 0
            return learned | ({"aioli/target_weight": self._row_weights(state)} if is_weighted else {})
        if state.round == 0 or state.segment > 0:
            return {}
        return {"mixing/predicted_drop": state.predicted_drop, "mixing/measured_drop": state.measured_drop}

    def result(self, state: AioliState) -> np.ndarray:
        return state.proportions

    def only_watched(self, num_targets: int) -> np.ndarray:
        """[K] bool, targets whose losses never matter."""
        return self._objective.only_watched(num_targets)

    def settings_in_use(self, state: AioliState) -> dict[str, Any]:
        """What the drops of a LearnParams under way were measured with; {} outside of one."""
        if state.stage != LEARN_PARAMS:
            return {}
        names = ("num_sweeps", "steps_per_mixture", "one_hot_factor", "order", "mixtures", "seed")
        order = self.sweep_order(state.round, len(state.proportions))
        return {f"aioli.{name}": getattr(self, name) for name in names} | {"aioli.orders": order}

    def learn_params_steps(self, num_groups: int) -> int:
        """Optimizer steps of one LearnParams: num_sweeps * steps_per_mixture * mixtures of a sweep."""
        return self.num_sweeps * self.steps_per_mixture * self.num_mixtures(num_groups)

    def num_mixtures(self, num_groups: int) -> int:
        """Perturbed mixtures of one sweep."""
        return count_mixtures(self.mixtures, num_groups)

    def train_steps(self, num_groups: int) -> int:
        """Optimizer steps of the training phase of one round."""
        learn_params_steps = self.learn_params_steps(num_groups)
        steps_per_round = 8 * learn_params_steps if self.steps_per_round is None else self.steps_per_round
        return steps_per_round - learn_params_steps

    def _train_segments(self, num_groups: int) -> float:
        """The length of the training phase, in segments of LearnParams."""
        return self.train_steps(num_groups) / self.steps_per_mixture

    def sweep_order(self, round_: int, num_groups: int) -> list[int]:
        """The swept mixture of every segment of a round: a function of (seed, round), or as given.

        Mixture j < G is centred on group j, or leads towards it; G + j leads away from it (`opposite`).
        """
        if self.orders is not None and round_ < len(self.orders):
            return [int(group) for group in self.orders[round_]]
        count = self.num_mixtures(num_groups)
        return list(draw_sweep_order(count, self.num_sweeps, self.order, self.seed, round_))

    def perturbed(self, state: AioliState) -> np.ndarray:
        """The mixture of the current segment, [G]."""
        swept = self.sweep_order(state.round, len(state.proportions))[state.segment]
        return perturbed_mixture(self.mixtures, swept, state.proportions, self.one_hot_factor)

    def _end_segment(self, state: AioliState, losses: np.ndarray) -> AioliState:
        """Algorithm 2: beta_ij += L_i - L'_i, and after the last segment solve for A and update."""
        num_groups = len(state.proportions)
        order = self.sweep_order(state.round, num_groups)
        swept, drop, drops = order[state.segment], state.losses - losses, state.drops.copy()
        if swept < num_groups:
            drops[:, swept] += drop
        evidence = add_segment(state.evidence, state.segment, self.perturbed(state), self._regarded(drop))
        state = state._replace(segment=state.segment + 1, losses=losses, drops=drops, evidence=evidence)
        if state.segment < len(order):
            return state
        return self._update_proportions(self._end_learn_params(state))

    def _first_log_weights(self, num_groups: int) -> np.ndarray:
        """[G], logarithm of the weights that the rounds start from."""
        if self.start == "uniform" or self.prior is None:
            return np.zeros(num_groups)
        return np.log(normalize(self.prior, "aioli.prior"))

    @property
    def _objective(self) -> Objective:
        return Objective() if self.objective is None else self.objective

    def _row_weights(self, state: AioliState) -> np.ndarray:
        """[K], what each row of A counts in this round."""
        return self._objective.row_weights(state.target_memory, len(state.losses))

    def _is_rewarded(self, state: AioliState) -> np.ndarray:
        """[K] bool, targets that are neither guards nor only watched."""
        return self._objective.shares(len(state.losses)) > 0

    def _regarded(self, drops: np.ndarray) -> np.ndarray:
        """[K], drops for the regression: 0 where that of a target that is only watched is not finite."""
        return np.where(self.only_watched(len(drops)) & unusable(drops), 0.0, drops)

    def _begin_round(self, state: AioliState) -> AioliState:
        memory = self._objective.begin_round(state.target_memory, state.losses)
        return state._replace(stage=LEARN_PARAMS, segment=0, target_memory=memory)

    def _end_learn_params(self, state: AioliState) -> AioliState:
        """A from the round's drops (the paper), or from a regression over the rounds."""
        num_groups = len(state.proportions)
        raw_A = state.drops / self.num_sweeps
        products, freedom = without_trend(state.evidence)
        unit = 1.0 if self.pooling is None else spread(products, freedom, self._is_rewarded(state))
        if self.pool_training and np.isfinite(trained := self._training_observation(state, unit)).all():
            products, freedom = products + np.outer(trained, trained), freedom + 1
        products = scaled(products, 1 / unit, num_groups)
        if self.pooling is not None and np.isfinite(products).all():
            products = products + self.pooling * state.pooled
            freedom = freedom + self.pooling * state.pooled_freedom
            state = state._replace(pooled=products, pooled_freedom=freedom)
        products = scaled(products, unit, num_groups)
        found = slopes(products, freedom, num_groups)
        if self.mixtures == "one_hot" and self.pooling is None:
            solved_A = solve_mixing_matrix(raw_A, self.one_hot_factor, self.diagonal)
        else:
            solved_A = add_level(found, state.evidence)
        memory = self._objective.strengthen(state.target_memory, solved_A @ state.proportions)
        state = state._replace(stage=TRAIN, raw_A=raw_A, solved_A=solved_A, target_memory=memory)
        weights = self._row_weights(state)
        stderr = column_sum_errors(
            scaled(products, weights, num_groups), freedom, self._weighted(weights, found)
        )
        return state._replace(stderr=np.full_like(stderr, np.nan) if self.diagonal else stderr)

    def _training_observation(self, state: AioliState, unit: float) -> np.ndarray:
        """[G + K], what the training before this LearnParams shows; nan in the first round."""
        num_groups = len(state.proportions)
        num_segments = self._train_segments(num_groups)
        trained = np.concatenate([state.proportions, self._regarded(state.measured_drop) / num_segments])
        levels = (state.level, level(state.evidence))
        return training_observation(
            trained,
            levels,
            unit,
            num_segments,
            num_learned=state.evidence[0, 0],
            counts=self._is_rewarded(state),
        )

    def _update_proportions(self, state: AioliState) -> AioliState:
        """Algorithm 1: p_j <- p_j exp(eta sum_k A_kj), unless A says nothing."""
        weights = self._row_weights(state)
        weighted, counts = self._weighted(weights, state.solved_A), weights > 0
        A = self._normalized(weighted, counts)
        if A is None or not np.isfinite(A).all():
            unknown_A = np.full_like(state.solved_A, np.nan)
            note = CONSTANT if A is None else TOO_FEW if np.isfinite(state.evidence).all() else NOT_FINITE
            return state._replace(normalized_A=unknown_A, note=note)
        stderr = state.stderr / (shifted_sum(weighted[counts]) if self.normalize else 1.0)
        scale = certainty(A.sum(axis=0), stderr) if self.shrink else 1.0
        past = 0.0 if self.ema is None or np.isnan(state.ema_A).any() else self.ema
        ema_A = (1.0 - past) * A + past * state.ema_A if past else A
        is_restarted = self.update_rule == "restart"
        start = self._first_log_weights(len(state.proportions)) if is_restarted else state.log_weights
        log_weights = start + self.eta * scale * ema_A.sum(axis=0)
        log_weights = log_weights - log_weights.max()
        if not np.isfinite(log_weights).all():
            return state._replace(normalized_A=A, note=NOT_FINITE)
        state = state._replace(normalized_A=A, ema_A=ema_A, stderr=stderr, step_scale=scale, note=MOVED)
        return state._replace(log_weights=log_weights, proportions=softmax(log_weights))

    def _weighted(self, weights: np.ndarray, A: np.ndarray) -> np.ndarray:
        """[K, G], each row of A times its weight; rows that are only watched are 0, whatever they hold."""
        return np.where(self.only_watched(len(weights))[:, None], 0.0, weights[:, None] * A)

    def _normalized(self, weighted: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
        """The weighted A as the update uses it; a target that does not count takes no part in the shift.

        Args:
            weighted: [K, G].
            counts: [K] bool.
        Returns: [K, G]; None where A is constant over the groups.
        """
        if not self.normalize or not np.isfinite(weighted).all():
            return weighted
        found = normalized(weighted[counts])
        if found is None:
            return None
        A = np.zeros_like(weighted)
        A[counts] = found
        return A

    def _end_round(self, state: AioliState, losses: np.ndarray) -> AioliState:
        ended = state._replace(
            round=state.round + 1,
            losses=losses,
            level=level(state.evidence),
            drops=np.zeros_like(state.drops),
            evidence=np.zeros_like(state.evidence),
            predicted_drop=state.solved_A @ state.proportions * self._train_segments(len(state.proportions)),
            measured_drop=state.losses - losses,
        )
        return self._begin_round(ended)
