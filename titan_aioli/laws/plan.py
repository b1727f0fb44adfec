"""The planner: from a table of finished runs to the mixture to train on next, and how far to trust it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from titan_aioli.laws.fidelity import mse_by_group, r2_by_group
from titan_aioli.laws.linear import fit_linear
from titan_aioli.laws.log_linear import fit_log_linear
from titan_aioli.laws.olmix import ANCHOR_STRENGTH, HUBER_DELTA, fit_olmix, refit_olmix
from titan_aioli.laws.optimum import Law, blocks, optimal_mixture
from titan_aioli.laws.repetition import RepeatedLaw, effective_mixtures, fit_effective
from titan_aioli.laws.table import RunTable
from titan_aioli.proportions import normalize_or_uniform

Array = np.ndarray
LawName = Literal["log_linear", "linear", "olmix", "grid_search"]
FITS: dict[str, Callable[..., Any]] = {
    "log_linear": fit_log_linear,
    "linear": fit_linear,
    "olmix": fit_olmix,
}
"""How the laws are fitted: (proportions [N, G], losses [N, M], huber_delta) -> a law."""
FRONTIER = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Anchor strengths of the table that shows what the pull to the anchor costs."""
CAP_TOLERANCE = 1e-9
"""Largest share by which a run may be above a cap and still count as keeping it."""
RATIO_TOLERANCE = 1e-3
"""Largest share by which the runs of a table may be off the frozen ratios and still count as keeping them."""


class Fit(NamedTuple):
    """How far a law can be trusted, for each evaluated group [M]."""

    mse: Array
    """Mean squared residual over the runs it was fitted to."""
    r2: Array
    """1 - residual / total sum of squares over those runs; nan where the loss does not vary."""
    held_out_mse: Array
    """Mean squared error on a run that the fit did not see, each run left out in turn; nan where there are
    too few runs to leave one out."""


class Frontier(NamedTuple):
    """What other strengths of the pull to the anchor would propose, S of them."""

    strengths: Array
    """[S], nats of loss per nat of KL divergence."""
    divergence: Array
    """[S], KL(p || anchor), nats."""
    proportions: Array
    """[S, G]."""
    objective: Array
    """[S], predicted weighted mean loss."""


class Plan(NamedTuple):
    """The mixture to train on, and why."""

    law: str
    """One of LawName; `grid_search` is the best run of the table within the caps."""
    groups: list[str]
    proportions: Array
    """[G], on the simplex."""
    evaluated: list[str]
    predicted_losses: Array
    """[M], at these proportions, nats per token; for grid_search those measured."""
    fit: Fit | None
    parameters: dict[str, Array]
    """Parameters of the law: `b` [M] and `theta` [M, G], or `theta` alone; none for grid_search. With tau,
    theta is [M, G + 1]: the last is of what repeating wastes."""
    settings: dict[str, Any]
    """What else decided: weights, anchor, anchor_strength, caps, frozen, tau, epochs_of_all, huber_delta."""
    table_sha256: str
    frontier: Frontier | None = None
    """None for grid_search."""

    def fields(self) -> dict[str, Any]:
        """The plan by field name, as `write_plan` takes it."""
        parts = {"fit": self.fit, "frontier": self.frontier}
        return {**self._asdict(), **{name: part._asdict() if part else None for name, part in parts.items()}}


class Planned(NamedTuple):
    """A plan, and what it says of any other mixture."""

    plan: Plan
    law: Law | None
    """Of the planned run; None for grid_search."""
    fitted: Array
    """[N, M], what the law says of the runs of the table; their losses for grid_search."""
    left_out: Array
    """[N, M], what the law fitted to the others says of each run; nan where they are too few."""


def make_plan(table: RunTable, law: LawName = "log_linear", **settings: Any) -> Plan:
    """The plan of a table of runs; arguments as in `plan_mixture`."""
    return plan_mixture(table, law, **settings).plan


def plan_mixture(
    table: RunTable,
    law: LawName = "log_linear",
    weights: Array | None = None,
    anchor: Array | None = None,
    anchor_strength: float | None = None,
    caps: Array | None = None,
    huber_delta: float | None = None,
    frozen: Array | None = None,
    tau: float | None = None,
    epochs_of_all: Array | None = None,
) -> Planned:
    """The plan of a table of runs.

    Args:
        table: the runs.
        law: what is fitted; `grid_search`: nothing, the best run within the caps is the plan.
        weights, anchor, caps, frozen: as in `optimal_mixture`.
        anchor_strength: as there. None: 0.05 for olmix, 0 for the other laws.
        huber_delta: nats per token; None: 0.02 for olmix, least squares for the other laws.
        tau: fit to effective shares (repetition.py) with this many epochs; needs the table's epochs.
        epochs_of_all: [G], with tau: R / N_j of the planned run.
    Raises: ValueError: the table cannot determine the law, or no mixture keeps the bounds.
    """
    defaults = (ANCHOR_STRENGTH, HUBER_DELTA) if law == "olmix" else (0.0, None)
    anchor_strength = defaults[0] if anchor_strength is None else anchor_strength
    huber_delta = huber_delta or defaults[1]
    settings = {"weights": weights, "anchor": anchor, "anchor_strength": anchor_strength, "caps": caps}
    settings |= {"frozen": frozen, "tau": tau, "epochs_of_all": epochs_of_all, "huber_delta": huber_delta}
    P, L = table.proportions, table.losses
    if law == "grid_search":
        best = best_run(table, weights, caps)
        found = Plan(law, table.groups, P[best], table.evaluated, L[best], None, {}, settings, table.digest)
        return Planned(found, None, L, np.full_like(L, np.nan))
    shares, expand = _fitted_shares(table, frozen, tau)
    fitted, left_out = _fitted(law, shares, L, huber_delta, tau is not None)
    predicted = fitted.predict(shares)
    quality = Fit(mse_by_group(L, predicted), r2_by_group(L, predicted), mse_by_group(L, left_out))
    whole = fitted._replace(theta=fitted.theta @ expand)
    used = whole if tau is None else RepeatedLaw(whole, _epochs_of_all(epochs_of_all), tau)
    propose = partial(optimal_mixture, used, len(table.groups), weights, anchor, caps=caps, frozen=frozen)
    p = propose(anchor_strength=anchor_strength)
    found = Plan(
        law,
        table.groups,
        p,
        table.evaluated,
        used.predict(p),
        quality,
        whole._asdict(),
        settings,
        table.digest,
        _frontier(propose, used, weights, anchor),
    )
    return Planned(found, used, predicted, left_out)


