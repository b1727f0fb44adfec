"""What `titan-aioli plan` prints."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from titan_aioli.laws.plan import Plan, best_run
from titan_aioli.laws.table import RunTable
from titan_aioli.proportions import uniform

Array = np.ndarray


class Verified(NamedTuple):
    """A mixture that was trained on after a law had predicted its losses."""

    name: str
    """Of the run: `plan`, or what it differs in."""
    proportions: Array
    """[G]."""
    predicted: Array
    """[M], nats per token."""
    measured: Array
    """[M]."""
    predicted_objective: float
    """Weighted mean."""
    measured_objective: float


def proportions_table(made: Plan, table: RunTable) -> Table:
    """Share of every group: in the plan, the anchor, the best run, the range tried, and the most allowed."""
    best = table.proportions[best_run(table, made.settings["weights"])]
    anchor, caps = made.settings["anchor"], made.settings["caps"]
    shown = Table(title=f"plan by {made.law} from {len(table.losses)} runs: proportions")
    shown.add_column("group")
    for name in ("plan", *["anchor"] * bool(made.settings["anchor_strength"]), "best run", "tried"):
        shown.add_column(name, justify="right")
    if caps is not None:
        shown.add_column("most", justify="right")
    shares = uniform(len(best)) if anchor is None else anchor / anchor.sum()
    for j, name in enumerate(made.groups):
        tried = table.proportions[:, j]
        cells = [f"{made.proportions[j]:.4f}"]
        cells += [f"{shares[j]:.4f}"] * bool(made.settings["anchor_strength"])
        cells += [f"{best[j]:.4f}", f"{tried.min():.3f} - {tried.max():.3f}"]
        shown.add_row(escape(name), *cells, *([] if caps is None else [f"{caps[j]:.4f}"]))
    return shown


def losses_table(made: Plan, table: RunTable) -> Table:
    """Loss of every evaluated group: predicted, in the best run, and how well the law fits."""
    weights = made.settings["weights"]
    best = table.losses[best_run(table, weights)]
    shown = Table(title="loss, nats per token")
    counts = [] if weights is None else [f"{share:.4f}" for share in weights / weights.sum()]
    measures = ("predicted", "best run", "R2", "rms error", "rms error, held out")
    for name in ("evaluated", *(["counts"] if counts else []), *measures):
        shown.add_column(name, justify="left" if name == "evaluated" else "right")
    for i, name in enumerate(made.evaluated):
        cells = ["-"] * 3
        if made.fit:
            errors = np.sqrt([made.fit.mse[i], made.fit.held_out_mse[i]])
            cells = [_cell(made.fit.r2[i], ".4f"), *(_cell(error, ".2g") for error in errors)]
        losses = [_cell(made.predicted_losses[i], ".4f"), f"{best[i]:.4f}"]
        shown.add_row(escape(name), *counts[i : i + 1], *losses, *cells)
    return shown


def _cell(value: float, digits: str) -> str:
    """The number in this format; "-" where it could not be measured."""
    return "-" if np.isnan(value) else format(value, digits)


def frontier_table(made: Plan) -> Table:
    """What other pulls to the anchor would propose, and what the law says that they cost."""
    assert made.frontier is not None
    shown = Table(title="the pull to the anchor")
    for name in ("strength", "KL from the anchor", "predicted objective", *map(escape, made.groups)):
        shown.add_column(name, justify="right")
    for strength, divergence, p, objective in zip(*made.frontier, strict=True):
        shares = [f"{share:.3f}" for share in p]
        shown.add_row(f"{strength:g}", f"{divergence:.4f}", f"{objective:.4f}", *shares)
    return shown


def verified_table(made: Plan, verified: Sequence[Verified]) -> Table:
    """Predicted and measured objective of the plan and its neighbors."""
    shown = Table(title="verified: weighted mean loss, nats per token")
    for name in ("run", "predicted", "measured", "optimism", *map(escape, made.groups)):
        shown.add_column(name, justify="left" if name == "run" else "right")
    for entry in verified:
        predicted, measured = entry.predicted_objective, entry.measured_objective
        numbers = [f"{predicted:.4f}", f"{measured:.4f}", f"{measured - predicted:+.4f}"]
        shown.add_row(escape(entry.name), *numbers, *(f"{share:.3f}" for share in entry.proportions))
    shown.caption = "optimism: measured minus predicted"
    return shown
