"""DoGE: more of the groups whose gradient points where the held-out loss falls.

Each update needs one gradient for every group and one of the held-out loss. Gradients are taken one group at
a time: only the group's inner product with the held-out gradient and its norm are kept, both of which are
sums over shards. Like DoReMi it is run for `average`, which a `static` run trains on.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_number
from titan_aioli.methods.faults import absent, blamed, report_skipped, skipped_update, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import softmax, uniform

TINY = 1e-6
"""Number added to each norm before dividing by it (the released code's)."""


class DoGEState(NamedTuple):
    """All that DoGE knows between two phases."""

    round: int
    """Updates so far."""
    scores: np.ndarray
    """[G], last scores, in units of the learning rate."""
    proportions: np.ndarray
    """[G], the weights w."""
    average: np.ndarray
    """[G], mean of w over the updates: the result. A skipped update leaves w as it was."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class DoGE:
    """Exponentiated gradient on the alignment of each group's gradient with the held-out gradient.

    Source: Fan et al. 2023, arXiv:2310.15393, Algorithm 1, with the clipping and the division by the mean
    norm of the released code of Chen et al. 2024, arXiv:2411.05735. Three departures from that code. (1) It
    draws held-out samples in proportion to the size of each group's held-out set; here the held-out gradient
    is that of the mean over groups. (2) It multiplies by the scheduler's current learning rate; here
    `learning_rate` is constant, so the warm-up of the schedule does not slow the weights. (3) It weights
    gradients under even sampling; here groups are sampled by w, the same in expectation.
    """

    observes: ClassVar[str] = "gradients"

    mu: float = 0.01
    """Strength of the pull towards the last proportions: the step size is learning_rate / mu."""
    learning_rate: float = 5e-4
    """Learning rate that the scores are measured in; usually the peak of the schedule."""
    max_norm: float = 1.0
    """Every gradient is first scaled down to at most this norm."""
    max_score: float = 5.0
    """Scores are clipped to [0, max_score] learning rates."""
    smoothing: float = 0.0  # c in w <- (1 - c) w + c / G
    """Share of the uniform mixture in the proportions."""
    steps_per_update: int = 1
    """Optimizer steps between two measurements, each as expensive as one more step for every group."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        for name in ("mu", "learning_rate", "max_norm", "max_score"):
            require_number(f"doge.{name}", getattr(self, name), above=0)
        require_number("doge.smoothing", self.smoothing, at_least=0, at_most=1, what="the share of uniform")
        require_count("doge.steps_per_update", self.steps_per_update)

    def init(self, num_groups: int, num_targets: int | None = None) -> DoGEState:
        return DoGEState(
            round=0,
            scores=np.zeros(num_groups),
            proportions=uniform(num_groups),
            average=uniform(num_groups),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: DoGEState) -> Phase:
        return Phase(state.proportions.copy(), self.steps_per_update, "train")

    def update(self, state: DoGEState, observation: np.ndarray | None) -> DoGEState:
        assert observation is not None, "doge observes inner products and norms of gradients"
        t = state.round + 1
        bad, is_absent = blamed(self.observes, observation), absent(self.observes, observation)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self._scores(np.where(is_absent[:, None], 0.0, observation))
        bad = bad if bad.any() else unusable(scores)
        if bad.any():
            return skipped_update(state, bad)
        with np.errstate(divide="ignore"):
            w = softmax(np.log(state.proportions) + self.learning_rate * scores / self.mu)
        w = (1.0 - self.smoothing) * w + self.smoothing / len(w)
        average = state.average + (w - state.average) / t
        return DoGEState(round=t, scores=scores, proportions=w, average=average, skipped=bad)

    def report(self, state: DoGEState) -> dict[str, np.ndarray | str]:
        return {"scores": state.scores, "average": state.average} | report_skipped(state.skipped)

    def metrics(self, state: DoGEState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: DoGEState) -> np.ndarray:
        return state.average

    def _scores(self, observation: np.ndarray) -> np.ndarray:
        """<g_i, g_val> / mean_i |g_i| of clipped gradients, in [0, max_score]; an absent group scores 0.

        Args:
            observation: [G, 3], see `MixingMethod.observes`; rows of absent groups are 0.
        """
        inner, norms, held_out_norm = observation.T
        scale = np.minimum(1.0, self.max_norm / (norms + TINY))
        held_out_scale = np.minimum(1.0, self.max_norm / (held_out_norm + TINY))
        mean_norm = (scale * norms).mean()
        return np.clip(scale * held_out_scale * inner / (mean_norm + TINY), 0.0, self.max_score)