def best_run(table: RunTable, weights: Array | None = None, caps: Array | None = None) -> int:
    """Index of the run with the lowest (weighted) mean loss, of those in which no share is above its cap.

    Raises: ValueError: every run has a share above its cap.
    """
    means = np.average(table.losses, axis=1, weights=weights)
    if caps is None:
        return int(np.argmin(means))
    within = (table.proportions <= caps + CAP_TOLERANCE).all(axis=1)
    if not within.any():
        most = ", ".join(f"{name} {cap:.4g}" for name, cap in zip(table.groups, caps, strict=True))
        raise ValueError(
            f"each of the {len(means)} runs has a share above its cap ({most}): train on fewer tokens, allow "
            "more repeats, add data or runs, or fit a law"
        )
    return int(np.argmin(np.where(within, means, np.inf)))


def _fitted_shares(table: RunTable, frozen: Array | None, tau: float | None) -> tuple[Array, Array]:
    """What the law is fitted to, [N, G'], and E [G', G] that makes its theta one of all groups.

    Where the runs keep the frozen ratios, the groups that are frozen are one group for the law: their own
    parameters could not be told apart, and fewer runs determine the others.
    """
    P, num_groups = table.proportions, len(table.groups)
    if tau is not None and frozen is not None:
        raise ValueError("frozen groups and effective shares cannot be combined: leave out one of them")
    if tau is not None:
        if table.epochs is None:
            raise ValueError(
                "effective shares need the epochs of every run: the table has no columns epochs.GROUP, which "
                "`titan-aioli sweep` writes"
            )
        return effective_mixtures(P, table.epochs, tau), np.eye(num_groups + 1)
    together = (blocks(frozen, num_groups) > 0).T.astype(np.float64)  # [G', G]
    if frozen is None or not _keep_ratios(P, blocks(frozen, num_groups)):
        return P, np.eye(num_groups)
    return P @ together.T, together


def _keep_ratios(P: Array, basis: Array) -> bool:
    """Whether mixtures [N, G] are all of the form B q."""
    q = P @ (basis > 0)
    return bool(np.abs(q @ basis.T - P).max() <= RATIO_TOLERANCE)


def _epochs_of_all(epochs_of_all: Array | None) -> Array:
    if epochs_of_all is None:
        raise ValueError("effective shares need the tokens of every group and of the planned run")
    return epochs_of_all


def _frontier(
    propose: Callable[..., Array], law: Law, weights: Array | None, anchor: Array | None
) -> Frontier | None:
    """What the strengths of FRONTIER propose; None where the anchor leaves out a group."""
    strengths: Sequence[float] = FRONTIER
    if anchor is not None and np.min(anchor) <= 0:
        return None
    P = np.array([propose(anchor_strength=strength) for strength in strengths])
    prior = normalize_or_uniform(anchor, P.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(P > 0, P * np.log(P / prior), 0.0).sum(axis=1)
    objective = np.average(law.predict(P), axis=1, weights=weights)
    return Frontier(np.array(strengths), divergence, P, objective)


def _fitted(
    law: str, shares: Array, L: Array, huber_delta: float | None, is_effective: bool
) -> tuple[Any, Array]:
    """The law of all runs, and what laws of all but one say of the other [N, M]."""
    fit = partial(FITS[law], huber_delta=huber_delta)
    fit = partial(fit_effective, fit) if is_effective else fit
    fitted = fit(shares, L)
    if law != "olmix":
        return fitted, _left_out(fit, shares, L)
    near = partial(refit_olmix, huber_delta=huber_delta or HUBER_DELTA)  # a fit from all starts takes long
    refit = partial(fit_effective, near, near=fitted) if is_effective else partial(near, fitted)
    return fitted, _left_out(refit, shares, L)


def _left_out(fit: Callable[..., Any], shares: Array, L: Array) -> Array:
    """[N, M], the prediction for each run by a law that did not see it; nan where too few runs are left."""
    predictions = []
    for number in range(len(shares)):
        kept = np.arange(len(shares)) != number
        try:
            law = fit(shares[kept], L[kept])
        except ValueError:  # too few runs are left, or their mixtures are too much alike
            return np.full_like(L, np.nan)
        predictions.append(law.predict(shares[number]))
    return np.array(predictions)
