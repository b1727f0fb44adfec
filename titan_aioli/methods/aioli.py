"""Aioli: estimate the mixing law during the run, then move the proportions down its gradient.

One round is LearnParams (Algorithm 2: short stretches on mixtures centred on one group each, with the
held-out loss of every group before and after) and a stretch of training on the updated proportions
(Algorithm 1). The stretches of LearnParams are real training steps; what a round costs beyond them is
1 evaluation a stretch. The evaluation that ends one stretch is the start of the next.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods import checks
from titan_aioli.methods.mixing_matrix import normalized, solve_mixing_matrix
from titan_aioli.methods.protocol import Phase
from titan_aioli.methods.skipping import skipped_note, unusable
from titan_aioli.proportions import centred_on, normalize, softmax, uniform

START, LEARN_PARAMS, TRAIN = 0, 1, 2
MOVED, CONSTANT, NOT_FINITE = 0, 1, 2


class AioliState(NamedTuple):
    """All that Aioli knows between two phases; G groups, A[i, j]: drop of group i by training on j."""

    round: int
    stage: int
    """START (before the first evaluation), LEARN_PARAMS or TRAIN."""
    segment: int
    """Position in the round's list of swept groups."""
    losses: np.ndarray
    """[G], held-out losses at the last evaluation, nats per token."""
    drops: np.ndarray
    """[G, G], loss drops of this round, summed over the sweeps (beta * num_sweeps)."""
    raw_A: np.ndarray
    """[G, G], mean loss drop per segment of the last finished LearnParams (beta)."""
    solved_A: np.ndarray
    """[G, G], loss drop per segment and unit of proportion."""
    normalized_A: np.ndarray
    """[G, G], non-negative with sum 1 (with `normalize`)."""
    ema_A: np.ndarray
    """[G, G], what the update used: moving average of normalized_A with `ema`; nan before the first round."""
    log_weights: np.ndarray
    """[G], logarithm of the weights before normalisation."""
    proportions: np.ndarray
    """[G], what the training stretch uses."""
    predicted_drop: np.ndarray
    """[G], loss drop that solved_A predicted for the last training stretch."""
    measured_drop: np.ndarray
    """[G], loss drop measured over that stretch."""
    note: int
    """Whether the last update MOVED the proportions, or could not: A was CONSTANT or NOT_FINITE."""


