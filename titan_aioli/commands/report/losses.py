"""Tables of what runs ended with: a row for each target or group, a column for each run."""

from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.report.compared import UNITS, bold, have_one_objective, run_title
from titan_aioli.runs.run import Run


def target_table(runs: Sequence[Run]) -> Table:
    """Final loss of every target, the objective, and what it costs the groups that are no target.

    The last two are shown as differences to the first run too (of the test, where there is one). Objectives
    that differ are shown, each with its unit, and not compared.
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
        table.add_column(run_title(run), justify="right")
    return table


def _loss_cells(run: Run, index: int | None, name: str) -> list[float]:
    """Validation and, where measured, test value of one row of the table."""
    if run.results is None:
        return []
    values = []
    for split in ("validation", "test"):
        if f"{split}_loss" in run.results:
            mean = run.results[f"{split}_loss_mean"]
            total = np.exp(mean) if name == "perplexity" and index is None else mean
            values.append(float(total) if index is None else run.results[f"{split}_loss"][index])
    return values


def _target_cells(run: Run, index: int) -> list[float]:
    """Validation and, where measured, test loss of one target."""
    found = run.results or {}
    kinds = ("target_validation_loss", "target_test_loss")
    return [found[kind][index] for kind in kinds if kind in found]


def _objective_cells(run: Run) -> list[float]:
    """The objective of validation and, where measured, test."""
    found = run.results or {}
    return [found[kind] for kind in ("objective", "test_objective") if kind in found]


def _mean_of_groups(run: Run, places: Sequence[int]) -> list[float]:
    """Mean validation and, where measured, test loss of some groups."""
    found = run.results or {}
    kinds = ("validation_loss", "test_loss")
    return [float(np.mean(np.array(found[kind])[places])) for kind in kinds if kind in found]


def _best_in_bold(cells: Sequence[list[float]], runs: Sequence[Run]) -> list[str]:
    """A row of the table: the values of each run, the lowest of each kind in bold."""
    return [
        " | ".join(
            bold(f"{value:.4f}", value == min(other[place] for other in cells if other))
            for place, value in enumerate(values)
        )
        or ("not measured" if run.results else "not finished")
        for values, run in zip(cells, runs, strict=True)
    ]


def _own_values(cells: Sequence[list[float]], runs: Sequence[Run]) -> list[str]:
    """A row of values that are not compared, each with its unit."""
    return [
        f"{' | '.join(f'{value:.4f}' for value in values)} {run.unit.replace('_', ' ')}"
        if values
        else ("not measured" if run.results else "not finished")
        for values, run in zip(cells, runs, strict=True)
    ]


def _differences(cells: Sequence[list[float]]) -> list[str]:
    """Each run's last value minus that of the first run."""
    first = cells[0]
    return [
        "-" if values is first or not (values and first) else f"{values[-1] - first[-1]:+.4f}"
        for values in cells
    ]
