"""A table of runs: the proportions each was trained on and the loss of every group at its end.

CSV with a header: a column `proportion.GROUP` for each group trained on and a column `loss.NAME` for each
target evaluated, usually the groups. Columns `objective_weight.NAME`, the same in every line, say how much
the loss of each target counts; columns `epochs.GROUP` how often each group was read. Other columns are
ignored. One run per line.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from titan_aioli.files import replacing

Array = np.ndarray
SUM_TOLERANCE = 1e-3
WEIGHT, EPOCHS = "objective_weight", "epochs"


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
    weights: Array | None = None
    """[M], how much each loss counts, >= 0; None: the table does not say."""
    epochs: Array | None = None
    """[N, G], how often each group was read in each run; None: the table does not say."""


def read_table(path: Path) -> RunTable:
    """Read a CSV file of runs.

    Raises: ValueError: a column is missing, a cell is no finite number, or proportions do not sum to 1; it
        names the line.
    """
    content = path.read_bytes()
    (groups, shares), (evaluated, losses) = _read_columns(path, content, ("proportion", "loss"))
    return RunTable(
        groups=groups,
        proportions=_checked_proportions(shares, path),
        evaluated=evaluated,
        losses=losses,
        digest=hashlib.sha256(content).hexdigest(),
        weights=_read_weights(path, content, evaluated),
        epochs=_read_optional(path, content, EPOCHS, "proportion", groups),
    )


def read_mixtures(path: Path, groups: Sequence[str]) -> Array:
    """Mixtures to train on, [N, G], from the `proportion.GROUP` columns of a CSV file; others are ignored.

    Raises: ValueError: as read_table, or the columns are of other groups.
    """
    ((names, shares),) = _read_columns(path, path.read_bytes(), ("proportion",))
    if set(names) != set(groups) or len(names) != len(groups):
        raise ValueError(f"{path} has proportions of {sorted(names)}, the config has {sorted(groups)}")
    return _checked_proportions(shares, path)[:, [names.index(name) for name in groups]]


def write_table(
    path: Path,
    names: Sequence[str],
    groups: Sequence[str],
    shares: Array,
    losses: Array,
    evaluated: Sequence[str] | None = None,
    weights: Array | None = None,
    epochs: Array | None = None,
) -> None:
    """Write the CSV file that read_table reads, with a first column `run`.

    Args:
        path: replaced, whole or not at all.
        names: [N], of the runs.
        groups: [G], trained on.
        shares: [N, G].
        losses: [N, M].
        evaluated: [M]. None: the groups.
        weights: [M], how much each loss counts. None: the table does not say.
        epochs: [N, G], how often each group was read in each run. None: the table does not say.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["run", *(f"proportion.{name}" for name in groups)]
    header += [f"loss.{name}" for name in evaluated or groups]
    if weights is not None:
        header += [f"{WEIGHT}.{name}" for name in evaluated or groups]
    if epochs is not None:
        header += [f"{EPOCHS}.{name}" for name in groups]
    writer.writerow(header)
    counted = np.tile([] if weights is None else weights, (len(shares), 1))
    read = np.zeros((len(shares), 0)) if epochs is None else epochs
    for name, *numbers in zip(names, shares, losses, counted, read, strict=True):
        writer.writerow([name, *map(repr, np.concatenate(numbers).tolist())])
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _read_weights(path: Path, content: bytes, evaluated: Sequence[str]) -> Array | None:
    """[M], the weights of the objective; None where the table has none."""
    rows = _read_optional(path, content, WEIGHT, "loss", evaluated)
    if rows is None:
        return None
    names = list(evaluated)
    if len(other := np.flatnonzero((rows != rows[0]).any(axis=1))):
        raise ValueError(
            f"{path}, line {other[0] + 2}: {WEIGHT} of {names} is {rows[other[0]].tolist()}, and in line 2 "
            f"{rows[0].tolist()}: the runs of a table have one objective; remove these columns and give "
            "--weights"
        )
    if (rows[0] < 0).any() or not rows[0].any():
        raise ValueError(
            f"{path}: {WEIGHT} of {names} is {rows[0].tolist()}: at least 0, and one of them above 0"
        )
    return rows[0]


def _read_optional(
    path: Path, content: bytes, kind: str, other_kind: str, names: Sequence[str]
) -> Array | None:
    """[N, names], columns that a table may leave out, ordered as another kind; None: it does."""
    if not any(name.startswith(f"{kind}.") for name in _parsed(path, content)[0]):
        return None
    ((there, rows),) = _read_columns(path, content, (kind,))
    if sorted(there) != sorted(names):
        raise ValueError(
            f"{path} has columns {kind}.NAME for {sorted(there)} and {other_kind}.NAME for {sorted(names)}: "
            "give both for the same names"
        )
    return rows[:, [there.index(name) for name in names]]


def _parsed(path: Path, content: bytes) -> tuple[Sequence[str], list[dict[str, str]]]:
    """The names of the columns, and the lines by name.

    Raises: ValueError: the file is no CSV in UTF-8.
    """
    try:
        reader = csv.DictReader(content.decode("utf-8-sig").splitlines())
        return reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table in CSV and UTF-8 ({error})") from None


def _read_columns(path: Path, content: bytes, kinds: Sequence[str]) -> list[tuple[list[str], Array]]:
    """For each kind the names behind `KIND.` in the header, and their numbers [N, names]."""
    header, rows = _parsed(path, content)
    columns = [[name for name in header if name.startswith(f"{kind}.")] for kind in kinds]
    for kind, names in zip(kinds, columns, strict=True):
        if not names:
            raise ValueError(f"{path} has no column {kind}.GROUP: a table of runs needs one for each group")
    if not rows:
        raise ValueError(f"{path} has a header but no runs")
    return [
        (
            [name.partition(".")[2] for name in names],
            np.array(
                [[_number(row, name, path, line) for name in names] for line, row in enumerate(rows, 2)]
            ),
        )
        for names in columns
    ]


def _checked_proportions(shares: Array, path: Path) -> Array:
    sums = shares.sum(axis=1)
    off = np.flatnonzero((abs(sums - 1) > SUM_TOLERANCE) | (shares < 0).any(axis=1))
    if len(off):
        raise ValueError(
            f"{path}, line {off[0] + 2}: the proportions {shares[off[0]].tolist()} sum to "
            f"{sums[off[0]]:.6g}: they must be >= 0 and sum to 1"
        )
    return shares / sums[:, None]


def _number(row: dict[str, str], name: str, path: Path, line: int) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        raise ValueError(f"{path}, line {line}: {name} is {row[name]!r}, not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{path}, line {line}: {name} is {value}: leave out runs that did not finish")
    return value
