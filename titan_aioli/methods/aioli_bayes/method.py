"""Aioli with evidence: small perturbations around the proportions, and steps that the evidence pays for.

The run is cut into stretches. Each trains on the current proportions pulled a little towards one group (a
permutation of the groups in every round), and ends with an evaluation. What the objective lost in it is one
more piece of evidence on a mixing law with diminishing returns (law.py), kept for the whole run. After every
stretch

    theta = (1 - w) anchor + w best         w = 2 P - 1 or 0, P: probability that the anchor is not the best
    p_j   <- p_j (theta_j / p_j)^rate / Z   exponentiated gradient; theta_j / p_j - 1 is the relative slope

so that without evidence the proportions stay at the anchor or return to it, and with it they stop where the
law says that nothing is left to win.

How far stretches are pulled, and what that costs and shows: looking.py. Where the config asks for it, some
stretches compare the proportions with the anchor: comparing.py.

This is not in the Aioli paper. From it are the perturbed mixtures around which the law is estimated during
the run, and exponentiated gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from titan_aioli.methods.aioli_bayes import law
from titan_aioli.methods.aioli_bayes.comparing import Comparing, pooled
from titan_aioli.methods.aioli_bayes.law import Opinions
from titan_aioli.methods.aioli_bayes.looking import Looking, default_steps
from titan_aioli.methods.aioli_bayes.state import (
    LEARNED,
    LEFT_OUT,
    ON_ANCHOR,
    ON_PROPORTIONS,
    RUNNING,
    START,
    AioliBayesState,
)
from titan_aioli.methods.anchored import anchor_mixture, at_least, check_anchor, stepped
from titan_aioli.methods.checks import require_count, require_number
from titan_aioli.methods.faults import skipped_note, unusable
from titan_aioli.methods.objective import Objective
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import pulled

SCALES = np.array([0.0, 2.0, 8.0, 32.0])
"""[M], prior standard deviation of the slopes under each opinion, over the noise of a stretch."""
UNIT_STEP = 1.0 / 32
"""Weight of the last stretch in the running size of the noise."""
FIRST_UNIT_STEP = 0.25
"""Weight of the last difference of two drops in the size of the noise before looking begins."""
FIRST_COUNTS = 8
"""That size counts as much as this many stretches."""
LEAST_NOISE = 0.03
"""The noise is taken for at least this share of a drop: no law is exact."""
FIRST_ROUNDS = 2
"""In the first rounds of looking the unit changes because it is not known yet: what was learned stays the
same in nats. Later it changes with the learning rate, and what was learned changes with it."""
LARGEST_ERROR = 9.0
"""A squared error counts as at most this many times the variance of the noise in its running size."""
MOST_GROUPS = 1000


@dataclass(frozen=True)
class AioliBayes:
    """Aioli around the current proportions, with the evidence of the whole run, and steps that fit it.

    Source: this project; law.py has the model and its sources.
    """

    observes: ClassVar[str] = "validation"

    num_steps: int = 1024
    """Optimizer steps of the run."""
    steps_per_stretch: int | None = None
    """Optimizer steps between two evaluations. Unset: the run has 16 stretches for each group, and at least
    128."""
    strength: float = 0.5
    """Largest share by which a stretch is pulled to one group; less is used where the noise is small beside
    the drops."""
    looking: Sequence[float] = (0.1, 0.75)
    """Shares of the run between which stretches are perturbed at full strength; it then falls to 0. Before
    the first nothing is learned either: drops in the warm-up say nothing on later ones."""
    rate: float = 0.15
    """Share of the way to the best mixture, in logarithms, that the proportions go after each stretch."""
    prior_odds: float = 0.1
    """Probability, before any evidence, that the anchor is not the best mixture. Not odds, in spite of the
    name: odds of 1 to 9 are 0.1."""
    memory: float = 3.0
    """Runs after which evidence on the slopes counts 1 / e."""
    least_share: float | None = None
    """Smallest share of a group. Unset: a tenth of an even one."""
    anchor: Sequence[float] | None = None
    """[G] weights of the mixture to start from, and to return to without evidence. Unset: uniform."""
    compare_at: Sequence[float] = ()
    """Shares of the run, ascending, after which the gain over the anchor is measured: some steps on the
    anchor, then as many on the proportions (`titan-aioli check` says how many). Unset: never."""
    seed: int = 0
    """Seed of the order of the groups in each round."""
    objective: Objective | None = None
    """What each target counts. None: every target the same."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_count("aioli_bayes.num_steps", self.num_steps)
        if self.steps_per_stretch is not None:
            require_count("aioli_bayes.steps_per_stretch", self.steps_per_stretch)
        require_number("aioli_bayes.strength", self.strength, above=0, below=1, what="the largest strength")
        require_number("aioli_bayes.rate", self.rate, above=0, at_most=1, what="the share of the way")
        require_number("aioli_bayes.prior_odds", self.prior_odds, above=0, below=1, what="a probability")
        require_number("aioli_bayes.memory", self.memory, above=0, what="a number of runs")
        start, stop = self.looking if len(self.looking) == 2 else (-1, -1)
        if not 0 <= start < stop <= 1:
            raise ValueError(
                f"aioli_bayes.looking is {list(self.looking)}: it must be two shares of the run, from 0 to "
                "1, the first below the second"
            )
        self.comparing(num_groups).check()
        check_anchor("aioli_bayes", self.anchor, self.least_share, num_groups)
        if num_groups > MOST_GROUPS:
            raise ValueError(
                f"aioli_bayes keeps covariances of {num_groups} x {num_groups} groups: it takes at most "
                f"{MOST_GROUPS} groups; use aioli, or join groups"
            )
        self._objective.check(num_targets or num_groups)

    def init(self, num_groups: int, num_targets: int | None = None) -> AioliBayesState:
        num_targets = num_groups if num_targets is None else num_targets
        start = self._anchor(num_groups)
        return AioliBayesState(
            round=0,
            stage=START,
            stretch=0,
            compared=0,
            losses=np.full(num_targets, np.nan),
            proportions=start,
            origin=start,
            exposure=start,
            **law.first_opinions(num_groups, SCALES)._asdict(),
            last_drop=np.nan,
            first_unit=0.0,
            unit=0.0,
            round_drops=np.zeros(num_targets),
            worth=np.zeros(2),
            measured_gain=np.array([0.0, np.inf]),
            note=LEARNED,
            bad=np.zeros(num_targets, dtype=bool),
            target_memory=self._objective.start(num_targets),
        )

    def phase(self, state: AioliBayesState) -> Phase:
        if state.stage == START:
            return Phase(state.proportions.copy(), 0, "measure")
        mixture, strength = self._mixture(state)
        looking = self.stretches(len(mixture))
        if state.stage == RUNNING:
            return Phase(mixture, looking.steps, "learn_params" if strength > 0 else "train")
        num_steps = self.comparing(len(mixture)).stretches * looking.steps
        return Phase(mixture, num_steps, "learn_params" if state.stage == ON_ANCHOR else "train")

    def update(self, state: AioliBayesState, observation: np.ndarray | None) -> AioliBayesState:
        assert observation is not None, "aioli_bayes observes held-out losses"
        losses = np.array(observation, dtype=np.float64)
        if state.stage == START:
            return self._begin_round(state._replace(stage=RUNNING, losses=losses))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is left out
            if state.stage == RUNNING:
                return self._after_stretch(state, losses)
            return self._after_half(state, losses)

    def report(self, state: AioliBayesState) -> dict[str, np.ndarray | str]:
        note: dict[str, np.ndarray | str] = {} if state.note == LEARNED else {"note": skipped_note(state.bad)}
        if state.unit == 0:
            return note
        if np.isfinite(state.measured_gain).all():
            note |= {"measured_gain": state.measured_gain}
        return note | {
            "centre": state.proportions,
            "best": law.best_mixture(state.mean, state.origin)[self._likeliest(state)],
            "slopes": self._slopes(state),
            "probability": np.array(1.0 - self._posterior(state)[0]),
            "gain": self._gain(state),
            "noise": np.array(self._noise(state)),
        }

    def metrics(self, state: AioliBayesState) -> dict[str, np.ndarray]:
        if state.unit == 0:
            return {}
        return {"aioli/proportion": state.proportions, "aioli/slope": self._slopes(state)}

    def result(self, state: AioliBayesState) -> np.ndarray:
        return state.proportions

    def only_watched(self, num_targets: int) -> np.ndarray:
        """[K] bool, targets whose losses never matter."""
        return self._objective.only_watched(num_targets)

    def settings_in_use(self, state: AioliBayesState) -> dict[str, Any]:
        """What the evidence was gathered with."""
        return {"aioli_bayes.steps_per_stretch": self.stretches(len(state.proportions)).steps}

    def outlook(self, num_groups: int) -> dict[str, str]:
        """How the run is cut, and the smallest difference that it will probably find, for `check`."""
        looking = self.stretches(num_groups)
        cut = f"{looking.num_stretches:,} of {looking.steps:,} steps"
        if num_groups == 1:
            return {"stretches": cut}
        smallest = looking.smallest_seen(self.prior_odds, SCALES[1])
        return {
            "stretches": f"{cut}, pulled to one group by at most {self.strength:g}",
            "can see": f"a group that changes a stretch's loss drop by {smallest:.2g} times the noise of a "
            f"drop (signal {smallest:.2g})",
            **self.comparing(num_groups).outlook(),
        }

    def stretches(self, num_groups: int) -> Looking:
        """How the run is cut, and how far its stretches are pulled."""
        steps = self.steps_per_stretch or default_steps(self.num_steps, num_groups)
        return Looking(num_groups, self.num_steps, steps, self.strength, self.looking)

    def comparing(self, num_groups: int) -> Comparing:
        """When the proportions are compared with the anchor."""
        return Comparing(self.compare_at, self.stretches(num_groups))

    @property
    def _objective(self) -> Objective:
        return Objective() if self.objective is None else self.objective

    def _anchor(self, num_groups: int) -> np.ndarray:
        """[G], the anchor, with no share below the least one."""
        return anchor_mixture("aioli_bayes", self.anchor, self.least_share, num_groups)

    def _mixture(self, state: AioliBayesState) -> tuple[np.ndarray, float]:
        """What the present stretch trains on [G], and how far it is pulled to one group."""
        num_groups, proportions = len(state.proportions), state.proportions
        if state.stage in (ON_ANCHOR, ON_PROPORTIONS):
            return self._anchor(num_groups) if state.stage == ON_ANCHOR else proportions.copy(), 0.0
        likeliest = self._likeliest(state)
        level = max(state.mean[likeliest, 0], law.LEAST_LEVEL) / np.sqrt(state.noise[likeliest])
        order = np.random.default_rng((self.seed, state.round)).permutation(num_groups)
        group = int(order[(state.stretch - state.compared) % num_groups])
        looking, unknown = self.stretches(num_groups), self._unknown(state)
        strength = looking.strength_at(state.stretch, proportions[group], level, unknown)
        return (pulled(proportions, group, strength), strength) if strength > 0 else (proportions.copy(), 0.0)

    def _after_stretch(self, state: AioliBayesState, losses: np.ndarray) -> AioliBayesState:
        """The state after a stretch that is learned from."""
        mixture, _ = self._mixture(state)
        drops = state.losses - losses
        following = self._trained(self._learn(state, drops, mixture), losses, mixture, 1)
        following = following._replace(round_drops=state.round_drops + np.where(unusable(drops), 0.0, drops))
        if (following.stretch - following.compared) % len(mixture) == 0:
            following = self._begin_round(following._replace(round=state.round + 1))
        return self._turn(following)

    def _after_half(self, state: AioliBayesState, losses: np.ndarray) -> AioliBayesState:
        """The state after one of the two halves of a comparison: of them only the gain is learned."""
        mixture, _ = self._mixture(state)
        comparing = self.comparing(len(mixture))
        drop, bad = self._objective_drop(state, state.losses - losses)
        following = self._trained(state, losses, mixture, comparing.stretches)._replace(
            compared=state.compared + comparing.stretches,
            note=LEFT_OUT if bad.any() else LEARNED,
            bad=bad,
        )
        if state.stage == ON_ANCHOR:
            return following._replace(stage=ON_PROPORTIONS, last_drop=drop)
        measured = comparing.measured(drop - state.last_drop, self._noise(state))
        if np.isfinite(measured).all():
            following = following._replace(measured_gain=pooled(state.measured_gain, measured))
        return self._turn(following)

    def _trained(
        self, state: AioliBayesState, losses: np.ndarray, mixture: np.ndarray, num_stretches: int
    ) -> AioliBayesState:
        """The state after some stretches on a mixture, but for what they show."""
        kept = self.stretches(len(mixture)).kept ** num_stretches
        return state._replace(
            stretch=state.stretch + num_stretches,
            losses=losses,
            exposure=kept * state.exposure + (1.0 - kept) * mixture,
        )

    def _turn(self, state: AioliBayesState) -> AioliBayesState:
        """The state with what comes next: a comparison where one is due, else a stretch."""
        anchor = self._anchor(len(state.proportions))
        comparing = self.comparing(len(anchor))
        is_due = comparing.is_due(state.stretch, state.compared, state.proportions, anchor)
        return state._replace(stage=ON_ANCHOR if is_due else RUNNING)

    def _objective_drop(self, state: AioliBayesState, drops: np.ndarray) -> tuple[float, np.ndarray]:
        """What the objective lost, nats, and of which targets the drop is not usable [K].

        Not one that is only watched; a guard also where it is quiet (objective.py).
        """
        weights = self._objective.row_weights(state.target_memory, len(drops))
        counts = weights > 0
        return float(weights[counts] @ drops[counts] / counts.sum()), unusable(drops) & ~self.only_watched(
            len(drops)
        )

    def _learn(self, state: AioliBayesState, drops: np.ndarray, mixture: np.ndarray) -> AioliBayesState:
        """The evidence with one more stretch, on that mixture, and the proportions that follow from it."""
        drop, bad = self._objective_drop(state, drops)
        looking = self.stretches(len(mixture))
        number = state.stretch - looking.first
        if number < 0:
            return self._before_looking(state, drop, bad)
        anchor, proportions = self._anchor(len(mixture)), state.proportions
        unit = state.unit or state.first_unit or abs(drop) or 1.0
        opinions = law.moved(_opinions(state), state.origin, proportions)
        opinions = law.aged(opinions, proportions, anchor, SCALES, self.memory * looking.num_stretches)
        opinions, errors = law.learned(opinions, drop / unit, mixture - state.exposure)
        posterior = law.probabilities(opinions.log_evidence, self.prior_odds)
        step = max(UNIT_STEP, 1.0 / (number + (FIRST_COUNTS if state.first_unit else 3)))
        size = min(LARGEST_ERROR, float(posterior @ errors**2))
        growth = math.sqrt(1.0 - step + step * size)
        unit *= growth
        if number < FIRST_ROUNDS * len(mixture):
            opinions = law.in_unit(opinions, growth)
        worth = np.array(law.worth(opinions, posterior, proportions, anchor))
        if bad.any() or not all(
            np.isfinite(part).all() for part in (*opinions, unit * worth, unit * opinions.mean)
        ):
            return state._replace(note=LEFT_OUT, bad=bad)
        learned = state._replace(
            **opinions._asdict(),
            origin=proportions,
            unit=unit,
            worth=worth,
            note=LEARNED,
            bad=bad,
        )
        return self._move(learned)

    def _before_looking(self, state: AioliBayesState, drop: float, bad: np.ndarray) -> AioliBayesState:
        """The state after a stretch that only shows how large the noise is.

        From the mean difference of two drops: 2 / sqrt(pi) standard deviations of normal noise.
        """
        unit = state.first_unit
        size = max(abs(drop - state.last_drop) * math.sqrt(math.pi) / 2.0, LEAST_NOISE * abs(drop))
        if np.isfinite(size):
            unit = unit + FIRST_UNIT_STEP * (size - unit) if unit else size
        note = LEFT_OUT if bad.any() else LEARNED
        return state._replace(last_drop=drop, first_unit=unit, note=note, bad=bad)

    def _move(self, state: AioliBayesState) -> AioliBayesState:
        """p_j <- p_j (theta_j / p_j)^rate / Z; theta is the anchor where the anchor is probably the best."""
        anchor = self._anchor(len(state.proportions))
        posterior = self._posterior(state)
        is_another = 1.0 - posterior[0]
        trust = max(0.0, 2.0 * is_another - 1.0)
        theta = anchor
        if trust > 0:
            best = posterior[1:] @ law.best_mixture(state.mean, state.origin)[1:] / is_another
            theta = at_least((1.0 - trust) * anchor + trust * best, self.least_share)
        return state._replace(proportions=stepped(state.proportions, theta, self.rate, self.least_share))

    def _begin_round(self, state: AioliBayesState) -> AioliBayesState:
        """The weights of the targets for the next round, from the losses now and the last round's drops."""
        memory = state.target_memory
        if state.round > 0:  # relative to the losses at the start of the round that ended
            memory = self._objective.strengthen(memory, state.round_drops)
        memory = self._objective.begin_round(memory, state.losses)
        return state._replace(target_memory=memory, round_drops=np.zeros_like(state.round_drops))

    def _unknown(self, state: AioliBayesState) -> float:
        """How much there is left to learn: little where probably nothing can be won, or what is won is known.

        The root of the probability that there is something to win, over that before any evidence; or two
        standard errors of what the proportions are worth, over that.
        """
        hope = math.sqrt((1.0 - self._posterior(state)[0]) / self.prior_odds)
        worth, error = state.worth.tolist()  # Python's numbers, whose quotient may be infinite
        return min(hope, 2.0 * error / worth) if worth > 0 else hope

    def _gain(self, state: AioliBayesState) -> np.ndarray:
        """[2], what the loss would rise by on the anchor, and its standard error, nats.

        For a model that forgets as fast as at the peak learning rate: too little where that has fallen.
        """
        return state.unit * state.worth / (1.0 - self.stretches(len(state.proportions)).kept)

    def _posterior(self, state: AioliBayesState) -> np.ndarray:
        return law.probabilities(state.log_evidence, self.prior_odds)

    def _likeliest(self, state: AioliBayesState) -> int:
        return int(np.argmax(self._posterior(state)))

    def _slopes(self, state: AioliBayesState) -> np.ndarray:
        """[G], slopes averaged over the opinions, nats per stretch and unit of proportion."""
        return state.unit * (self._posterior(state) @ state.mean[:, 1:])

    def _noise(self, state: AioliBayesState) -> float:
        """Standard deviation of the noise of a stretch, nats."""
        return state.unit * float(np.sqrt(state.noise[self._likeliest(state)]))


def _opinions(state: AioliBayesState) -> Opinions:
    return Opinions(*(getattr(state, name) for name in Opinions._fields))
