"""Guards around any method: how small and large a share may be, how far it may move at once and from a prior.

`Guarded` is itself a method: it keeps the state of the method inside, with `proportions` as they are really
trained on, so it is saved, resumed and replayed like any other, and what the method computes from its own
proportions stays true. Phases that measure (Aioli's perturbed mixtures) and a prior are left as they are.
That what is not finite never reaches the proportions needs no guard: see faults.py.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titan_aioli.methods.checks import require_number, require_weights
from titan_aioli.methods.protocol import (
    MixingMethod,
    Phase,
    only_watched,
    outlook,
    over_targets,
    settings_in_use,
)
from titan_aioli.proportions import bounded, normalize_or_uniform, softmax, uniform


@dataclass(frozen=True)
class Guarded:
    """A method whose proportions keep within bounds; every guard is off by default.

    In this order: pulled to the anchor, brought within the least and the largest shares, and then moved from
    the last proportions in a straight line, no further than `max_change`, which does not apply to the first
    proportions of a run.
    """

    method: MixingMethod
    """What decides."""
    min_share: float = 0.0
    """Least share of every group, at most 1 / G. 0: off."""
    max_share: Sequence[float] | None = None
    """[G], largest share of each group, their sum at least 1. None: off."""
    max_change: float = 1.0
    """Largest change of any group's share at one update. 1: off."""
    anchor: Sequence[float] | None = None
    """[G] weights of a prior, all positive. None: uniform, if anchor_strength is set."""
    anchor_strength: float = 0.0
    """c in [0, 1]: the p that minimises (1 - c) KL(p || method's) + c KL(p || anchor), which is their
    geometric mean. 0: off. 1: the anchor alone."""

    @property
    def observes(self) -> str:
        return self.method.observes

    @property
    def over_targets(self) -> Collection[str]:
        return over_targets(self.method)

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        self.method.check(num_groups, num_targets)
        require_number(
            "guards.min_share", self.min_share, at_least=0, at_most=1 / num_groups, what="a least share"
        )
        if self.max_share is not None:
            require_weights("guards.max_share", self.max_share, num_groups)
            if min(self.max_share) < self.min_share:
                raise ValueError(
                    f"guards.min_share is {self.min_share}: above the largest share of a group, "
                    f"{min(self.max_share):.4g}, that max_epochs leaves it"
                )
            bounded(uniform(num_groups), self.min_share, self.max_share)
        require_number("guards.max_change", self.max_change, above=0, at_most=1, what="the largest change")
        require_number("guards.anchor_strength", self.anchor_strength, at_least=0, at_most=1)
        if self.anchor is not None:
            require_weights("guards.anchor", self.anchor, num_groups)
            if min(self.anchor) <= 0:
                raise ValueError(
                    f"guards.anchor is {list(self.anchor)}: a KL anchor needs every weight above 0"
                )

    def only_watched(self, num_targets: int) -> np.ndarray:
        return only_watched(self.method, num_targets)

    def init(self, num_groups: int, num_targets: int | None = None) -> Any:
        state = self.method.init(num_groups, num_targets)
        return state._replace(proportions=self._within(state.proportions))

    def phase(self, state: Any) -> Phase:
        return self.method.phase(state)

    def update(self, state: Any, observation: np.ndarray | None) -> Any:
        following = self.method.update(state, observation)
        last, wanted = state.proportions, following.proportions
        if np.array_equal(last, wanted):  # no decision was taken, so there is nothing to guard
            return following
        target = self._within(wanted)
        largest = np.abs(target - last).max()
        if largest > self.max_change:
            target = last + (target - last) * (self.max_change / largest)
        return following._replace(proportions=target)

    def report(self, state: Any) -> dict[str, np.ndarray | str]:
        return self.method.report(state)

    def metrics(self, state: Any) -> dict[str, np.ndarray]:
        return self.method.metrics(state)

    def settings_in_use(self, state: Any) -> dict[str, Any]:
        return settings_in_use(self.method, state)

    def outlook(self, num_groups: int) -> dict[str, str]:
        return outlook(self.method, num_groups)

    def result(self, state: Any) -> np.ndarray:
        found = self.method.result(state)
        return found if np.array_equal(found, state.proportions) else self._within(found)

    def _within(self, proportions: np.ndarray) -> np.ndarray:
        if self.anchor_strength > 0:
            anchor = normalize_or_uniform(self.anchor, len(proportions), "guards.anchor")
            if self.anchor_strength == 1:
                proportions = anchor
            else:
                with np.errstate(divide="ignore"):
                    log_p = np.log(proportions)
                proportions = softmax(
                    (1 - self.anchor_strength) * log_p + self.anchor_strength * np.log(anchor)
                )
        if self.min_share == 0 and self.max_share is None:
            return proportions
        return bounded(proportions, self.min_share, 1.0 if self.max_share is None else self.max_share)
