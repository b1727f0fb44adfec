"""The figure of `titan-aioli plan --figure`: what the law predicted against what was measured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from titan_aioli.commands.figures import save, subplots
from titan_aioli.commands.plan.tables import Verified
from titan_aioli.laws.plan import Planned
from titan_aioli.laws.table import RunTable

Array = np.ndarray


def draw(planned: Planned, table: RunTable, verified: Sequence[Verified], path: Path) -> None:
    """Write the figure: the objective of every run, fitted, left out in turn, and of the verified mixtures.

    Args:
        planned: by a law.
        table: that the law was fitted to.
        verified: mixtures trained on afterwards, the plan first; may be empty.
        path: the file to make.
    """
    weights = planned.plan.settings["weights"]
    measured = np.average(table.losses, axis=1, weights=weights)
    figure, grid = subplots(1, 1, (5, 5))
    axis = grid[0, 0]
    for losses, label, marker in (
        (planned.fitted, "runs the law was fitted to", "."),
        (planned.left_out, "the same, left out of the fit", "x"),
    ):
        axis.plot(np.average(losses, axis=1, weights=weights), measured, marker, label=label, alpha=0.7)
    for entries, label, style in ((verified[1:], "its neighbors", "C3^"), (verified[:1], "the plan", "k*")):
        pairs = [(entry.predicted_objective, entry.measured_objective) for entry in entries]
        if pairs:
            axis.plot(*np.transpose(pairs), style, ms=9, label=f"{label}, trained afterwards")
    axis.axline((measured.min(), measured.min()), slope=1, color="0.6", lw=1, zorder=0)
    axis.set(xlabel="predicted objective, nats per token", ylabel="measured")
    axis.set_title(f"{planned.plan.law}, {len(measured)} runs")
    axis.legend(fontsize="small")
    save(figure, path)
