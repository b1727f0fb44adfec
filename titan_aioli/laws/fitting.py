"""Least squares from several starts: what every law is fitted with."""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.optimize import least_squares

Array = np.ndarray
RANK_TOLERANCE = 1e-6
"""Singular value of the mixtures, each group's shares scaled to length 1, that counts as 0."""


def best_fit(
    residuals: Callable[[Array], Array],
    jacobian: Callable[[Array], Array],
    starts: Iterable[Array],
    huber_delta: float | None = None,
) -> Array:
    """The parameters of the smallest sum of squared (or Huber) residuals over all starts.

    Source: the Huber objective with delta 0.02 is that of the law fits of Chen et al. 2024, arXiv:2411.05735,
    whose code minimises it by L-BFGS in float32; the optimum is the same.

    Args:
        residuals: parameters [K] -> [N], nats per token.
        jacobian: parameters [K] -> [N, K].
        starts: at least one [K].
        huber_delta: nats per token; residuals above it count linearly. None: plain least squares.
    Returns: [K].
    """

    def jacobian_to_keep(x: Array) -> Array:  # scipy 1.15, the newest for Python 3.10, scales it in place
        return jacobian(x).copy()

    best, best_cost = None, np.inf
    for start in starts:
        fit = least_squares(
            residuals,
            start,
            jac=jacobian_to_keep,  # pyright: ignore[reportArgumentType]
            method="lm" if huber_delta is None else "trf",
            loss="linear" if huber_delta is None else "huber",
            f_scale=1.0 if huber_delta is None else huber_delta,
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=1000,
        )
        if best is None or fit.cost < best_cost:
            best, best_cost = fit.x, fit.cost
    assert best is not None, "a fit needs at least one start"
    return best


def check_table(proportions: Array, losses: Array, num_parameters: int, law: str) -> tuple[Array, Array]:
    """Both tables as float64, refused where they cannot determine the law.

    Args:
        proportions: [N, G], one run per row.
        losses: [N, M], final loss of each evaluated group.
        num_parameters: of the law, for one evaluated group.
        law: its name, for the error.
    Raises: ValueError: shapes do not fit, a number is not finite, there are too few mixtures, or they do not
        span the simplex.
    """
    proportions, losses = np.asarray(proportions, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if proportions.ndim != 2 or losses.ndim != 2 or len(proportions) != len(losses):
        raise ValueError(
            f"proportions {list(proportions.shape)} and losses {list(losses.shape)} must be tables of the "
            "same number of runs, one run per row"
        )
    for name, table in (("proportions", proportions), ("losses", losses)):
        bad = np.argwhere(~np.isfinite(table))
        if len(bad):
            raise ValueError(
                f"{name}: run {bad[0, 0]}, column {bad[0, 1]} is {table[tuple(bad[0])]}, not finite"
            )
    num_runs, num_groups = proportions.shape
    if num_runs < num_parameters:
        raise ValueError(
            f"{num_runs} runs are too few for the {law} law of {num_groups} groups: it has {num_parameters} "
            f"parameters for each evaluated group, so at least {num_parameters} runs are needed"
        )
    _check_span(proportions)
    num_mixtures = len(np.unique(proportions.round(6), axis=0))
    if num_mixtures < num_parameters:
        raise ValueError(
            f"the {num_runs} runs are on {num_mixtures} mixtures, too few for the {law} law of {num_groups} "
            f"groups: it has {num_parameters} parameters for each evaluated group, so at least "
            f"{num_parameters} different mixtures are needed"
        )
    return proportions, losses


def _check_span(proportions: Array) -> None:
    """Refuse mixtures [N, G] that leave a direction of the simplex untried: a law says nothing about it."""
    num_runs, num_groups = proportions.shape
    lengths = np.linalg.norm(proportions, axis=0)
    rank = np.linalg.matrix_rank(proportions / np.where(lengths > 0, lengths, 1.0), tol=RANK_TOLERANCE)
    if rank < num_groups:
        raise ValueError(
            f"the mixtures of the {num_runs} runs span only {rank} of {num_groups} dimensions: add runs "
            "whose proportions are no combination of the others, or freeze the groups that kept their ratio"
        )
