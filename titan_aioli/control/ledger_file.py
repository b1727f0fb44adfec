"""`ledger.jsonl` in the folder of a run: each decision and the observation behind it, one object per line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.files import naming, to_plain

LARGEST_LINE_BYTES = 1 << 28
"""Length of the longest line that is read: a line holds a few [G, G] matrices as text, with G up to 2,000."""

TAIL_BYTES = 1 << 16
"""How much of the end of a file is read first to find its last line."""


class LedgerFile:
    """Writes `ledger.jsonl` in a run's dump folder.

    Every rank counts the same bytes; one rank writes them. A resumed run cuts the file back to the length
    that its checkpoint recorded, so the file equals that of a run that was never stopped.
    """

    def __init__(self, path: Path, is_writer: bool):
        self.path = path
        self.is_writer = is_writer
        self.num_bytes = 0

    def append(self, record: dict[str, Any]) -> None:
        line = (json.dumps(to_plain(record)) + "\n").encode()
        if self.is_writer:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with naming(self.path), open(self.path, "ab" if self.num_bytes else "wb") as file:
                file.write(line)
        self.num_bytes += len(line)

    def sync(self) -> None:
        """Flush the file to disk, before a checkpoint that records its length."""
        if self.is_writer and self.num_bytes:
            with naming(self.path), open(self.path, "ab") as file:
                os.fsync(file.fileno())

    def rewind(self, num_bytes: int, ledger: Ledger, begun_with: Mapping[str, Any]) -> None:
        """Cut the file back to the length that a checkpoint recorded.

        If the file is missing, too short or of another run, it is written again from the ledger, without
        observations, and made as long with spaces, so that the lengths of later checkpoints are right.

        Args:
            num_bytes: the recorded length.
            ledger: of the checkpoint.
            begun_with: what the ledger's first record says besides its entry.
        """
        if self.is_writer:
            with naming(self.path):
                if self._ends_with(ledger, num_bytes):
                    os.truncate(self.path, num_bytes)
                else:
                    self._write_again(num_bytes, ledger, begun_with)
        self.num_bytes = num_bytes

    def _ends_with(self, ledger: Ledger, num_bytes: int) -> bool:
        """Whether the record that ends at `num_bytes` is the ledger's last."""
        if not self.path.is_file() or self.path.stat().st_size < num_bytes:
            return False
        if len(ledger) == 0:
            return True
        line = _line_before(self.path, num_bytes)
        try:
            found = LedgerEntry(*(json.loads(line)[name] for name in LedgerEntry._fields))
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return line.endswith(b"\n") and to_plain(found) == to_plain(ledger[-1])

    def _write_again(self, num_bytes: int, ledger: Ledger, begun_with: Mapping[str, Any]) -> None:
        records = [{**entry._asdict(), "observation": None} for entry in ledger]
        if records:
            records[0].update(begun_with)
        text = "\n".join(json.dumps(to_plain(record)) for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text + " " * (num_bytes - len(text.encode()) - 1) + "\n", encoding="utf-8")


def _line_before(path: Path, end: int) -> bytes:
    """The line of a file that ends at a byte, or the last of its bytes where that is no end of a line."""
    with open(path, "rb") as file:
        size = TAIL_BYTES
        while True:
            start = max(0, end - size)
            file.seek(start)
            tail = file.read(end - start)
            begin = tail.rfind(b"\n", 0, -1) + 1
            if begin or not start:
                return tail[begin:]
            size *= 4


def read_ledger_file(path: Path, may_be_cut: bool = False) -> list[dict[str, Any]]:
    """The records of a `ledger.jsonl`, oldest first.

    Args:
        path: the file.
        may_be_cut: whether half a last line is left out, as a resume does: a run that is writing it, a killed
            one or a full disk leaves it.
    Raises: FileNotFoundError, or ValueError naming the line that does not parse or is not in order.
    """
    records = []
    with open(path, "rb") as file:
        while line := file.readline(LARGEST_LINE_BYTES):
            is_whole = line.endswith(b"\n")
            if may_be_cut and not is_whole and len(line) < LARGEST_LINE_BYTES:
                break
            try:
                if not is_whole:
                    raise ValueError(f"{len(line)} bytes without an end of line")
                records.append(_checked(json.loads(line)))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {len(records) + 1}: not a ledger record ({error!r})"
                ) from None
            last, before = records[-1], records[-2:][0]
            for name in ("step", "first_row"):
                if last[name] < before[name]:
                    raise ValueError(
                        f"{path}, line {len(records)}: {name} is {last[name]}, in the line before it is "
                        f"{before[name]}: lines must be in the order of their steps, as the run wrote them"
                    )
            if len(last["proportions"]) != len(before["proportions"]) and "drawn" not in last:
                raise ValueError(
                    f"{path}, line {len(records)}: another number of groups than in the line before"
                )
    return records


def _checked(record: Any) -> dict[str, Any]:
    """The record, after checking that its counts and proportions are possible."""
    entry = LedgerEntry(*(record[name] for name in LedgerEntry._fields))
    for name in ("step", "first_row", "round"):
        if not isinstance(record[name], int) or record[name] < 0:
            raise ValueError(f"{name} is {record[name]!r}")
    for name in ("phase", "note", "stays", "reason"):
        if not isinstance(record.get(name, ""), str):
            raise ValueError(f"{name} is {record[name]!r}: it must be a text")
    shares = np.array(entry.proportions, dtype=np.float64)
    if shares.ndim != 1 or not (shares >= 0).all() or not abs(shares.sum() - 1) < 1e-6:
        raise ValueError(f"the proportions {str(entry.proportions)[:100]} are not shares that sum to 1")
    return record
