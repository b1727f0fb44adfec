"""`titan-aioli plan`: from a table of finished runs to the mixture to train on next.

A plan is a small JSON file that method `static` trains on and Aioli can take as its prior. It says which law
it comes from, how well that law fits, and from which table it was made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from titan_aioli.laws import repetition_caps
from titan_aioli.laws.plan import LawName, Plan, best_run, make_plan
from titan_aioli.laws.table import RunTable, read_table
from titan_aioli.runs.plan_file import write_plan

Array = np.ndarray
PerGroup = tuple[tuple[str, float], ...]


def plan(
    runs: Annotated[Path, tyro.conf.Positional],
    *,
    output: Path = Path("plan.json"),
    law: LawName = "log_linear",
    weights: PerGroup = (),
    anchor: PerGroup = (),
    anchor_strength: float = 0.0,
    group_tokens: PerGroup = (),
    training_tokens: float = 0.0,
    max_epochs: float = 4.0,
    huber_delta: float = 0.0,
) -> None:
    """Fit a mixing law to a table of runs and write the mixture that it predicts to be best.

        titan-aioli plan runs.csv --output plan.json --anchor web 0.8 code 0.2 --anchor-strength 0.05

    Args:
        runs: CSV with a column proportion.GROUP for each group trained on and loss.NAME for each group or
            target evaluated, which has a law of its own; objective_weight.NAME, where the sweep had targets.
        output: the plan, a JSON file.
        law: log_linear (b + exp(theta . p), needs one run more than groups), linear, or grid_search: the run
            with the lowest mean loss.
        weights: how much each evaluated group or target counts, as NAME NUMBER ...; if left out, as the table
            says (the objective of a sweep with targets: in its unit, 0 for guards and watched targets), or
            else all the same.
        anchor: a prior mixture, as NAME NUMBER ...; uniform if left out.
        anchor_strength: nats of loss given up per nat of KL divergence from the anchor; 0: none.
        group_tokens: tokens that each group has, as NAME NUMBER ..., to bound repetition.
        training_tokens: tokens of the run that is planned; needed with group_tokens.
        max_epochs: how often a group may be repeated.
        huber_delta: residuals above this many nats count linearly in the fit; 0: least squares.
    """
    table = read_table(runs)
    caps = _caps(table, group_tokens, training_tokens, max_epochs) if group_tokens else None
    made = make_plan(
        table,
        law,
        weights=_in_order(weights, table.evaluated, "weights") if weights else table.weights,
        anchor=_in_order(anchor, table.groups, "anchor") if anchor else None,
        anchor_strength=anchor_strength,
        caps=caps,
        huber_delta=huber_delta or None,
    )
    write_plan(output, **made.fields())
    console = Console()
    console.print(proportions_table(made, table))
    console.print(losses_table(made, table))
    console.print(f"plan: {output}", highlight=False)


def proportions_table(made: Plan, table: RunTable) -> Table:
    """Share of every group: in the plan, in the best run, and the range tried."""
    best = table.proportions[best_run(table, made.settings["weights"])]
    shown = Table(title=f"plan by {made.law} from {len(table.losses)} runs: proportions")
    for name, justify in (("group", "left"), ("plan", "right"), ("best run", "right"), ("tried", "right")):
        shown.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for j, name in enumerate(made.groups):
        tried = table.proportions[:, j]
        shown.add_row(
            name, f"{made.proportions[j]:.4f}", f"{best[j]:.4f}", f"{tried.min():.3f} - {tried.max():.3f}"
        )
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
            cells = [f"{made.fit.r2[i]:.4f}", f"{errors[0]:.2g}", f"{errors[1]:.2g}"]
        shown.add_row(name, *counts[i : i + 1], f"{made.predicted_losses[i]:.4f}", f"{best[i]:.4f}", *cells)
    return shown


def _caps(table: RunTable, group_tokens: PerGroup, training_tokens: float, max_epochs: float) -> Array:
    if training_tokens <= 0:
        raise ValueError("--group-tokens needs --training-tokens: how long the planned run is")
    if missing := set(table.groups) - {name for name, _ in group_tokens}:
        raise ValueError(f"--group-tokens leaves out {', '.join(sorted(missing))}: give every group's tokens")
    return repetition_caps(_in_order(group_tokens, table.groups, "group-tokens"), training_tokens, max_epochs)


def _in_order(pairs: PerGroup, groups: Sequence[str], option: str) -> Array:
    """Numbers given by name, in the order of the groups; a group left out has 0."""
    for name, _ in pairs:
        if name not in groups:
            raise ValueError(f"--{option} names {name!r}; the table has the groups {', '.join(groups)}")
    return np.array([dict(pairs).get(name, 0.0) for name in groups])
