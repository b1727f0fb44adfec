"""Rows to groups: a pure function of (ledger, seed, step), the same on every rank.

Within a step the number of rows of each group is proportions x batch size by largest remainder, with the
remainder carried to the next step; the order inside a step is a permutation keyed by (seed, step). The
n-th row of a group is the n-th sequence of its store, through a permutation keyed by (seed, group, epoch).

So the whole position in the data is a `Position`: O(groups), whatever the length of the run. Steps are
planned in blocks: the only loop over steps is the carry of the remainders, all else is vectorised.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from titan_aioli.data.permutation import make_key, permute

_ORDER, _SEQUENCE = 1, 2  # what a key is for


class Position(NamedTuple):
    """Where a run stands in its data, after `step` steps."""

    step: int
    carry: np.ndarray
    """[G] float64: rows asked for and not yet given (negative: given early)."""
    drawn: np.ndarray
    """[G] int64: rows of each group trained so far."""

    @classmethod
    def start(cls, num_groups: int, step: int = 0) -> "Position":
        return cls(step, np.zeros(num_groups), np.zeros(num_groups, dtype=np.int64))


class Block(NamedTuple):
    """The rows of consecutive steps, in training order; n steps of B rows."""

    first_step: int
    groups: np.ndarray
    """[n, B] int64, group of every row."""
    epochs: np.ndarray
    """[n, B] int64, how often the group's store had been read through before."""
    sequences: np.ndarray
    """[n, B] int64, number of the sequence in the group's store."""
    carries: np.ndarray
    """[n, G] float64, `Position.carry` after each step."""
    drawn: np.ndarray
    """[n, G] int64, `Position.drawn` after each step."""

    def position_after(self, index: int) -> Position:
        """The position after the block's step number `index`."""
        return Position(self.first_step + index + 1, self.carries[index], self.drawn[index])


def allocate(proportions: np.ndarray, batch_size: int, carry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each group in one step, by largest remainder, and the remainder that is left.

    A group with proportion 0 gets no row and keeps its remainder for when it is asked for again.

    Args:
        proportions: [G], on the simplex.
        batch_size: B, rows to give.
        carry: [G], rows owed from earlier steps.
    Returns: counts [G] int64 with sum B, and the new carry [G].
    """
    target = proportions * batch_size + carry
    active = proportions > 0
    counts = np.where(active, np.floor(np.maximum(target, 0.0)), 0.0)
    left = batch_size - int(counts.sum())
    while left:
        missing = target - counts
        if left > 0:
            candidates = np.flatnonzero(active)
            chosen = candidates[np.argsort(-missing[candidates], kind="stable")[:left]]
            counts[chosen] += 1
            left -= len(chosen)
        else:
            candidates = np.flatnonzero(counts)
            chosen = candidates[np.argsort(missing[candidates], kind="stable")[:-left]]
            counts[chosen] -= 1
            left += len(chosen)
    return counts.astype(np.int64), target - counts


class Schedule:
    """Plans the rows of steps for one set of groups, batch size and seed."""

    def __init__(self, group_names: Sequence[str], num_sequences: Sequence[int], batch_size: int, seed: int):
        """Args:
        group_names: [G]; a group's order of sequences depends on its name, not on its place.
        num_sequences: [G], sequences in each group's store, at least 1.
        batch_size: B, rows of one step over all ranks and accumulated micro-batches.
        seed: of the orders.
        """
        self.batch_size = batch_size
        self.seed = seed
        self.num_sequences = np.array(num_sequences, dtype=np.int64)
        self._group_keys = np.array([_name_key(name) for name in group_names], dtype=np.uint64)

    def plan(self, position: Position, proportions: np.ndarray, num_steps: int) -> Block:
        """The rows of the next `num_steps` steps, all with the same proportions [G]."""
        num_groups, batch_size = len(proportions), self.batch_size
        counts, carries = self._counts(position.carry, proportions, num_steps)
        drawn = position.drawn + np.cumsum(counts, axis=0)

        flat = counts.ravel()
        groups = np.repeat(np.tile(np.arange(num_groups), num_steps), flat)
        run_starts = np.cumsum(flat) - flat
        ordinals = np.arange(len(groups)) + np.repeat((drawn - counts).ravel() - run_starts, flat)

        order = self._order_within_steps(position.step, num_steps)
        shape = (num_steps, batch_size)
        groups, ordinals = groups[order], ordinals[order]
        epochs, sequences = self._sequences(groups, ordinals)
        return Block(
            position.step,
            groups.reshape(shape),
            epochs.reshape(shape),
            sequences.reshape(shape),
            carries,
            drawn,
        )

    def skip(self, position: Position, proportions: np.ndarray, num_steps: int) -> Position:
        """The position after the next `num_steps` steps, without their rows."""
        counts, carries = self._counts(position.carry, proportions, num_steps)
        return Position(position.step + num_steps, carries[-1], position.drawn + counts.sum(axis=0))

    def _counts(
        self, carry: np.ndarray, proportions: np.ndarray, num_steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each group and remainders after each step, both [n, G]."""
        counts = np.empty((num_steps, len(proportions)), dtype=np.int64)
        carries = np.empty((num_steps, len(proportions)))
        for index in range(num_steps):
            counts[index], carry = allocate(proportions, self.batch_size, carry)
            carries[index] = carry
        return counts, carries

    def _order_within_steps(self, first_step: int, num_steps: int) -> np.ndarray:
        """[n * B], indices that shuffle the rows inside each step."""
        steps = np.repeat(np.arange(num_steps), self.batch_size)
        places = np.tile(np.arange(self.batch_size), num_steps)
        keys = make_key(self.seed, _ORDER, steps + first_step)
        return steps * self.batch_size + permute(places, np.array([self.batch_size]), keys)

    def _sequences(self, groups: np.ndarray, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch and sequence number of each group's n-th row, [N] each."""
        sizes = self.num_sequences[groups]
        epochs, places = np.divmod(ordinals, sizes)
        keys = make_key(self.seed, _SEQUENCE, self._group_keys[groups], epochs)
        return epochs, permute(places, sizes, keys)


def fixed_sample(group_name: str, num_sequences: int, num_wanted: int) -> np.ndarray:
    """A fixed choice of a group's sequences, the same in every run: [min(num_wanted, num_sequences)]."""
    count = min(num_wanted, num_sequences)
    key = make_key(_name_key(group_name))
    return permute(np.arange(count), np.array([num_sequences]), key)


def _name_key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
