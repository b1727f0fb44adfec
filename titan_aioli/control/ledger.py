"""The ledger: which proportions hold from which row on. The one record that makes a run repeatable.

A row is one training sequence, numbered over the whole run; a step trains the next B rows. B, the global
batch size, may change at a resume, so an entry holds both its step and its first row. The controller appends
entries at step boundaries and nothing else changes the mixture, so (ledger, seed, step) decide every row (see
schedule.py). It grows by one entry per phase: some 8 G + 50 bytes.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

import numpy as np

HASHED_AGAIN = 256
"""Number of entries, of the latest and of the older ones, that each `Ledger.digest` hashes again."""


class LedgerEntry(NamedTuple):
    """From `first_row` on, rows are drawn with `proportions`."""

    step: int
    """Optimizer steps finished when the entry was made."""
    first_row: int
    proportions: np.ndarray
    """[G], on the simplex."""
    phase: str
    round: int


class Ledger:
    """An append-only list of entries, ordered by step."""

    def __init__(self, entries: list[LedgerEntry] | None = None):
        self._entries: list[LedgerEntry] = []
        self._hasher = hashlib.sha256()
        for entry in entries or []:
            self.append(entry)

    def append(self, entry: LedgerEntry) -> None:
        if self._entries:
            last = self._entries[-1]
            assert entry.step >= last.step and entry.first_row >= last.first_row, (last, entry)
            assert len(entry.proportions) == len(last.proportions)
        entry = entry._replace(proportions=np.array(entry.proportions, dtype=np.float64))
        self._entries.append(entry)
        self._hasher.update(_entry_bytes(entry))

    def replace(self, other: "Ledger") -> None:
        """Take the entries of another ledger in place of these (at a resume)."""
        self.__init__(list(other))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> LedgerEntry:
        return self._entries[index]

    def at_step(self, step: int) -> LedgerEntry:
        """The entry that decides the rows of a step: the last one made at or before it."""
        if count := self._count_until(step):
            return self._entries[count - 1]
        raise ValueError(f"the ledger has no entry for step {step}; it starts at {self._first_step()}")

    def after_step(self, step: int) -> LedgerEntry | None:
        """The first entry made after a step; None if there is none."""
        count = self._count_until(step)
        return self._entries[count] if count < len(self) else None

    def batch_size_at(self, step: int) -> int | None:
        """Rows of a step, from the entries before and after it; None if there is none after it."""
        before, after = self.at_step(step), self.after_step(step)
        return None if after is None else (after.first_row - before.first_row) // (after.step - before.step)

    def digest(self) -> str:
        """Hash of every entry, to compare ledgers between ranks.

        A running hash is updated at each `append`. To detect memory that was corrupted afterwards, each call
        also hashes the last 256 entries again and one block of 256 older ones, the blocks in turn as the
        ledger grows: under 1 ms.
        """
        hasher, older = self._hasher.copy(), max(0, len(self) - HASHED_AGAIN)
        blocks = -(-older // HASHED_AGAIN)
        start = len(self) % blocks * HASHED_AGAIN if blocks else 0
        for entry in self._entries[start : min(start + HASHED_AGAIN, older)] + self._entries[older:]:
            hasher.update(_entry_bytes(entry))
        return hasher.hexdigest()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The ledger as arrays of plain dtypes, for a checkpoint."""
        num_groups = len(self._entries[0].proportions) if self._entries else 0
        return {
            "step": np.array([entry.step for entry in self], dtype=np.int64),
            "first_row": np.array([entry.first_row for entry in self], dtype=np.int64),
            "proportions": np.array([entry.proportions for entry in self]).reshape(len(self), num_groups),
            "phase": np.array([entry.phase for entry in self], dtype=np.str_),
            "round": np.array([entry.round for entry in self], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Ledger":
        columns = zip(*(arrays[name] for name in LedgerEntry._fields), strict=True)
        return cls([LedgerEntry(int(s), int(f), p, str(name), int(r)) for s, f, p, name, r in columns])

    def _count_until(self, step: int) -> int:
        """Number of entries made at or before a step."""
        return bisect_right(self._entries, step, key=attrgetter("step"))

    def _first_step(self) -> str:
        return f"step {self._entries[0].step}" if self._entries else "no step (it is empty)"


def _entry_bytes(entry: LedgerEntry) -> bytes:
    numbers = f"{entry.step} {entry.first_row} {entry.phase} {entry.round}\n"
    return numbers.encode() + entry.proportions.tobytes()
