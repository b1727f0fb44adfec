"""Stratified sampling: every group the same share, for the whole run. The baseline of every table."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.protocol import UNTIL_END, Phase
from titan_aioli.proportions import uniform


class FixedState(NamedTuple):
    """State of a method whose proportions never change."""

    round: int
    proportions: np.ndarray


@dataclass(frozen=True)
class Stratified:
    """Uniform proportions, p = 1 / G.

    Source: the baseline of Chen et al. 2024, arXiv:2411.05735, section 6.
    """

    observes: ClassVar[str] = "nothing"

    def check(self, num_groups: int) -> None:
        uniform(num_groups)

    def init(self, num_groups: int) -> FixedState:
        return FixedState(round=0, proportions=uniform(num_groups))

    def phase(self, state: FixedState) -> Phase:
        return Phase(state.proportions.copy(), UNTIL_END, "train")

    def update(self, state: FixedState, observation: np.ndarray | None) -> FixedState:
        return state

    def report(self, state: FixedState) -> dict[str, np.ndarray | str]:
        return {}