@dataclass(frozen=True)
class Aioli:
    """Online estimate of a linear dynamic mixing law, and exponentiated gradient on it.

    Source: Chen et al. 2024, arXiv:2411.05735, Algorithms 1 and 2. Where the released code differs
    (restart from uniform weights with `ema`, permutations per sweep), both behaviours are offered by name.
    """

    observes: ClassVar[str] = "validation"
    aliases: ClassVar[dict[str, str]] = {"update": "update_rule"}

    num_sweeps: int = 4
    """Passes over the G perturbed mixtures in one LearnParams."""
    steps_per_mixture: int = 4
    """Consecutive optimizer steps on one perturbed mixture."""
    steps_per_round: int | None = None
    """Optimizer steps of one LearnParams and the training after it. None: 8 times LearnParams."""
    one_hot_factor: float = 0.75
    """Share of the swept group in its mixture, in (1/G, 1]."""
    eta: float = 0.2
    """Step size of exponentiated gradient."""
    ema: float | None = None
    """Weight on the past in the moving average of A, in [0, 1). None: no average."""
    diagonal: bool = False
    """Keep only the diagonal of A before normalising. Needs one_hot_factor < 1, as in the released code."""
    normalize: bool = True
    """Shift A so that no entry is negative and divide by its sum. False: A in nats per segment."""
    update_rule: str = "cumulative"
    """Also called `update`. `cumulative`: weights multiply over the rounds (the paper). `restart`: from ones
    in every round (the released code where `ema` is set), which keeps p in a box around uniform."""
    order: str = "per_sweep"
    """Order of the swept groups: a permutation per sweep, or `shuffled`: one over all sweeps (the paper)."""
    orders: Sequence[Sequence[int]] | None = None
    """Explicit swept groups, one list a round, to replay a recorded run. Later rounds follow `order`."""
    prior: Sequence[float] | None = None
    """[G] weights trained on first, for `prior_steps` (Aioli restricted). The first round still starts its
    weights from uniform, as in the paper and the released code."""
    prior_steps: int = 0
    """Optimizer steps on `prior`. 0: no prior."""
    seed: int = 0
    """Seed of the sweep orders."""

    def check(self, num_groups: int) -> None:
        checks.count("aioli.num_sweeps", self.num_sweeps)
        checks.count("aioli.steps_per_mixture", self.steps_per_mixture)
        checks.number("aioli.eta", self.eta, above=0, what="the step size")
        checks.choice("aioli.update", self.update_rule, ("cumulative", "restart"))
        checks.choice("aioli.order", self.order, ("per_sweep", "shuffled"))
        if self.ema is not None:
            checks.number("aioli.ema", self.ema, at_least=0, below=1, what="the weight on the past")
        if num_groups > 1 and not 1.0 / num_groups < self.one_hot_factor <= 1.0:
            raise ValueError(
                f"aioli.one_hot_factor is {self.one_hot_factor}: with {num_groups} groups it must be above "
                f"1/{num_groups} = {1.0 / num_groups:.4g} and at most 1. At 1/{num_groups} every perturbed "
                "mixture is uniform and A cannot be solved for; below it the swept group is trained on least"
            )
        if self.train_steps(num_groups) < 1:
            raise ValueError(
                f"aioli.steps_per_round is {self.steps_per_round}, but LearnParams alone takes num_sweeps x "
                f"steps_per_mixture x groups = {self.num_sweeps} x {self.steps_per_mixture} x {num_groups} = "
                f"{self.learn_params_steps(num_groups)} steps: set it above that, or fewer sweeps or steps"
            )
        if self.diagonal and self.one_hot_factor == 1.0:
            warnings.warn("aioli.diagonal does nothing at one_hot_factor 1: the full A is used", stacklevel=2)
        self._check_prior_and_orders(num_groups)

    def _check_prior_and_orders(self, num_groups: int) -> None:
        checks.count("aioli.prior_steps", self.prior_steps, smallest=0, why="0: no prior")
        if self.prior is not None:
            checks.weights("aioli.prior", self.prior, num_groups)
        elif self.prior_steps > 0:
            raise ValueError(f"aioli.prior_steps is {self.prior_steps} but no aioli.prior is given")
        for round_, order in enumerate(self.orders or ()):
            if sorted(order) != sorted(list(range(num_groups)) * self.num_sweeps):
                raise ValueError(
                    f"aioli.orders[{round_}] is {list(order)}: it must name each of the groups 0 to "
                    f"{num_groups - 1} exactly num_sweeps = {self.num_sweeps} times"
                )

    def init(self, num_groups: int) -> AioliState:
        unknown, unknown_A = np.full(num_groups, np.nan), np.full((num_groups, num_groups), np.nan)
        return AioliState(
            round=0,
            stage=START,
            segment=0,
            losses=unknown,
            drops=np.zeros((num_groups, num_groups)),
            raw_A=unknown_A,
            solved_A=unknown_A,
            normalized_A=unknown_A,
            ema_A=unknown_A,
            log_weights=np.zeros(num_groups),
            proportions=uniform(num_groups),
            predicted_drop=unknown,
            measured_drop=unknown,
            note=MOVED,
        )

    def phase(self, state: AioliState) -> Phase:
        num_groups = len(state.losses)
        if state.stage == START and self.prior is not None and self.prior_steps > 0:
            return Phase(normalize(self.prior, "aioli.prior"), self.prior_steps, "prior")
        if state.stage == START:
            return Phase(state.proportions.copy(), 0, "measure")
        if state.stage == LEARN_PARAMS:
            swept = self.sweep_order(state.round, num_groups)[state.segment]
            mixture = centred_on(swept, num_groups, self.one_hot_factor)
            return Phase(mixture, self.steps_per_mixture, "learn_params")
        return Phase(state.proportions.copy(), self.train_steps(num_groups), "train")

    def update(self, state: AioliState, observation: np.ndarray | None) -> AioliState:
        assert observation is not None, "aioli observes held-out losses"
        losses = np.array(observation, dtype=np.float64)
        if state.stage == START:
            return state._replace(stage=LEARN_PARAMS, losses=losses)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is sorted out below
            end = self._end_segment if state.stage == LEARN_PARAMS else self._end_round
            return end(state, losses)

    def report(self, state: AioliState) -> dict[str, np.ndarray | str]:
        if state.stage == TRAIN:
            names = ["raw_A", "solved_A", "normalized_A"] + (["ema_A"] if self.ema is not None else [])
            learned: dict[str, np.ndarray | str] = {name: getattr(state, name) for name in names}
            if state.note == CONSTANT:
                learned["note"] = "the proportions stay as they are: A is constant over the groups"
            if state.note == NOT_FINITE:
                learned["note"] = skipped_note(unusable(state.solved_A))
            return learned
        if state.round == 0 or state.segment > 0:
            return {}
        return {"predicted_drop": state.predicted_drop, "measured_drop": state.measured_drop}

    def learn_params_steps(self, num_groups: int) -> int:
        """Optimizer steps of one LearnParams: num_sweeps * steps_per_mixture * G."""
        return self.num_sweeps * self.steps_per_mixture * num_groups

    def train_steps(self, num_groups: int) -> int:
        """Optimizer steps of the training stretch of one round."""
        learn_params_steps = self.learn_params_steps(num_groups)
        steps_per_round = 8 * learn_params_steps if self.steps_per_round is None else self.steps_per_round
        return steps_per_round - learn_params_steps

    def sweep_order(self, round_: int, num_groups: int) -> list[int]:
        """The swept group of every segment of a round: a function of (seed, round), or as given."""
        if self.orders is not None and round_ < len(self.orders):
            return [int(group) for group in self.orders[round_]]
        rng = np.random.default_rng((self.seed, round_))
        if self.order == "shuffled":
            return rng.permutation(np.tile(np.arange(num_groups), self.num_sweeps)).tolist()
        return [group for _ in range(self.num_sweeps) for group in rng.permutation(num_groups).tolist()]

    def _end_segment(self, state: AioliState, losses: np.ndarray) -> AioliState:
        """Algorithm 2: beta_ij += L_i - L'_i, and after the last segment solve for A and update."""
        order = self.sweep_order(state.round, len(losses))
        drops = state.drops.copy()
        drops[:, order[state.segment]] += state.losses - losses
        state = state._replace(segment=state.segment + 1, losses=losses, drops=drops)
        if state.segment < len(order):
            return state
        raw_A = drops / self.num_sweeps
        solved_A = solve_mixing_matrix(raw_A, self.one_hot_factor, self.diagonal)
        state = state._replace(stage=TRAIN, raw_A=raw_A, solved_A=solved_A)
        return self._update_proportions(state)

    def _update_proportions(self, state: AioliState) -> AioliState:
        """Algorithm 1: p_j <- p_j exp(eta sum_i A_ij), unless A says nothing."""
        A = normalized(state.solved_A) if self.normalize else state.solved_A
        if A is None or not np.isfinite(A).all():
            unknown_A = np.full_like(state.solved_A, np.nan)
            return state._replace(normalized_A=unknown_A, note=CONSTANT if A is None else NOT_FINITE)
        past = 0.0 if self.ema is None or np.isnan(state.ema_A).any() else self.ema
        ema_A = (1.0 - past) * A + past * state.ema_A if past else A
        start = state.log_weights if self.update_rule == "cumulative" else 0.0
        log_weights = start + self.eta * ema_A.sum(axis=0)
        log_weights = log_weights - log_weights.max()
        if not np.isfinite(log_weights).all():
            return state._replace(normalized_A=A, note=NOT_FINITE)
        state = state._replace(normalized_A=A, ema_A=ema_A, note=MOVED)
        return state._replace(log_weights=log_weights, proportions=softmax(log_weights))

    def _end_round(self, state: AioliState, losses: np.ndarray) -> AioliState:
        segments = self.train_steps(len(losses)) / self.steps_per_mixture
        return state._replace(
            round=state.round + 1,
            stage=LEARN_PARAMS,
            segment=0,
            losses=losses,
            drops=np.zeros_like(state.drops),
            predicted_drop=state.solved_A @ state.proportions * segments,
            measured_drop=state.losses - losses,
        )
