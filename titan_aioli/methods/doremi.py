"""DoReMi: more of the groups on which a reference model is still ahead.

It needs one extra run (the reference, trained on the stratified mixture) and, in the proxy run, one forward
pass of the reference for every step. What it is run for is `average`, the mean of its weights, which a
`static` run then trains on; trained on directly it works as an online method.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_number
from titan_aioli.methods.faults import report_skipped, skipped_update, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import softmax, uniform

FIRST_SCORE = 1e-6
"""Excess loss of a group that was never seen, nats per token (the released code's)."""


class DoReMiState(NamedTuple):
    """All that DoReMi knows between two phases."""

    round: int
    """Updates so far."""
    scores: np.ndarray
    """[G], last clipped excess loss of every group, nats per token."""
    proportions: np.ndarray
    """[G], the weights w, after smoothing."""
    average: np.ndarray
    """[G], mean of w over the updates: the result. A skipped update leaves w as it was."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class DoReMi:
    """Exponentiated gradient on the excess loss of each group over a reference model.

    Source: Xie et al. 2023, arXiv:2305.10429, Algorithm 1. Two departures. (1) The paper samples groups
    evenly and weights the loss of group i by w_i; here groups are sampled by w, which gives the same gradient
    in expectation and needs nothing of the loss. (2) A group that was absent keeps its last score; the
    released code of arXiv:2411.05735 does so too, but takes an excess of exactly 0 for absence, drops all but
    the last micro-batch, and clips the gradient after each group.
    """

    observes: ClassVar[str] = "excess"

    mu: float = 1.0  # the paper's; the scripts of arXiv:2411.05735 use 0.01
    """Step size of the update of the proportions, per nat."""
    smoothing: float = 1e-3  # c in w <- (1 - c) w + c / G
    """Share of the uniform mixture in the proportions."""
    steps_per_update: int = 1
    """Optimizer steps over which an excess loss is averaged."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_number("doremi.mu", self.mu, above=0, what="the step size")
        require_number("doremi.smoothing", self.smoothing, at_least=0, at_most=1, what="the share of uniform")
        require_count("doremi.steps_per_update", self.steps_per_update)

    def init(self, num_groups: int, num_targets: int | None = None) -> DoReMiState:
        return DoReMiState(
            round=0,
            scores=np.full(num_groups, FIRST_SCORE),
            proportions=uniform(num_groups),
            average=uniform(num_groups),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: DoReMiState) -> Phase:
        return Phase(state.proportions.copy(), self.steps_per_update, "train")

    def update(self, state: DoReMiState, observation: np.ndarray | None) -> DoReMiState:
        assert observation is not None, "doremi observes excess losses"
        t = state.round + 1
        bad = unusable(observation, nan_is_absent=True)
        if bad.any():
            return skipped_update(state, bad)
        scores = np.where(np.isnan(observation), state.scores, np.maximum(observation, 0.0))
        with np.errstate(divide="ignore", over="ignore"):
            log_w = np.log(state.proportions) + self.mu * scores
        if np.isposinf(log_w).any():
            return skipped_update(state, np.isposinf(log_w))
        w = (1.0 - self.smoothing) * softmax(log_w) + self.smoothing / len(log_w)
        average = state.average + (w - state.average) / t
        return DoReMiState(round=t, scores=scores, proportions=w, average=average, skipped=bad)

    def report(self, state: DoReMiState) -> dict[str, np.ndarray | str]:
        return {"scores": state.scores, "average": state.average} | report_skipped(state.skipped)

    def metrics(self, state: DoReMiState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: DoReMiState) -> np.ndarray:
        return state.average
