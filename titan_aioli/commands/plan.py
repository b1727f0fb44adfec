"""`titan-aioli plan`: from a table of finished runs to the mixture to train on next.

A plan is a small JSON file that method `static` trains on and Aioli can take as its prior. It says which law
it comes from, how well that law fits, and from which table it was made.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from titan_aioli.files import read_json, replacing
from titan_aioli.laws import fit_linear, fit_log_linear, optimal_mixture, repetition_caps
from titan_aioli.laws.table import RunTable, read_table
from titan_aioli.proportions import normalize

Array = np.ndarray
LawName = Literal["log_linear", "linear", "grid_search"]
PerGroup = tuple[tuple[str, float], ...]


class Fit(NamedTuple):
    """How far a law can be trusted, for each evaluated group [M]."""

    mse: Array
    """Mean squared residual over the runs it was fitted to."""
    r2: Array
    """1 - residual / total sum of squares over those runs; nan where the loss does not vary."""
    held_out_mse: Array
    """Mean squared error on a run that the fit did not see, each run left out in turn; nan where there are
    too few runs to leave one out."""


class Plan(NamedTuple):
    """The mixture to train on, and why."""

    law: str
    """`log_linear`, `linear` or `grid_search` (the best run of the table)."""
    groups: list[str]
    proportions: Array
    """[G], on the simplex."""
    evaluated: list[str]
    predicted_losses: Array
    """[M], at these proportions, nats per token; for grid_search those measured."""
    fit: Fit | None
    parameters: dict[str, Array]
    """Of the law: `b` [M] and `theta` [M, G], or `theta` alone; none for grid_search."""
    settings: dict[str, Any]
    """What else decided: weights, anchor, anchor_strength, caps."""
    table_sha256: str


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
        runs: CSV with a column proportion.GROUP for each group trained on and loss.GROUP for each evaluated.
        output: the plan, a JSON file.
        law: log_linear (b + exp(theta . p), needs one run more than groups), linear, or grid_search: the run
            with the lowest mean loss.
        weights: how much each evaluated group counts, as NAME NUMBER ...; all the same if left out.
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
        weights=_in_order(weights, table.evaluated, "weights") if weights else None,
        anchor=_in_order(anchor, table.groups, "anchor") if anchor else None,
        anchor_strength=anchor_strength,
        caps=caps,
        huber_delta=huber_delta or None,
    )
    write_plan(made, output)
    console = Console()
    console.print(proportions_table(made, table))
    console.print(losses_table(made, table))
    console.print(f"plan: {output}", highlight=False)


def make_plan(
    table: RunTable,
    law: LawName = "log_linear",
    weights: Array | None = None,
    anchor: Array | None = None,
    anchor_strength: float = 0.0,
    caps: Array | None = None,
    huber_delta: float | None = None,
) -> Plan:
    """The plan of a table of runs; arguments as in `optimal_mixture`."""
    settings = {"weights": weights, "anchor": anchor, "anchor_strength": anchor_strength, "caps": caps}
    P, L = table.proportions, table.losses
    if law == "grid_search":
        best = best_run(table, weights)
        return Plan(law, table.groups, P[best], table.evaluated, L[best], None, {}, settings, table.digest)
    fit = fit_log_linear if law == "log_linear" else fit_linear
    fitted = fit(P, L, huber_delta=huber_delta)
    residual = fitted.predict(P) - L
    spread = ((L - L.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1.0 - (residual**2).sum(axis=0) / spread, np.nan)
    quality = Fit((residual**2).mean(axis=0), r2, _held_out_mse(fit, P, L, huber_delta))
    p = optimal_mixture(fitted, len(table.groups), weights, anchor, anchor_strength, caps)
    losses = fitted.predict(p)
    return Plan(
        law, table.groups, p, table.evaluated, losses, quality, fitted._asdict(), settings, table.digest
    )


def best_run(table: RunTable, weights: Array | None = None) -> int:
    """Index of the run with the lowest (weighted) mean loss."""
    return int(np.argmin(np.average(table.losses, axis=1, weights=weights)))


def write_plan(made: Plan, path: Path) -> None:
    """Write a plan as JSON, whole or not at all."""
    content = made._asdict()
    content["fit"] = made.fit._asdict() if made.fit else None
    text = json.dumps(_plain(content), indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def read_plan(path: Path, groups: Sequence[str]) -> Array:
    """The proportions of a plan in the order of a run's groups, [G].

    Raises: ValueError: the file is no plan, or it was made for other groups.
    """
    content = read_json(path, "a plan made by `titan-aioli plan`")
    try:
        shares = dict(zip(content["groups"], map(float, content["proportions"]), strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a plan made by `titan-aioli plan` ({error!r})") from None
    if set(shares) != set(groups):
        raise ValueError(f"{path} is a plan for the groups {sorted(shares)}, this run has {sorted(groups)}")
    proportions = np.array([shares[name] for name in groups])
    normalize(proportions, f"{path}: proportions")  # refuses what is no mixture
    return proportions


def proportions_table(made: Plan, table: RunTable) -> Table:
    """Share of every group: in the plan, in the best run, and the range tried."""
    best = table.proportions[best_run(table)]
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
    best = table.losses[best_run(table)]
    shown = Table(title="loss, nats per token")
    for name in ("group", "predicted", "best run", "R2", "rms error", "rms error, held out"):
        shown.add_column(name, justify="left" if name == "group" else "right")
    for i, name in enumerate(made.evaluated):
        cells = ["-"] * 3
        if made.fit:
            errors = np.sqrt([made.fit.mse[i], made.fit.held_out_mse[i]])
            cells = [f"{made.fit.r2[i]:.4f}", f"{errors[0]:.2g}", f"{errors[1]:.2g}"]
        shown.add_row(name, f"{made.predicted_losses[i]:.4f}", f"{best[i]:.4f}", *cells)
    return shown


def _held_out_mse(fit: Any, P: Array, L: Array, huber_delta: float | None) -> Array:
    errors = []
    for left_out in range(len(P)):
        kept = np.arange(len(P)) != left_out
        try:
            law = fit(P[kept], L[kept], huber_delta=huber_delta)
        except ValueError:  # too few runs are left
            return np.full(L.shape[1], np.nan)
        errors.append((law.predict(P[left_out]) - L[left_out]) ** 2)
    return np.mean(errors, axis=0)


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


def _plain(value: Any) -> Any:
    """The value with arrays as lists, and None for nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
