"""`titan-aioli report`: runs side by side, as one figure and as tables in the terminal."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from titan_aioli.commands.figures import (
    draw_legend,
    draw_proportions,
    first_and_last,
    group_colors,
    save,
    subplots,
)
from titan_aioli.runs.run import Run, read_run

UNITS = {
    "nats": "nats per token",
    "bits_per_byte": "bits per byte",
    "relative": "geometric mean, nats per token",
}
"""What the unit of an objective (`mixing.objective.unit`) is called."""

MAX_ROUNDS = 12
"""Number of rounds shown in a table; of more, the first and the last ones."""


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], output: Path = Path("report.png")
) -> None:
    """Compare runs: proportions over time, held-out losses, the mixing matrix.

    Prints tables of the final losses of targets and groups, of the epochs of every group and of the
    proportions of every round, and draws one figure with a column for each run. Runs must have the same
    groups and the same targets.

        titan-aioli report outputs/demo/stratified outputs/demo/aioli --output outputs/demo/report.png

    Args:
        runs: dump folders of runs (job.dump_folder), finished or not.
        output: where the figure goes; the suffix chooses the format (.png, .pdf, .svg).
    """
    loaded = [read_run(folder) for folder in runs]
    if not loaded:
        raise ValueError("name at least one run's dump folder")
    groups = loaded[0].groups
    for run in loaded[1:]:
        if run.groups != groups:
            raise ValueError(f"{run.folder} has groups {run.groups}, {loaded[0].folder} has {groups}")
        if run.targets != loaded[0].targets:
            raise ValueError(
                f"{run.folder} has targets {run.targets or 'none'}, {loaded[0].folder} has "
                f"{loaded[0].targets or 'none'}"
            )
    console = Console()
    if loaded[0].targets:
        console.print(target_table(loaded))
    console.print(loss_table(loaded))
    console.print(epoch_table(loaded))
    for run in loaded:
        console.print(round_table(run))
        if run.estimates():
            console.print(evidence_table(run))
    draw(loaded, output)
    print(f"figure: {output}")


def target_table(runs: Sequence[Run]) -> Table:
    """Final loss of every target, the objective, and what it costs the groups that are no target.

    The last two are shown as differences to the first run too (of the test, where there is one).
    """
    title = "Targets: held-out loss, nats per token (validation | test)"
    if runs[0].unit != "nats":
        title += f"; objective: {UNITS[runs[0].unit]}"
    table = Table(title=title)
    table.add_column("target", no_wrap=True)
    for run in runs:
        table.add_column(_title(run), justify="right")
    targets, shares = runs[0].target_names, runs[0].objective.shares(len(runs[0].target_names))
    for index, name in enumerate(targets):
        cells = [_target_cells(run, index) for run in runs]
        label = name if shares[index] else f"({name})"
        table.add_row(label, *_best_in_bold(cells, runs), end_section=index == len(targets) - 1)
    objective = [_objective_cells(run) for run in runs]
    table.add_row("objective", *_best_in_bold(objective, runs))
    table.add_row("- first run", *_differences(objective))
    if off_target := [index for index, name in enumerate(runs[0].groups) if name not in targets]:
        others = [_mean_of_groups(run, off_target) for run in runs]
        table.add_row("other groups", *_best_in_bold(others, runs))
        table.add_row("- first run", *_differences(others))
    table.caption = (
        "other groups: mean over the groups that are no target; in brackets: guards and watched targets"
    )
    return table


def loss_table(runs: Sequence[Run]) -> Table:
    """Final loss of every group and their mean, for each run; the lowest of a row in bold."""
    table = Table(title="Held-out loss, nats per token (validation | test)")
    table.add_column("group")
    for run in runs:
        table.add_column(_title(run), justify="right")
    rows = list(enumerate(runs[0].groups))
    for index, name in [*rows, (None, "mean"), (None, "perplexity")]:
        cells = [_loss_cells(run, index, name) for run in runs]
        table.add_row(name, *_best_in_bold(cells, runs), end_section=index == len(rows) - 1)
    return table


def epoch_table(runs: Sequence[Run]) -> Table:
    """How often each run read the training sequences of each group."""
    table = Table(title="Epochs of each group")
    table.add_column("group")
    for run in runs:
        table.add_column(_title(run), justify="right")
    epochs = [run.results.get("epochs", []) if run.results else [] for run in runs]
    for index, name in enumerate(runs[0].groups):
        table.add_row(name, *(f"{values[index]:.2f}" if values else "not finished" for values in epochs))
    return table


def round_table(run: Run) -> Table:
    """The proportions that each round trained on, and how well its A predicted the drop."""
    table = Table(title=f"{_title(run)}: proportions of each round", box=SIMPLE_HEAD, padding=(0, 1))
    checks = run.checks()
    for name in ("round", "step", *run.groups, *(("drop", "law says") if checks else ())):
        table.add_column(name, justify="right", overflow="fold")
    if checks:
        of = "objective's losses" if run.targets else "mean held-out loss"
        table.caption = f"drop: of the {of} over the phase; law says: what A predicted"
    shares = run.objective.shares(len(run.target_names))
    for record in first_and_last(run.trained_rounds(), MAX_ROUNDS):
        check = checks.get(record["round"]) if record["phase"] == "train" else None
        drops = [f"{drop @ shares:.3f}" for drop in (check.measured, check.predicted)] if check else []
        label = "prior" if record["phase"] == "prior" else str(record["round"])
        table.add_row(label, str(record["step"]), *(f"{p:.3f}" for p in record["proportions"]), *drops)
    return table


def evidence_table(run: Run) -> Table:
    """What each round's A said for and against each group, and how sure that is."""
    table = Table(
        title=f"{_title(run)}: column sums of A less their mean, +- standard error",
        caption="bold: beyond 2 standard errors; the proportions move by exp(eta x this)",
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name in ("round", *run.groups):
        table.add_column(name, justify="right", overflow="fold")
    for found in first_and_last(run.estimates(), MAX_ROUNDS):
        gains = found.column_sums - found.column_sums.mean()
        cells = [
            _bold(
                f"{value:+.3f}" + (f" +- {error:.3f}" if np.isfinite(error) else ""), abs(value) > 2 * error
            )
            for value, error in zip(gains, found.stderr, strict=True)
        ]
        table.add_row(str(found.round), *cells)
    return table


def draw(runs: Sequence[Run], output: Path) -> None:
    """One column for each run: proportions, the objective of its targets, held-out losses, its last A.

    The objective is left out where there are no targets, A where no run has one.
    """
    has_matrix = any(run.last_matrix() is not None for run in runs)
    has_targets, num_rows = bool(runs[0].targets), 2
    num_rows += has_matrix + has_targets
    size = (1.2 + 4.2 * len(runs), 9.5 if num_rows == 3 else 6.6 if num_rows == 2 else 12.4)
    figure, axes = subplots(num_rows, len(runs), size)
    largest = max(max(r["proportions"]) for run in runs for r in run.trained_rounds() or run.records)
    for column, run in enumerate(runs):
        _draw_proportions(axes[0, column], run, largest)
        if has_targets:
            _draw_objective(axes[1, column], run)
        _draw_losses(axes[1 + has_targets, column], run)
        if has_matrix:
            _draw_matrix(axes[-1, column], run, figure)
    for row in axes[1 : 2 + has_targets]:
        _share_limits(row)
    axes[0, 0].set_ylabel("proportion")
    axes[1, 0].set_ylabel(f"objective ({UNITS[runs[0].unit]})")
    axes[1 + has_targets, 0].set_ylabel("held-out loss (nats per token)")
    draw_legend(figure, axes[0, 0], 8)
    save(figure, output)


def _draw_proportions(axis, run: Run, largest: float) -> None:
    """What each phase of training drew from; the phases of LearnParams are shaded."""
    ends = [record["step"] for record in run.records[1:]] + [run.last_step]
    for record, end in zip(run.records, ends, strict=True):
        if record["phase"] == "learn_params" and end > record["step"]:
            axis.axvspan(record["step"], end, color="0.92", linewidth=0)
    if rounds := run.trained_rounds():
        starts = [record["step"] for record in rounds]
        shares = np.array([record["proportions"] for record in rounds])
        everyone = np.arange(len(run.groups))
        draw_proportions(axis, starts, run.last_step, shares, run.groups, everyone)
    axis.set_ylim(0, largest * 1.15)
    axis.set_title(_title(run))
    axis.set_xlabel("step" + (" (shaded: LearnParams)" if run.last_matrix() is not None else ""))


def _draw_objective(axis, run: Run) -> None:
    """What the mixture is for, as one bold curve; the fast fall of the first quarter runs off the panel."""
    measured = {record["step"]: np.array(record["target_loss"]) for record in run.losses}
    steps = sorted(measured)
    values = [run.objective.value(measured[step]) for step in steps]
    axis.plot(steps, values, color="black", marker="o", ms=4, lw=2.8)
    if steps:
        axis.annotate(
            f"{values[-1]:.3f}", (steps[-1], values[-1]), (-4, 10), textcoords="offset points", ha="right"
        )
        late = [value for step, value in zip(steps, values, strict=True) if step >= run.last_step / 4]
        axis.set_ylim(min(late) - 0.1 * np.ptp(late) - 1e-3, max(late) + 0.1 * np.ptp(late) + 1e-3)
    axis.set_xlim(-0.02 * run.last_step, 1.02 * run.last_step)
    axis.set_xlabel("step")


def _draw_losses(axis, run: Run) -> None:
    """Held-out losses: of targets that are no group in black, of the groups in their colors."""
    other = [index for index, name in enumerate(run.target_names) if name not in run.groups]
    for index, style in zip(other, cycle(("-", "--", ":", "-.")), strict=False):
        points = [(record["step"], record["target_loss"][index]) for record in run.losses]
        axis.plot(
            *zip(*sorted(points), strict=True), f"k{style}", lw=1.5, label=f"target {run.target_names[index]}"
        )
    measured = {record["step"]: record["validation_loss"] for record in run.losses}
    steps = sorted(measured)
    for index, color in enumerate(group_colors(len(run.groups))):
        values = [measured[step][index] for step in steps]
        axis.plot(steps, values, color=color, marker="o", ms=2.5, lw=1.2)
    if steps:
        mean = [np.mean(measured[step]) for step in steps]
        axis.plot(steps, mean, "k--" if not run.targets else "0.6", lw=1.5, label="mean of the groups")
        axis.legend(frameon=False)
    axis.set_xlim(-0.02 * run.last_step, 1.02 * run.last_step)
    axis.set_xlabel("step")


def _draw_matrix(axis, run: Run, figure) -> None:
    """The last round's normalised A: row = target whose loss drops, column = group trained on; or nothing."""
    matrix = run.last_matrix()
    if matrix is None:
        axis.axis("off")
        return
    image = axis.imshow(matrix, cmap="viridis")
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set_xticks(range(len(run.groups)), run.groups, rotation=45, ha="right")
    axis.set_yticks(range(len(run.target_names)), run.target_names)
    axis.set_title("mixing matrix A, last round", fontsize=10)
    axis.set_xlabel("trained on")
    axis.set_ylabel("loss drop of")


def _share_limits(axes) -> None:
    lows, highs = (
        zip(*(axis.get_ylim() for axis in axes if axis.lines), strict=True) if axes[0].lines else ((), ())
    )
    for axis in axes if lows else ():
        axis.set_ylim(min(lows), max(highs))


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
            _bold(f"{value:.4f}", value == min(other[place] for other in cells if other))
            for place, value in enumerate(values)
        )
        or ("not measured" if run.results else "not finished")
        for values, run in zip(cells, runs, strict=True)
    ]


def _differences(cells: Sequence[list[float]]) -> list[str]:
    """Each run's last value minus that of the first run."""
    first = cells[0]
    return [
        "-" if values is first or not (values and first) else f"{values[-1] - first[-1]:+.4f}"
        for values in cells
    ]


def _title(run: Run) -> str:
    """The name of the run's folder, and the method if the name does not contain it."""
    method = run.mixture["method"]
    return run.name if method in run.name else f"{run.name} ({method})"


def _bold(text: str, is_best: bool) -> str:
    return f"[bold]{text}[/bold]" if is_best else text
