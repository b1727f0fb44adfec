"""Tables of what was decided in one run, and from what: a row for each round or measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.figures import first_and_last
from titan_aioli.commands.report.compared import UNITS, bold, run_title
from titan_aioli.runs.run import Check, Run

MAX_ROUNDS = 12
"""Number of rounds shown in a table; of more, the first and the last ones."""


def round_table(run: Run) -> Table:
    """The proportions that each round trained on, and how well its A predicted the drop."""
    checks, of = run.checks(), f"objective ({UNITS[run.unit]})" if run.targets else "mean held-out loss"
    table = _table(
        run,
        "proportions of each round",
        f"drop: of the {of} over the phase; law says: what A predicted" if checks else None,
        ["round", "step", *map(escape, run.groups), *(["drop", "law says"] if checks else [])],
    )
    for record in first_and_last(run.trained_rounds(), MAX_ROUNDS):
        check = checks.get(record["round"]) if record["phase"] == "train" else None
        drops = _drops(run, record, check) if check else []
        label = "prior" if record["phase"] == "prior" else str(record["round"])
        table.add_row(label, str(record["step"]), *(f"{p:.3f}" for p in record["proportions"]), *drops)
    return table


def evidence_table(run: Run) -> Table:
    """What each round's A said for and against each group, and how sure that is."""
    table = _table(
        run,
        "column sums of A less their mean, +- standard error",
        "bold: beyond 2 standard errors; the proportions move by exp(eta x this)",
        ["round", *map(escape, run.groups)],
    )
    for found in first_and_last(run.estimates(), MAX_ROUNDS):
        gains = found.column_sums - found.column_sums.mean()
        cells = [
            bold(f"{value:+.3f}" + (f" +- {error:.3f}" if np.isfinite(error) else ""), abs(value) > 2 * error)
            for value, error in zip(gains, found.stderr, strict=True)
        ]
        table.add_row(str(found.round), *cells)
    return table


def judgement_table(run: Run) -> Table:
    """How probable it is that another mixture than the anchor is the best, and what it has gained."""
    title = "is there something to win, and what was won"
    if "measured_gain" in (last := run.judgements()[-1]):
        title += f": {_with_error(*last['measured_gain'])} as measured"
    table = _table(
        run,
        title,
        "probability: that the anchor is not the best mixture; gain: on the anchor, as the law says; "
        "signal: what pulling a stretch to the best group would add to its drop, over the noise of a drop",
        ["step", "probability", "gain, nats", "signal"],
        ends_with_mixture=True,
    )
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
    table = _table(
        run,
        "the best mixture by its gradients",
        "followed: 1 wholly; 0 not at all, since chance or what the law is wrong by may explain it; "
        "error: standard error of a share; speed: what a step takes off the objective, in that of one on the "
        "anchor, as its law says; gain: how many more steps on the anchor would have done as much so far",
        ["step", "followed", "error", "speed", "gain, steps"],
        ends_with_mixture=True,
    )
    for record in first_and_last(run.best_mixtures(), MAX_ROUNDS):
        error = record["best_stderr"]
        table.add_row(
            str(record["step"]),
            f"{record['trust']:.2f}",
            f"{error:.3f}" if np.isfinite(error) else "-",
            "{:.2f} \u00b1 {:.2f}".format(*record["speed"]) if "speed" in record else "-",
            "{:+.0f} \u00b1 {:.0f}".format(*record["gain_steps"]) if "gain_steps" in record else "-",
            _largest_shares(run, record["best"]),
        )
    return table


def _table(
    run: Run, title: str, caption: str | None, columns: Sequence[str], ends_with_mixture: bool = False
) -> Table:
    """A table without rows: columns of numbers and, last, of a mixture in words."""
    table = Table(caption=caption, box=SIMPLE_HEAD, padding=(0, 1))
    table.title = f"{escape(run_title(run))}: {title}"
    for name in columns:
        table.add_column(name, justify="right", overflow="fold", no_wrap=ends_with_mixture)
    if ends_with_mixture:
        table.add_column("best mixture, as far as known")
    return table


def _drops(run: Run, record: Mapping[str, Any], check: Check) -> list[str]:
    """What a phase of training lowered the objective by, and what A said; of the first order."""
    start = np.array(record.get("observation") or [np.nan] * len(run.target_names), dtype=np.float64)
    slope = run.objective.gradient(start)
    return [f"{drop @ slope:.3f}" for drop in (check.measured, check.predicted)]


def _largest_shares(run: Run, mixture: Sequence[float]) -> str:
    """The four groups with the largest shares."""
    order = np.argsort(-np.array(mixture))[:4]
    return ", ".join(f"{escape(run.groups[j])} {mixture[j]:.2f}" for j in order)


def _with_error(value: float, error: float) -> str:
    return f"{value:+.3f} \u00b1 {error:.3f}"
