"""Replay: the mixtures that another run decided, as a fixed schedule. Nothing is measured.

With the same seed, batch size and stores a run trains on the rows of the recorded one, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_choice, require_count, require_weights
from titan_aioli.methods.protocol import PHASES, UNTIL_END, Phase
from titan_aioli.proportions import uniform

SUM_TOLERANCE = 1e-9


class Entry(NamedTuple):
    """A line of the recorded ledger."""

    step: int
    """The first step of the phase. Before the first entry's, its mixture is trained on."""
    phase: str
    round: int
    proportions: Sequence[float]
    """[G], on the simplex, used bit for bit."""


class ReplayState(NamedTuple):
    """Which entry is trained on."""

    round: int
    place: int
    proportions: np.ndarray
    """[G], of the last phase named `train`; uniform before the first."""


@dataclass(frozen=True)
class Replay:
    """One phase for each entry of a recorded ledger that trained; the last lasts as long as the run."""

    observes: ClassVar[str] = "nothing"

    schedule: Sequence[Sequence[Any]] | None = None
    """The recorded entries, each as the four values of Entry. None: uniform for the whole run."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        uniform(num_groups)
        if self.schedule is None:
            return
        last = 0
        for number, values in enumerate(self.schedule, 1):
            name = f"replay.schedule, entry {number}:"
            if len(values) != len(Entry._fields):
                raise ValueError(f"{name} {len(values)} values, not {', '.join(Entry._fields)}")
            entry = Entry(*values)
            require_count(f"{name} step", entry.step, smallest=last, why="entries are ordered by step")
            require_choice(f"{name} phase", entry.phase, PHASES)
            require_count(f"{name} round", entry.round, smallest=0)
            require_weights(f"{name} proportions", entry.proportions, num_groups)
            if abs(sum(entry.proportions) - 1.0) > SUM_TOLERANCE:
                raise ValueError(f"{name} proportions sum to {sum(entry.proportions)}: they must sum to 1")
            last = entry.step
        if not self.schedule:
            raise ValueError("replay.schedule is empty: it needs at least one entry")

    def init(self, num_groups: int, num_targets: int | None = None) -> ReplayState:
        return self._enter(0, uniform(num_groups))

    def phase(self, state: ReplayState) -> Phase:
        entries = self._entries
        if not entries:
            return Phase(state.proportions.copy(), UNTIL_END, "train")
        entry = entries[state.place]
        is_last = state.place + 1 == len(entries)
        num_steps = UNTIL_END if is_last else entries[state.place + 1].step - entry.step
        if entry.phase == "train":
            return Phase(state.proportions.copy(), num_steps, "train")
        return Phase(np.array(entry.proportions, dtype=np.float64), num_steps, entry.phase)

    def update(self, state: ReplayState, observation: np.ndarray | None) -> ReplayState:
        return self._enter(min(state.place + 1, max(len(self._entries) - 1, 0)), state.proportions)

    def report(self, state: ReplayState) -> dict[str, np.ndarray | str]:
        return {}

    def metrics(self, state: ReplayState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: ReplayState) -> np.ndarray:
        return state.proportions

    def _enter(self, place: int, proportions: np.ndarray) -> ReplayState:
        """The state in an entry, given the proportions of the last training before it."""
        entries = self._entries
        if not entries:
            return ReplayState(0, place, proportions.copy())
        entry = entries[place]
        if entry.phase == "train":
            proportions = np.array(entry.proportions, dtype=np.float64)
        return ReplayState(entry.round, place, proportions.copy())

    @cached_property
    def _entries(self) -> list[Entry]:
        """The entries that trained at least one step, and the last; the first of them from step 0 on."""
        entries = [Entry(*values) for values in self.schedule or ()]
        trained = [entry for entry, following in pairwise(entries) if following.step > entry.step]
        trained += entries[-1:]
        return [entry._replace(step=0) for entry in trained[:1]] + trained[1:]
