"""`titan-aioli report`: runs side by side, as one figure and as tables in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.figures import first_and_last
from titan_aioli.commands.report_figure import UNITS, draw, have_one_objective, run_title
from titan_aioli.runs.run import Check, Run, read_run

MAX_ROUNDS = 12
"""Number of rounds shown in a table; of more, the first and the last ones."""


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], output: Path = Path("report.png")
) -> None:
    """Compare runs: proportions over time, held-out losses, the mixing matrix.

    Prints tables of the final losses of targets and groups, of the epochs of every group and of the
    proportions of every round, and draws one figure with a column for each run. Runs must have the same
    groups and the same targets; where their objectives differ, each shows its own, without a difference.

        titan-aioli report outputs/demo/stratified outputs/demo/aioli --output outputs/demo/report.png

    Args:
        runs: dump folders of runs (job.dump_folder), finished or not.
        output: where the figure goes; the suffix chooses the format (.png, .pdf, .svg).
    """
    loaded = [read_run(folder) for folder in runs]
    _refuse_others(loaded)
    console = Console()
    if loaded[0].targets:
        console.print(target_table(loaded))
    console.print(loss_table(loaded))
    console.print(epoch_table(loaded))
    for run in loaded:
        console.print(round_table(run))
        if run.estimates():
            console.print(evidence_table(run))
        if run.judgements():
            console.print(judgement_table(run))
        if run.best_mixtures():
            console.print(best_mixture_table(run))
    draw(loaded, output)
    print(f"figure: {output}")


def _refuse_others(runs: Sequence[Run]) -> None:
    """Raises: ValueError: runs that cannot stand side by side."""
    if not runs:
        raise ValueError("name at least one run's dump folder")
    groups = runs[0].groups
    for run in runs:
        if not run.records:
            raise ValueError(f"{run.folder}/ledger.jsonl is empty: the run has not begun; leave it out")
    for run in runs[1:]:
        if run.groups != groups:
            raise ValueError(f"{run.folder} has groups {run.groups}, {runs[0].folder} has {groups}")
        if run.targets != runs[0].targets:
            raise ValueError(
                f"{run.folder} has targets {run.targets or 'none'}, {runs[0].folder} has "
                f"{runs[0].targets or 'none'}"
            )


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


def round_table(run: Run) -> Table:
    """The proportions that each round trained on, and how well its A predicted the drop."""
    table = Table(title=f"{run_title(run)}: proportions of each round", box=SIMPLE_HEAD, padding=(0, 1))
    checks = run.checks()
    for name in ("round", "step", *map(escape, run.groups), *(("drop", "law says") if checks else ())):
        table.add_column(name, justify="right", overflow="fold")
    if checks:
        of = f"objective ({UNITS[run.unit]})" if run.targets else "mean held-out loss"
        table.caption = f"drop: of the {of} over the phase; law says: what A predicted"
    for record in first_and_last(run.trained_rounds(), MAX_ROUNDS):
        check = checks.get(record["round"]) if record["phase"] == "train" else None
        drops = _drops(run, record, check) if check else []
        label = "prior" if record["phase"] == "prior" else str(record["round"])
        table.add_row(label, str(record["step"]), *(f"{p:.3f}" for p in record["proportions"]), *drops)
    return table


def evidence_table(run: Run) -> Table:
    """What each round's A said for and against each group, and how sure that is."""
    table = Table(
        title=f"{run_title(run)}: column sums of A less their mean, +- standard error",
        caption="bold: beyond 2 standard errors; the proportions move by exp(eta x this)",
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name in ("round", *map(escape, run.groups)):
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


def judgement_table(run: Run) -> Table:
    """How probable it is that another mixture than the anchor is the best, and what it has gained."""
    table = Table(
        title=f"{run_title(run)}: is there something to win, and what was won",
        caption="probability: that the anchor is not the best mixture; gain: on the anchor, as the law says; "
        "signal: what pulling a stretch to the best group would add to its drop, over the noise of a drop",
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    if "measured_gain" in (last := run.judgements()[-1]):
        measured = _with_error(*last["measured_gain"])
        table.title = f"{table.title}: {measured} as measured"
    for name in ("step", "probability", "gain, nats", "signal"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best mixture, as far as known")
    every, strength = -(-len(run.judgements()) // MAX_ROUNDS), run.mixture["hyperparameters"]["strength"]
    for record in run.judgements()[every - 1 :: every]:
        slopes = np.array(record["slopes"])
        signal = strength * (slopes.max() - slopes @ record["centre"]) / record["noise"]
        table.add_row(
            str(record["step"]),
            f"{record['probability']:.3f}",
            _with_error(*record["gain"]),
            f"{signal:.2f}",
            _largest_shares(run, record["best"]),
        )
    return table


def best_mixture_table(run: Run) -> Table:
    """What gradients said is the best mixture, how sure that is, and how far it was followed."""
    table = Table(
        title=f"{run_title(run)}: the best mixture by its gradients",
        caption="followed: 1 wholly; 0 not at all, since chance or what the law is wrong by may explain it; "
        "error: standard error of a share",
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name in ("step", "followed", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best mixture, as far as known")
    for record in first_and_last(run.best_mixtures(), MAX_ROUNDS):
        error = record["best_stderr"]
        cells = str(record["step"]), f"{record['trust']:.2f}", f"{error:.3f}" if np.isfinite(error) else "-"
        table.add_row(*cells, _largest_shares(run, record["best"]))
    return table


def _largest_shares(run: Run, mixture: Sequence[float]) -> str:
    """The four groups with the largest shares."""
    order = np.argsort(-np.array(mixture))[:4]
    return ", ".join(f"{escape(run.groups[j])} {mixture[j]:.2f}" for j in order)


def _with_error(value: float, error: float) -> str:
    return f"{value:+.3f} \u00b1 {error:.3f}"


def _column_for_each(runs: Sequence[Run], first: str, title: str) -> Table:
    """A table without rows: what they are of, and a column for each run."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for run in runs:
        table.add_column(run_title(run), justify="right")
    return table


def _drops(run: Run, record: Mapping[str, Any], check: Check) -> list[str]:
    """What a phase of training lowered the objective by, and what A said; of the first order."""
    start = np.array(record["observation"] or [np.nan] * len(run.target_names), dtype=np.float64)
    slope = run.objective.gradient(start)
    return [f"{drop @ slope:.3f}" for drop in (check.measured, check.predicted)]


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


def _bold(text: str, is_best: bool) -> str:
    return f"[bold]{text}[/bold]" if is_best else text
