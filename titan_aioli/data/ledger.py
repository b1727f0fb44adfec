"""The ledger: which proportions hold from which row on. The one record that makes a run repeatable.

A row is one training sequence, numbered over the whole run; a step trains the next B rows, B the global
batch size, which may change at a resume, so that entries name both their step and their first row. The
controller appends an entry at step boundaries and nothing else changes the mixture, so (ledger, seed, step)
decide every row (see schedule.py). It grows by one entry a phase: a few hundred bytes.

`LedgerFile` writes the same decisions to `ledger.jsonl`, one object a line, with what was observed.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HASHED_AGAIN = 256
"""Entries whose memory is checked at each `Ledger.digest`."""
LARGEST_LINE_BYTES = 1 << 28
"""A line holds a few matrices [G, G] as text: enough for 2,000 groups."""


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
        """Take over another ledger's entries (a resume)."""
        self.__init__(list(other))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> LedgerEntry:
        return self._entries[index]

    def at_step(self, step: int) -> LedgerEntry:
        """The entry that decides the rows of a step: the last one made at or before it."""
        for entry in reversed(self._entries):
            if entry.step <= step:
                return entry
        raise ValueError(f"the ledger has no entry for step {step}; it starts at {self._first_step()}")

    def batch_size_at(self, step: int) -> int | None:
        """Rows of a step, from the entries around it; None where no later entry says it."""
        before = self.at_step(step)
        for entry in self._entries:
            if entry.step > step:
                return (entry.first_row - before.first_row) // (entry.step - before.step)
        return None

    def digest(self) -> str:
        """Hash of every entry, to compare ledgers over ranks.

        The hash is kept while appending. To notice memory that has changed since, the last 256 entries are
        hashed again at each call, and of older ones 256 in turn as the ledger grows: under 1 ms.
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

    def _first_step(self) -> str:
        return f"step {self._entries[0].step}" if self._entries else "no step (it is empty)"


def _entry_bytes(entry: LedgerEntry) -> bytes:
    numbers = f"{entry.step} {entry.first_row} {entry.phase} {entry.round}\n"
    return numbers.encode() + entry.proportions.tobytes()


class LedgerFile:
    """`ledger.jsonl` in a run's dump folder: what was decided at each step, and from what.

    Every rank counts the same bytes; one rank writes them. A resumed run cuts the file back to the bytes
    that its checkpoint knows, so the file equals that of a run never stopped.
    """

    def __init__(self, path: Path, is_writer: bool):
        self.path = path
        self.is_writer = is_writer
        self.num_bytes = 0

    def append(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record, default=_to_plain) + "\n").encode()
        if self.is_writer:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab" if self.num_bytes else "wb") as file:
                file.write(line)
        self.num_bytes += len(line)

    def sync(self) -> None:
        """Wait until the file is on disk: called where a checkpoint is about to rely on it."""
        if self.is_writer and self.num_bytes:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())

    def rewind(self, num_bytes: int, ledger: Ledger) -> bool:
        """Cut the file back to what a checkpoint knows.

        Returns: False where the file is missing or too short; it is then written anew from the ledger,
            without observations.
        """
        intact = True
        if self.is_writer:
            intact = self.path.is_file() and self.path.stat().st_size >= num_bytes
            if intact:
                os.truncate(self.path, num_bytes)
            else:
                self.num_bytes = 0
                for entry in ledger:
                    self.append({**entry._asdict(), "observation": None})
        self.num_bytes = num_bytes
        return intact


def read_ledger_file(path: Path) -> list[dict[str, Any]]:
    """The records of a `ledger.jsonl`, oldest first.

    Raises: FileNotFoundError, or ValueError naming the line that does not parse.
    """
    records = []
    with open(path, "rb") as file:
        while line := file.readline(LARGEST_LINE_BYTES):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError(f"{len(line)} bytes without an end of line")
                records.append(_checked(json.loads(line)))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {len(records) + 1}: not a ledger record ({error!r})"
                ) from None
            last, before = records[-1], records[-2:][0]
            if len(last["proportions"]) != len(before["proportions"]) and "drawn" not in last:
                raise ValueError(
                    f"{path}, line {len(records)}: another number of groups than in the line before"
                )
    return records


def _checked(record: Any) -> dict[str, Any]:
    """A record of a ledger file, if its entry can be one."""
    entry = LedgerEntry(*(record[name] for name in LedgerEntry._fields))
    for name in ("step", "first_row", "round"):
        if not isinstance(record[name], int) or record[name] < 0:
            raise ValueError(f"{name} is {record[name]!r}")
    shares = np.array(entry.proportions, dtype=np.float64)
    if shares.ndim != 1 or not (shares >= 0).all() or not abs(shares.sum() - 1) < 1e-6:
        raise ValueError(f"the proportions {str(entry.proportions)[:100]} are not shares that sum to 1")
    return record


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a ledger record cannot hold {type(value).__name__}")
