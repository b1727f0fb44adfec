"""What came of methods in many worlds: tables, and a figure against the noise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from titan_aioli.commands.figures import draw_legend, save, subplots
from titan_aioli.commands.simulate.many_worlds import Outcome, Outcomes, Trial
from titan_aioli.commands.simulate.returns import Kind

Array = np.ndarray
CONTROLS: dict[Kind, str] = {"even": "the best mixture is even", "lawless": "no mixture matters"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def worlds_tables(trial: Trial, outcomes: dict[float, Outcomes]) -> tuple[Table, Table, Table]:
    """What each method finds where there is a gap, what it does where there is none, and both by noise.

    Args:
        outcomes: by noise; the first two tables are of the trial's.
    """
    at_noise = outcomes[trial.noise]
    return _gap_table(trial, at_noise["gap"]), _harm_table(trial, at_noise), _noise_table(trial, outcomes)


def draw_worlds(trial: Trial, outcomes: dict[float, Outcomes], output: Path) -> None:
    """Share of the gap closed, loss and distance in the controls against the noise, one color a method.

    Args:
        outcomes: by noise.
    """
    figure, axes = subplots(1, 3, (13.8, 4.0))
    closed, loss, distance = axes[0]
    _draw_line(closed, trial, outcomes, lambda found: found["gap"].closed, "o-", "")
    for kind, line in zip(CONTROLS, ("o-", "s--"), strict=True):
        label = f", {CONTROLS[kind]}"
        _draw_line(loss, trial, outcomes, lambda found, kind=kind: found[kind].losses, line, label)
        _draw_line(distance, trial, outcomes, lambda found, kind=kind: found[kind].distances, line, label)
    closed.set(title="where there is a gap", ylabel="share of the gap closed, mean")
    loss.set(title="where there is none", ylabel="loss to stratified (nats), mean")
    distance.set(title="where there is none", ylabel="distance from the anchor, mean")
    for axis in axes[0]:
        axis.axhline(0, color="0.7", lw=0.8)
        axis.set(xlabel="noise (1: batch of 16 x 64 tokens)", xticks=list(outcomes))
        axis.set_xticklabels([f"{noise:g}" for noise in outcomes])
        axis.minorticks_off()
    draw_legend(figure, loss, 2)
    save(figure, output)


def _gap_table(trial: Trial, outcome: Outcome) -> Table:
    gaps = outcome.gaps
    low, high = np.quantile(gaps, (0.05, 0.95))
    table = Table(
        title=f"share of the gap closed; {len(gaps)} worlds, {trial.num_groups} groups, "
        f"targets: {trial.num_targets}, {trial.num_steps} steps, noise x {trial.noise:g}; "
        f"gap {gaps.mean():.3f} nats ({low:.3f} to {high:.3f} in 90 % of them)"
    )
    table.add_column("method")
    for name in (
        "mean",
        *(f"{100 * quantile:g} %" for quantile in QUANTILES),
        "nats",
        "worse than stratified",
    ):
        table.add_column(name, justify="right")
    for name, closed, loss in zip(trial.methods, outcome.closed.T, outcome.losses.T, strict=True):
        shares = (closed.mean(), *np.quantile(closed, QUANTILES))
        worse = f"{100 * (loss > 0).mean():.1f} %"
        table.add_row(name, *(f"{share:.2f}" for share in shares), f"{loss.mean():+.4f}", worse)
    return table


def _harm_table(trial: Trial, outcomes: Outcomes) -> Table:
    table = Table(
        title=f"harm where there is nothing to find, in {len(outcomes['even'].gaps)} worlds each: mean "
        "(95 % quantile)"
    )
    for name in ("method", "worlds"):
        table.add_column(name)
    for name in ("loss to stratified, nats", "largest distance from the anchor"):
        table.add_column(name, justify="right")
    for m, name in enumerate(trial.methods):
        for kind, words in CONTROLS.items():
            loss, distance = outcomes[kind].losses[:, m], outcomes[kind].distances[:, m]
            cells = [f"{loss.mean():+.4f} ({np.quantile(loss, 0.95):+.4f})"]
            table.add_row(name, words, *cells, f"{distance.mean():.3f} ({np.quantile(distance, 0.95):.3f})")
    return table


def _noise_table(trial: Trial, outcomes: dict[float, Outcomes]) -> Table:
    table = Table(
        title="by noise: share of the gap closed, mean | loss where the best mixture is even, nats",
        caption="signal: what pulling a stretch of aioli_bayes to the best group changes its drop by, over "
        "the noise of a drop (standard deviation); at first, median of the worlds with a gap",
    )
    for name in ("noise", "signal", *trial.methods):
        table.add_column(name, justify="right")
    for noise, found in outcomes.items():
        closed, harm = found["gap"].closed.mean(axis=0), found["even"].losses.mean(axis=0)
        cells = [f"{share:.2f} | {loss:+.4f}" for share, loss in zip(closed, harm, strict=True)]
        table.add_row(f"{noise:g}", f"{np.median(found['gap'].signals):.1f}", *cells)
    return table


def _draw_line(
    axis: Any,
    trial: Trial,
    outcomes: dict[float, Outcomes],
    values: Callable[[Outcomes], Array],
    line: str,
    label: str,
) -> None:
    """The mean over the worlds with two standard errors, a line for each method.

    Args:
        values: [N, M] of outcomes.
        line: marker and line of matplotlib.
    """
    for m, name in enumerate(trial.methods):
        found = [values(outcome)[:, m] for outcome in outcomes.values()]
        means = [of_worlds.mean() for of_worlds in found]
        errors = [2 * of_worlds.std() / np.sqrt(len(of_worlds)) for of_worlds in found]
        axis.errorbar(
            list(outcomes), means, errors, fmt=line, ms=4, lw=1.5, color=f"C{m}", label=name + label
        )
    if min(outcomes) > 0:
        axis.set_xscale("log")
