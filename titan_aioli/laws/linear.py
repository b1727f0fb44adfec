"""The linear mixing law: the loss, or its change over a phase of training, is linear in the proportions."""

from typing import NamedTuple

import numpy as np

from titan_aioli.laws.fitting import best_fit, check_table

Array = np.ndarray


class LinearLaw(NamedTuple):
    """L_i(p) = sum_j theta_ij p_j. A constant needs no term of its own, since proportions sum to 1.

    Source: Chen et al. 2024, arXiv:2411.05735, the linear dynamic law (there A = -theta, as L is a change).
    """

    theta: Array
    """[M, G], nats per token and unit of proportion."""

    def predict(self, proportions: Array) -> Array:
        """Losses (or changes) [..., M] at proportions [..., G]."""
        return proportions @ self.theta.T

    def gradient(self, proportions: Array, weights: Array) -> Array:
        """Gradient [G] of sum_i weights_i L_i at one mixture [G]; weights [M]."""
        return weights @ self.theta


def fit_linear(proportions: Array, losses: Array, huber_delta: float | None = None) -> LinearLaw:
    """The linear law closest to a table of runs; in closed form, or iterated for the Huber objective.

    Args:
        proportions: [N, G], of each run or phase; at least G of them.
        losses: [N, M], final losses (static) or changes of loss (dynamic), nats per token.
        huber_delta: nats per token; None: least squares.
    Raises: ValueError: see `check_table`.
    """
    num_groups = np.shape(proportions)[-1]
    proportions, losses = check_table(proportions, losses, num_groups, "linear")
    theta = np.linalg.lstsq(proportions, losses, rcond=None)[0]
    if huber_delta is not None:
        columns = [
            best_fit(lambda x, y=y: proportions @ x - y, lambda x: proportions, [start], huber_delta)
            for start, y in zip(theta.T, losses.T, strict=True)
        ]
        return LinearLaw(np.array(columns))
    return LinearLaw(theta.T)


def fit_scale(A: Array, proportions: Array, changes: Array, huber_delta: float | None = None) -> float:
    """b of the law change_i = b (A p)_i, one number for all groups: a method's A in units of the loss.

    Source: Chen et al. 2024, arXiv:2411.05735, how a method's A is compared with the true one (b^t A^t).

    Args:
        A: [G, G], the method's mixing matrix.
        proportions: [N, G].
        changes: [N, G], loss after minus loss before; b is negative where A is helpful.
    """
    predicted, observed = (proportions @ A.T).ravel(), np.asarray(changes).ravel()
    start = predicted @ observed / (predicted @ predicted)
    if huber_delta is None:
        return float(start)
    fit = best_fit(
        lambda b: b * predicted - observed, lambda b: predicted[:, None], [np.array([start])], huber_delta
    )
    return float(fit[0])
