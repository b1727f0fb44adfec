"""`titan-aioli report`: runs side by side, as one figure and as tables in the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from titan_aioli.commands.figures import check_suffix
from titan_aioli.commands.report.decisions import (
    best_mixture_table,
    evidence_table,
    judgement_table,
    round_table,
)
from titan_aioli.commands.report.figure import draw
from titan_aioli.commands.report.losses import epoch_table, loss_table, target_table
from titan_aioli.commands.settings import at_least_one
from titan_aioli.runs.read import read_run
from titan_aioli.runs.run import Run


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, at_least_one("RUN")],
    output: Path = Path("report.png"),
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
    check_suffix(output, "--output")
    loaded = [read_run(folder) for folder in runs]
    _refuse_others(loaded)
    console = Console(emoji=False)
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
    for run in runs[1:]:
        if run.groups != groups:
            raise ValueError(f"{run.folder} has groups {run.groups}, {runs[0].folder} has {groups}")
        if run.targets != runs[0].targets:
            raise ValueError(
                f"{run.folder} has targets {run.targets or 'none'}, {runs[0].folder} has "
                f"{runs[0].targets or 'none'}"
            )
