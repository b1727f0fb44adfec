"""Mixtures that nothing measured changes: uniform, given, by the size of the groups, or by a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_weights
from titan_aioli.methods.protocol import UNTIL_END, Phase
from titan_aioli.proportions import by_size, uniform


class FixedState(NamedTuple):
    """State of a method whose proportions follow from the step alone."""

    round: int
    """Number of the stage of the schedule; 0 without one."""
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
    """One mixture for the whole run, or one for each stage of it.

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
    schedule: Sequence[Sequence[Any]] | None = None
    """Stages (start_step, [G] weights), the first at step 0, each up to the next. None: one mixture."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        if self.proportions is not None and self.sizes is not None:
            raise ValueError("static takes either `proportions` or `sizes`, not both")
        if self.schedule is not None:
            self._check_schedule(num_groups)
        for name, values in (("proportions", self.proportions), ("sizes", self.sizes)):
            if values is not None and len(values) != num_groups:
                raise ValueError(f"static.{name} has {len(values)} numbers for {num_groups} groups")
        self.init(num_groups)

    def _check_schedule(self, num_groups: int) -> None:
        """Stages begin at step 0, one after the other, and each has a mixture."""
        assert self.schedule is not None
        if self.proportions is not None or self.sizes is not None:
            raise ValueError("static takes either `schedule` or one mixture, not both")
        if not self.schedule or self.schedule[0][0] != 0:
            raise ValueError(
                f"static.schedule begins at {[start for start, _ in self.schedule][:1] or 'no step'}: its "
                "first stage must have start_step 0"
            )
        following = 0
        for number, (start, weights) in enumerate(self.schedule):
            why = "stages are in the order of their steps, each of at least one"
            require_count(f"static.schedule[{number}].start_step", start, smallest=following, why=why)
            require_weights(f"static.schedule[{number}].weights", weights, num_groups)
            following = start + 1

    def init(self, num_groups: int, num_targets: int | None = None) -> FixedState:
        return FixedState(round=0, proportions=self._mixture(0, num_groups))

    def phase(self, state: FixedState) -> Phase:
        starts = [start for start, _ in self.schedule or ()][state.round : state.round + 2]
        num_steps = starts[1] - starts[0] if len(starts) == 2 else UNTIL_END
        return Phase(state.proportions.copy(), num_steps, "train")

    def update(self, state: FixedState, observation: np.ndarray | None) -> FixedState:
        stage = state.round + 1
        if self.schedule is None or stage >= len(self.schedule):
            return state
        return FixedState(round=stage, proportions=self._mixture(stage, len(state.proportions)))

    def report(self, state: FixedState) -> dict[str, np.ndarray | str]:
        return {}

    def metrics(self, state: FixedState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: FixedState) -> np.ndarray:
        return state.proportions

    def _mixture(self, stage: int, num_groups: int) -> np.ndarray:
        """The proportions [G] of a stage of the schedule, or of the run."""
        if self.schedule is not None:
            return by_size(self.schedule[stage][1], self.temperature, f"static.schedule[{stage}].weights")
        if self.proportions is not None:
            return by_size(self.proportions, self.temperature, "static.proportions")
        if self.sizes is not None:
            return by_size(self.sizes, self.temperature, "static.sizes")
        return uniform(num_groups)
