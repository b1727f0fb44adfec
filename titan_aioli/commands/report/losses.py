"""Tables of what runs ended with: a row for each target or group, a column for each run."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.report.compared import UNITS, bold, have_one_objective, run_title
from titan_aioli.runs.run import Run

SPLITS = ("validation", "test")
"""The kinds of held-out sequences, in the order in which their values are shown."""
Cell = dict[str, float]
"""What one run has in one row of a table, by split; a split that was not measured is left out."""


def target_table(runs: Sequence[Run]) -> Table:
    """Final loss of every target, the objective, and what it costs the groups that are no target.

    The last two are shown as differences to the first run too. Objectives that differ are shown, each with
    its unit, and not compared.
    """
    title, is_one = "Targets: held-out loss, nats per token (validation | test)", have_one_objective(runs)
    if is_one and runs[0].unit != "nats":
        title += f"; objective: {UNITS[runs[0].unit]}"
    table = _column_for_each(runs, "target", title)
    targets = runs[0].target_names
    shares = np.max([run.objective.shares(len(targets)) for run in runs], axis=0)
    for index, name in enumerate(targets):
        cells = [_target_cells(run, index) for run in runs]
        label = name if shares[index] else f"({name})"
        table.add_row(escape(label), *_best_in_bold(cells, runs), end_section=index == len(targets) - 1)
    objective = [_objective_cells(run) for run in runs]
    if is_one:
        table.add_row("objective", *_best_in_bold(objective, runs))
        table.add_row("- first run", *_differences(objective))
    else:
        table.add_row("its objective", *_own_values(objective, runs))
    if off_target := [index for index, name in enumerate(runs[0].groups) if name not in targets]:
        others = [_mean_of_groups(run, off_target) for run in runs]
        table.add_row("other groups", *_best_in_bold(others, runs))
        table.add_row("- first run", *_differences(others))
    table.caption = (
        "other groups: mean over the groups that are no target; in brackets: guards and watched targets"
    )
    if not is_one:
        table.caption += "; the runs' objectives differ: they are not compared"
    return table


def loss_table(runs: Sequence[Run]) -> Table:
    """Final loss of every group and their mean, for each run; the lowest of a row in bold."""
    table = _column_for_each(runs, "group", "Held-out loss, nats per token (validation | test)")
    rows = list(enumerate(runs[0].groups))
    for index, name in [*rows, (None, "mean"), (None, "perplexity")]:
        cells = [_loss_cells(run, index, name) for run in runs]
        table.add_row(escape(name), *_best_in_bold(cells, runs), end_section=index == len(rows) - 1)
    return table


def epoch_table(runs: Sequence[Run]) -> Table:
    """How often each run read the training sequences of each group."""
    table = _column_for_each(runs, "group", "Epochs of each group")
    epochs = [run.results.get("epochs", []) if run.results else [] for run in runs]
    for index, name in enumerate(runs[0].groups):
        table.add_row(
            escape(name), *(f"{values[index]:.2f}" if values else "not finished" for values in epochs)
        )
    return table


def _column_for_each(runs: Sequence[Run], first: str, title: str) -> Table:
    """A table without rows: what they are of, and a column for each run."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for run in runs:
        table.add_column(escape(run_title(run)), justify="right")
    return table


def _loss_cells(run: Run, index: int | None, name: str) -> Cell:
    """The values of one row of the table of groups; None: of a row over all groups, of this name."""
    cell = {}
    for split in SPLITS:
        if (losses := (run.results or {}).get(f"{split}_loss")) is not None:
            total = np.exp(np.mean(losses)) if name == "perplexity" else np.mean(losses)
            cell[split] = float(total) if index is None else losses[index]
    return cell


def _target_cells(run: Run, index: int) -> Cell:
    """The losses of one target."""
    found = run.results or {}
    keys = {split: f"target_{split}_loss" for split in SPLITS}
    return {split: found[key][index] for split, key in keys.items() if key in found}


def _objective_cells(run: Run) -> Cell:
    """The values of the objective."""
    found, keys = run.results or {}, {"validation": "objective", "test": "test_objective"}
    return {split: found[key] for split, key in keys.items() if key in found}


def _mean_of_groups(run: Run, places: Sequence[int]) -> Cell:
    """The mean losses of some groups."""
    found = run.results or {}
    keys = {split: f"{split}_loss" for split in SPLITS}
    return {split: float(np.mean(np.array(found[k])[places])) for split, k in keys.items() if k in found}


def _best_in_bold(cells: Sequence[Cell], runs: Sequence[Run]) -> list[str]:
    """A row of the table: the values of each run, the lowest of each split in bold."""
    lowest = {split: min(cell[split] for cell in cells if split in cell) for split in _measured(cells)}
    texts = [{s: bold(f"{v:.4f}", v == lowest[s]) for s, v in cell.items()} for cell in cells]
    return [_joined(text, cells) or _why_none(run) for text, run in zip(texts, runs, strict=True)]


def _own_values(cells: Sequence[Cell], runs: Sequence[Run]) -> list[str]:
    """A row of values that are not compared, each with its unit."""
    texts = [_joined({split: f"{value:.4f}" for split, value in cell.items()}, cells) for cell in cells]
    return [
        f"{text} {run.unit.replace('_', ' ')}" if text else _why_none(run)
        for text, run in zip(texts, runs, strict=True)
    ]


def _differences(cells: Sequence[Cell]) -> list[str]:
    """Each run's values minus those of the first run, of the same split."""
    first = cells[0]
    differences = [
        {split: f"{cell[split] - first[split]:+.4f}" for split in cell if split in first} for cell in cells
    ]
    return ["-", *(_joined(texts, cells) or "-" for texts in differences[1:])]


def _joined(texts: Mapping[str, str], cells: Sequence[Cell]) -> str:
    """What a run shows in a row of these cells, by split; "" if it has nothing.

    Validation has its place even where no run measured it, so that a test value never stands in it.
    """
    splits = SPLITS if "test" in _measured(cells) else SPLITS[:1]
    return " | ".join(texts.get(split, "-") for split in splits) if texts else ""


def _measured(cells: Sequence[Cell]) -> set[str]:
    """The splits that at least one run has."""
    return {split for cell in cells for split in cell}


def _why_none(run: Run) -> str:
    """What stands in the place of values that a run does not have."""
    return "not measured" if run.results else "not finished"
