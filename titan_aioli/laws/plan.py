"""The planner: from a table of finished runs to the mixture to train on next, and how far to trust it."""

from typing import Any, Literal, NamedTuple

import numpy as np

from titan_aioli.laws.fidelity import mse_by_group, r2_by_group
from titan_aioli.laws.linear import fit_linear
from titan_aioli.laws.log_linear import fit_log_linear
from titan_aioli.laws.optimum import optimal_mixture
from titan_aioli.laws.table import RunTable

Array = np.ndarray
LawName = Literal["log_linear", "linear", "grid_search"]


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
    """Parameters of the law: `b` [M] and `theta` [M, G], or `theta` alone; none for grid_search."""
    settings: dict[str, Any]
    """What else decided: weights, anchor, anchor_strength, caps."""
    table_sha256: str

    def fields(self) -> dict[str, Any]:
        """The plan by field name, as `write_plan` takes it."""
        return {**self._asdict(), "fit": self.fit._asdict() if self.fit else None}


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
    predicted = fitted.predict(P)
    quality = Fit(
        mse_by_group(L, predicted), r2_by_group(L, predicted), _held_out_mse(fit, P, L, huber_delta)
    )
    p = optimal_mixture(fitted, len(table.groups), weights, anchor, anchor_strength, caps)
    losses = fitted.predict(p)
    return Plan(
        law, table.groups, p, table.evaluated, losses, quality, fitted._asdict(), settings, table.digest
    )


def best_run(table: RunTable, weights: Array | None = None) -> int:
    """Index of the run with the lowest (weighted) mean loss."""
    return int(np.argmin(np.average(table.losses, axis=1, weights=weights)))


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
