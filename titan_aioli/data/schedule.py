"""Rows to groups: a pure function of (ledger, seed, step), the same on every rank.

Within a step the number of rows of each group is proportions x batch size by largest remainder, with the
remainder carried to the next step; the order inside a step is a permutation keyed by (seed, step).
streams.py gives the sequence that is the n-th row of a group.

A `Position` is therefore the whole state of the data: O(groups), whatever the length of the run. Steps are
planned in blocks: only the carry of the remainders is a loop over steps, all else is vectorised.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from titan_aioli.data.allocate import allocate_steps
from titan_aioli.data.permutation import make_key, mix
from titan_aioli.data.streams import Streams, WeightedStores

_ORDER = 1  # domain of a key: no two uses share keys (streams.py has 2 and 3)


class Position(NamedTuple):
    """What a run has drawn from its data after `step` steps."""

    step: int
    first_row: int
    """Number of the next row, which is how many rows were trained before, whatever the batch sizes were."""
    carry: np.ndarray
    """[G] float64, rows asked for and not yet given (negative: given early)."""
    drawn: np.ndarray
    """[G] int64, rows of each group trained so far."""

    @classmethod
    def start(cls, num_groups: int, step: int = 0, first_row: int = 0) -> "Position":
        return cls(step, first_row, np.zeros(num_groups), np.zeros(num_groups, dtype=np.int64))


class Block(NamedTuple):
    """The rows of consecutive steps, in training order; n steps of B rows."""

    start: Position
    groups: np.ndarray
    """[n, B] int64, group of every row."""
    epochs: np.ndarray
    """[n, B] int64, epoch of every row: complete passes before it over its group (or its weighted store)."""
    sequences: np.ndarray
    """[n, B] int64, number of the sequence in the group."""
    proportions: np.ndarray
    """[G], the same in all steps of the block."""
    carry: np.ndarray
    """[G] float64, `Position.carry` after the last step."""

    @property
    def num_steps(self) -> int:
        return len(self.groups)

    def step(self, index: int) -> int:
        """The number of a step of the block in the run."""
        return self.start.step + index

    def first_row(self, index: int) -> int:
        """The number of the first row of a step of the block."""
        return self.start.first_row + index * self.groups.shape[1]

    def position_after(self, index: int) -> Position:
        """The position after the step `index` of the block; -1: before its first step."""
        if index < 0:
            return self.start
        carry = self.carry
        if index + 1 < self.num_steps:  # rare, at a checkpoint or the end of a phase: computed again
            _, carry = allocate_steps(self.proportions, self.groups.shape[1], self.start.carry, index + 1)
        drawn = np.bincount(self.groups[: index + 1].ravel(), minlength=len(carry))
        return Position(self.step(index + 1), self.first_row(index + 1), carry, self.start.drawn + drawn)

    def within(self, max_drawn: np.ndarray) -> tuple["Block", np.ndarray]:
        """The steps of the block that draw at most `max_drawn` [G] rows of each group in the whole run.

        Returns: the block, cut before the first step that draws more, and the groups that this step would
            overdraw (none if the block is whole).
        """
        drawn = self.position_after(self.num_steps - 1).drawn
        over = np.flatnonzero((drawn > max_drawn) & (drawn > self.start.drawn))
        if not len(over):
            return self, over
        steps = np.repeat(np.arange(self.num_steps), self.groups.shape[1])
        flat, left = self.groups.ravel(), np.maximum(max_drawn - self.start.drawn, 0)
        first_over = np.array([steps[np.flatnonzero(flat == group)[left[group]]] for group in over])
        cut = int(first_over.min())
        block = self._replace(
            groups=self.groups[:cut],
            epochs=self.epochs[:cut],
            sequences=self.sequences[:cut],
            carry=self.position_after(cut - 1).carry,
        )
        return block, over[first_over == cut]


class Schedule:
    """Plans the rows of steps for one set of groups, batch size and seed."""

    def __init__(
        self,
        group_names: Sequence[str],
        num_sequences: Sequence[int],
        batch_size: int,
        seed: int,
        weighted: dict[int, WeightedStores] | None = None,
    ):
        """Args:
        group_names: [G]; a group's order of sequences depends on its name, not on its index.
        num_sequences: [G], sequences of each group, at least 1.
        batch_size: B, rows of one step over all ranks and accumulated micro-batches.
        seed: seed of the orders of rows and sequences.
        weighted: groups with store weights, by index.
        """
        self.batch_size = batch_size
        self.seed = seed
        self.num_sequences = np.array(num_sequences, dtype=np.int64)
        self._streams = Streams(group_names, num_sequences, seed, weighted)

    def plan(self, position: Position, proportions: np.ndarray, num_steps: int) -> Block:
        """The rows of the next `num_steps` steps, all with the same proportions [G]."""
        rows, carry = allocate_steps(proportions, self.batch_size, position.carry, num_steps)
        groups = rows.ravel()
        ordinals = position.drawn[groups] + _ranks(groups)
        order = self._order_within_steps(position.step, num_steps)
        groups, ordinals = groups[order], ordinals[order]
        epochs, sequences = self._streams.sequences(groups, ordinals)
        shape = (num_steps, self.batch_size)
        return Block(
            position,
            groups.reshape(shape),
            epochs.reshape(shape),
            sequences.reshape(shape),
            proportions,
            carry,
        )

    def skip(self, position: Position, proportions: np.ndarray, num_steps: int) -> Position:
        """The position after the next `num_steps` steps, without their rows."""
        rows, carry = allocate_steps(proportions, self.batch_size, position.carry, num_steps)
        drawn = position.drawn + np.bincount(rows.ravel(), minlength=len(carry))
        return Position(
            position.step + num_steps, position.first_row + num_steps * self.batch_size, carry, drawn
        )

    def upcoming(self, position: Position, group: int, num_rows: int) -> np.ndarray:
        """[num_rows] int64, the sequences that a group's next rows are; nothing is drawn."""
        ordinals = position.drawn[group] + np.arange(num_rows)
        return self._streams.sequences(np.full(num_rows, group), ordinals)[1]

    def _order_within_steps(self, first_step: int, num_steps: int) -> np.ndarray:
        """[n * B], indices that shuffle the rows inside each step."""
        steps = np.arange(num_steps)[:, None]
        keys = make_key(self.seed, _ORDER, steps + first_step)
        order = np.argsort(mix(keys ^ np.arange(self.batch_size, dtype=np.uint64)), axis=1, kind="stable")
        return (order + steps * self.batch_size).ravel()


def _ranks(groups: np.ndarray) -> np.ndarray:
    """[N] int64, number of earlier rows of the same group."""
    # NumPy sorts integers of at most 16 bits in linear time
    order = np.argsort(groups.astype(np.min_scalar_type(int(groups.max()))), kind="stable")
    counts = np.bincount(groups)
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks
