"""Runs side by side: what they are called, whether their objectives can be compared, what stands out."""

from collections.abc import Sequence

from titan_aioli.runs.run import Run

UNITS = {
    "nats": "nats per token",
    "bits_per_byte": "bits per byte",
    "relative": "geometric mean, nats per token",
}
"""What the unit of an objective (`mixing.objective.unit`) is called."""


def have_one_objective(runs: Sequence[Run]) -> bool:
    """Whether the values of the runs' objectives can be compared."""
    first, num_targets = runs[0].objective, len(runs[0].target_names)
    return all(first.counts_as(run.objective, num_targets) for run in runs)


def run_title(run: Run) -> str:
    """The name of the run's folder, and the method if the name does not contain it."""
    method = run.mixture["method"]
    return run.name if method in run.name else f"{run.name} ({method})"


def bold(text: str, is_bold: bool) -> str:
    """The text of a cell of a table, in bold or not."""
    return f"[bold]{text}[/bold]" if is_bold else text
