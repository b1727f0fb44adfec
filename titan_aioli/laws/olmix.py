"""Olmix's fit: the log-linear law with a positive irreducible loss, by Huber's loss from many starts."""

from collections.abc import Iterable

import numpy as np
from scipy.optimize import minimize

from titan_aioli.laws.fitting import best_fit, check_table
from titan_aioli.laws.log_linear import LARGEST_EXPONENT, LogLinearLaw

Array = np.ndarray

HUBER_DELTA = 0.02
"""Nats per token above which a residual counts linearly."""
ANCHOR_STRENGTH = 0.05
"""Weight of the KL divergence from the natural shares in the proposal."""
RUNS_PER_PARAMETER = 3
"""Least number of runs for each of the G + 1 parameters of a target's law."""
NUM_OFFSETS, NUM_SLOPES = 10, 30
"""Starts of a fit: values of the irreducible loss, and values of a for each of them."""
FIRST_STEPS, NUM_KEPT = 15, 10
"""Steps of L-BFGS from every start, and the number of starts that are then taken to the end."""


def fit_olmix(proportions: Array, losses: Array, huber_delta: float | None = None) -> LogLinearLaw:
    """L_k(p) = exp(c_k) + exp(a_k . p) closest to a table of runs, as LogLinearLaw(b = exp(c), theta = a).

    Source: Olmix, arXiv:2602.12237: sum of Huber losses with delta 0.02, L-BFGS from about 300 starts, at
    least 3 (G + 1) runs. Here L-BFGS takes 15 steps from each start, and the ten best are then brought to
    full precision by least squares, which finds the same minimum in half the time: about a second per target.

    Args:
        proportions: [N, G], of each run.
        losses: [N, M], final loss of each target, nats per token, positive.
        huber_delta: nats per token. None: 0.02.
    Raises: ValueError: see `check_table`; or a loss is not positive, or there are fewer than 3 (G + 1) runs.
    """
    num_groups = np.shape(proportions)[-1]
    needed = RUNS_PER_PARAMETER * (num_groups + 1)
    proportions, losses = check_table(proportions, losses, num_groups + 1, "olmix")
    if len(proportions) < needed:
        raise ValueError(
            f"{len(proportions)} runs are too few for the olmix law of {num_groups} groups: it needs 3 for "
            f"each of its {num_groups + 1} parameters, {needed} in all: train more, or fit log_linear"
        )
    if (losses <= 0).any():
        raise ValueError(f"the smallest loss is {losses.min()}: the olmix law is of positive losses")
    delta = HUBER_DELTA if huber_delta is None else huber_delta
    fits = np.array([_fit_one(proportions, y, delta) for y in losses.T])
    return LogLinearLaw(np.exp(fits[:, 0]), fits[:, 1:])


def refit_olmix(law: LogLinearLaw, proportions: Array, losses: Array, huber_delta: float) -> LogLinearLaw:
    """The law closest to another table, with a law that is near it as the only start."""
    starts = np.column_stack([np.log(law.b), law.theta])
    pairs = zip(starts, np.transpose(losses), strict=True)
    fits = np.array([_refine(proportions, y, huber_delta, [start]) for start, y in pairs])
    return LogLinearLaw(np.exp(fits[:, 0]), fits[:, 1:])


def _fit_one(proportions: Array, y: Array, delta: float) -> Array:
    """(c, a) [1 + G] for the losses y [N] of one target."""
    table, few = (proportions, y, delta), {"maxiter": FIRST_STEPS}
    ends = [
        minimize(_huber_sum, start, args=table, jac=True, method="L-BFGS-B", options=few)
        for start in _starts(proportions, y)
    ]
    best = sorted(ends, key=lambda end: end.fun)[:NUM_KEPT]
    return _refine(*table, [end.x for end in best])


def _refine(proportions: Array, y: Array, delta: float, starts: Iterable[Array]) -> Array:
    """The best end of fits from these starts, to full precision."""

    def jacobian(x: Array) -> Array:
        irreducible, reducible = _terms(x, proportions)
        return np.hstack([np.full((len(y), 1), irreducible), reducible[:, None] * proportions])

    return best_fit(lambda x: sum(_terms(x, proportions)) - y, jacobian, starts, delta)


def _starts(proportions: Array, y: Array) -> list[Array]:
    """The grid: shares of the smallest loss that are irreducible, and a around what is then linear."""
    rng, num_groups = np.random.default_rng(0), proportions.shape[1]
    shifts = np.vstack([np.zeros(num_groups), rng.normal(size=(NUM_SLOPES - 1, num_groups))])
    starts = []
    for share in np.linspace(0.05, 0.99, NUM_OFFSETS):
        logs = np.log(y - share * y.min())
        a = np.linalg.lstsq(proportions, logs, rcond=None)[0]
        starts += [np.append(np.log(share * y.min()), a + shift) for shift in shifts]
    return starts


def _terms(x: Array, proportions: Array) -> tuple[float, Array]:
    """exp(c) and exp(a . p) [N]."""
    exponents = np.minimum(proportions @ x[1:], LARGEST_EXPONENT)
    return float(np.exp(min(x[0], LARGEST_EXPONENT))), np.exp(exponents)


def _huber_sum(x: Array, proportions: Array, y: Array, delta: float) -> tuple[float, Array]:
    """The sum over the runs of the Huber loss, and its gradient [1 + G]."""
    irreducible, reducible = _terms(x, proportions)
    residual = irreducible + reducible - y
    clipped = np.clip(residual, -delta, delta)
    value = (clipped * (residual - 0.5 * clipped)).sum()
    return float(value), np.append(clipped.sum() * irreducible, (clipped * reducible) @ proportions)
