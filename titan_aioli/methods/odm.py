"""Online Data Mixing: a bandit that trains on the groups whose loss is high.

It uses the training losses that are there anyway: no evaluation, no reference model, a few numbers of state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_number, require_weights
from titan_aioli.methods.faults import report_skipped, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import normalize_or_uniform, softmax, uniform


class ODMState(NamedTuple):
    """All that ODM knows between two phases."""

    round: int
    """t, updates so far."""
    rewards: np.ndarray
    """[G], R-hat: moving average of the estimated reward of every group."""
    proportions: np.ndarray
    """[G], the policy pi."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class ODM:
    """Exp3 with the training loss of a group as its reward, and exploration that decays.

    Source: Albalak et al. 2023, arXiv:2312.02406, Algorithm 1. In the paper a micro-batch comes from one
    group that is drawn by pi, and dividing its loss by pi makes up for groups drawn rarely. Here a step holds
    many groups; the division is kept as printed, and `importance_weighted` False leaves it out, which is the
    expectation of the paper's reward where every group is seen at every update. One update is one phase of
    `steps_per_update` steps, so t counts updates. The default of alpha is ours.
    """

    observes: ClassVar[str] = "train"

    alpha: float = 0.9
    """Weight on the past in the moving average of the rewards, in [0, 1)."""
    importance_weighted: bool = True
    """Divide the loss of a group by its share, as in the paper."""
    warmup_updates: int = 0  # the paper: 1 % of the run
    """Updates on `prior`, in which only rewards are gathered."""
    prior: Sequence[float] | None = None
    """[G] weights of the mixture of the warm-up. None: uniform."""
    steps_per_update: int = 1
    """Optimizer steps over which the losses are averaged."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_number("odm.alpha", self.alpha, at_least=0, below=1, what="the weight on the past")
        require_count("odm.warmup_updates", self.warmup_updates, smallest=0)
        require_count("odm.steps_per_update", self.steps_per_update)
        if self.prior is not None:
            require_weights("odm.prior", self.prior, num_groups)

    def init(self, num_groups: int, num_targets: int | None = None) -> ODMState:
        prior = normalize_or_uniform(self.prior, num_groups, "odm.prior")
        return ODMState(
            round=0,
            rewards=np.zeros(num_groups),
            proportions=prior if self.warmup_updates else uniform(num_groups),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: ODMState) -> Phase:
        return Phase(state.proportions.copy(), self.steps_per_update, "train")

    def update(self, state: ODMState, observation: np.ndarray | None) -> ODMState:
        assert observation is not None, "odm observes training losses"
        t, K = state.round + 1, len(observation)
        with np.errstate(over="ignore", divide="ignore"):
            reward = observation / state.proportions if self.importance_weighted else observation
        bad = unusable(observation, nan_is_absent=True) | unusable(reward, nan_is_absent=True)
        if bad.any():
            return state._replace(round=t, skipped=bad)
        averaged = self.alpha * state.rewards + (1.0 - self.alpha) * reward
        rewards = np.where(np.isnan(reward), state.rewards, averaged)  # an absent group keeps its reward
        pi = state.proportions
        if t >= self.warmup_updates:
            epsilon = exploration(t + 1, K)
            pi = (1.0 - K * epsilon) * softmax(exploration(t, K) * rewards) + epsilon
        return ODMState(round=t, rewards=rewards, proportions=pi, skipped=bad)

    def report(self, state: ODMState) -> dict[str, np.ndarray | str]:
        return {"rewards": state.rewards} | report_skipped(state.skipped)

    def metrics(self, state: ODMState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: ODMState) -> np.ndarray:
        return state.proportions


def exploration(t: int, num_groups: int) -> float:
    """epsilon_t = min(1 / K, sqrt(ln K / (K t))): the least share of a group at step t, from 1."""
    return float(min(1.0 / num_groups, np.sqrt(np.log(num_groups) / (num_groups * t))))
