"""A table of runs: the proportions each was trained on and the loss of every group at its end.

CSV with a header: a column `proportion.GROUP` for each group trained on and a column `loss.GROUP` for each
group evaluated, usually the same; other columns are ignored. One run a line.
"""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

Array = np.ndarray
SUM_TOLERANCE = 1e-3


class RunTable(NamedTuple):
    """N finished runs."""

    groups: list[str]
    """[G], trained on."""
    proportions: Array
    """[N, G], each on the simplex."""
    evaluated: list[str]
    """[M]."""
    losses: Array
    """[N, M], final loss, nats per token."""
    digest: str
    """SHA-256 of the file."""


def read_table(path: Path) -> RunTable:
    """Read a CSV file of runs.

    Raises: ValueError: a column is missing, a cell is no finite number, or proportions do not sum to 1; it
        names the line.
    """
    content = path.read_bytes()
    reader = csv.DictReader(content.decode("utf-8-sig").splitlines())
    columns = {
        kind: [name for name in reader.fieldnames or [] if name.startswith(f"{kind}.")]
        for kind in ("proportion", "loss")
    }
    for kind, names in columns.items():
        if not names:
            raise ValueError(f"{path} has no column {kind}.GROUP: a table of runs needs one for each group")
    rows = list(reader)
    if not rows:
        raise ValueError(f"{path} has a header but no runs")
    values = {
        kind: np.array(
            [[_number(row, name, path, line) for name in names] for line, row in enumerate(rows, 2)]
        )
        for kind, names in columns.items()
    }
    sums = values["proportion"].sum(axis=1)
    off = np.flatnonzero((abs(sums - 1) > SUM_TOLERANCE) | (values["proportion"] < 0).any(axis=1))
    if len(off):
        raise ValueError(
            f"{path}, line {off[0] + 2}: the proportions {values['proportion'][off[0]].tolist()} sum to "
            f"{sums[off[0]]:.6g}: they must be >= 0 and sum to 1"
        )
    return RunTable(
        groups=[name.removeprefix("proportion.") for name in columns["proportion"]],
        proportions=values["proportion"] / sums[:, None],
        evaluated=[name.removeprefix("loss.") for name in columns["loss"]],
        losses=values["loss"],
        digest=hashlib.sha256(content).hexdigest(),
    )


def _number(row: dict[str, str], name: str, path: Path, line: int) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        raise ValueError(f"{path}, line {line}: {name} is {row[name]!r}, not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{path}, line {line}: {name} is {value}: leave out runs that did not finish")
    return value
