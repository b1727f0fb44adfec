"""Mixtures that never change: uniform, given, or by the size of the groups with a temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.protocol import UNTIL_END, Phase
from titan_aioli.proportions import by_size, uniform


class FixedState(NamedTuple):
    """State of a method whose proportions never change."""

    round: int
    proportions: np.ndarray


@dataclass(frozen=True)
class Stratified:
    """Uniform proportions, p = 1 / G: the baseline of every table.

    Source: the baseline of Chen et al. 2024, arXiv:2411.05735, section 6.
    """

    observes: ClassVar[str] = "nothing"

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        uniform(num_groups)

    def init(self, num_groups: int, num_targets: int | None = None) -> FixedState:
        return FixedState(round=0, proportions=uniform(num_groups))

    def phase(self, state: FixedState) -> Phase:
        return Phase(state.proportions.copy(), UNTIL_END, "train")

    def update(self, state: FixedState, observation: np.ndarray | None) -> FixedState:
        return state

    def report(self, state: FixedState) -> dict[str, np.ndarray | str]:
        return {}

    def metrics(self, state: FixedState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: FixedState) -> np.ndarray:
        return state.proportions


@dataclass(frozen=True)
class Static:
    """One mixture for the whole run.

    Source: the `--proportions` runs of Chen et al. 2024, arXiv:2411.05735; sampling by size with a
    temperature is that of multilingual models (Arivazhagan et al. 2019, arXiv:1907.05019).
    """

    observes: ClassVar[str] = "nothing"

    proportions: Sequence[float] | None = None
    """[G] weights, normalised by their sum. None: by `sizes`, or uniform where those are None too."""
    sizes: Sequence[float] | None = None
    """[G] tokens of each group, used where no proportions are given."""
    temperature: float = 1.0
    """Share = size ** (1 / temperature): 1 is proportional to size, above 1 is flatter."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        if self.proportions is not None and self.sizes is not None:
            raise ValueError("static takes either `proportions` or `sizes`, not both")
        for name, values in (("proportions", self.proportions), ("sizes", self.sizes)):
            if values is not None and len(values) != num_groups:
                raise ValueError(f"static.{name} has {len(values)} numbers for {num_groups} groups")
        self.init(num_groups)

    def init(self, num_groups: int, num_targets: int | None = None) -> FixedState:
        if self.proportions is not None:
            proportions = by_size(self.proportions, self.temperature, "static.proportions")
        elif self.sizes is not None:
            proportions = by_size(self.sizes, self.temperature, "static.sizes")
        else:
            proportions = uniform(num_groups)
        return FixedState(round=0, proportions=proportions)

    def phase(self, state: FixedState) -> Phase:
        return Phase(state.proportions.copy(), UNTIL_END, "train")

    def update(self, state: FixedState, observation: np.ndarray | None) -> FixedState:
        return state

    def report(self, state: FixedState) -> dict[str, np.ndarray | str]:
        return {}

    def metrics(self, state: FixedState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: FixedState) -> np.ndarray:
        return state.proportions
