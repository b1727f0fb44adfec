"""The log-linear mixing law: an irreducible loss and an exponential of the proportions.

Fitted from several starts, because from a single one half of the noisy problems of two groups end at the
start itself. The starts are not random: for any irreducible loss the rest is linear after a logarithm, so
each start is that solution for one value of it.
"""

from typing import NamedTuple

import numpy as np

from titan_aioli.laws.fitting import best_fit, check_table

Array = np.ndarray
LARGEST_EXPONENT = 100.0  # far above any loss, far below overflow when squared


class LogLinearLaw(NamedTuple):
    """L_i(p) = b_i + exp(sum_j theta_ij p_j).

    Source: Ye et al. 2024, arXiv:2403.16952, the data mixing law; as fitted by Chen et al. 2024,
    arXiv:2411.05735, who write b_i + a_i exp(sum_j m_ij p_j). On the simplex a_i and a constant in m_i are
    the same thing, so a_i is left out here.
    """

    b: Array
    """[M], irreducible loss, nats per token."""
    theta: Array
    """[M, G]."""

    def predict(self, proportions: Array) -> Array:
        """Losses [..., M] at proportions [..., G]."""
        return self.b + np.exp(np.minimum(proportions @ self.theta.T, LARGEST_EXPONENT))

    def gradient(self, proportions: Array, weights: Array) -> Array:
        """Gradient [G] of sum_i weights_i L_i at one mixture [G]; weights [M]."""
        return (weights * (self.predict(proportions) - self.b)) @ self.theta


def fit_log_linear(
    proportions: Array,
    losses: Array,
    num_starts: int = 8,
    b: Array | None = None,
    huber_delta: float | None = None,
) -> LogLinearLaw:
    """The log-linear law closest to a table of runs.

    Args:
        proportions: [N, G], of each run; at least G + 1 of them.
        losses: [N, M], final loss of each evaluated group, nats per token.
        num_starts: values of the irreducible loss that a fit is started from.
        b: [M], the irreducible losses if they are known; then only theta is fitted.
        huber_delta: nats per token; None: least squares.
    Raises: ValueError: see `check_table`.
    """
    num_parameters = np.shape(proportions)[-1] + (b is None)
    proportions, losses = check_table(proportions, losses, num_parameters, "log-linear")
    if b is not None:
        b = np.broadcast_to(np.asarray(b, dtype=np.float64), losses.shape[1:])
        pairs = zip(losses.T, b, strict=True)
        return LogLinearLaw(b, np.array([_fit_theta(proportions, y, b_i, huber_delta) for y, b_i in pairs]))
    fits = np.array([_fit_one(proportions, y, num_starts, huber_delta) for y in losses.T])
    return LogLinearLaw(fits[:, 0], fits[:, 1:])


def offset_by_correlation(share: Array, losses: Array, num_values: int = 1000) -> float:
    """The irreducible loss c that makes log(loss - c) most nearly linear in one group's share.

    Source: the static law of two groups in the analysis code of Chen et al. 2024, arXiv:2411.05735: a grid of
    `num_values` from 0 to the smallest loss, the last left out.

    Args:
        share: [N], proportion of the group.
        losses: [N], its loss, nats per token.
    """
    candidates = np.linspace(0.0, losses.min(), num_values)[:-1]
    correlation = [abs(np.corrcoef(share, np.log(losses - c))[0, 1]) for c in candidates]
    return float(candidates[int(np.argmax(correlation))])


def _exponential(proportions: Array, theta: Array) -> Array:
    return np.exp(np.minimum(proportions @ theta, LARGEST_EXPONENT))


def _start(proportions: Array, y: Array, b: float) -> Array:
    """theta of the law whose irreducible loss is b: linear least squares on log(y - b)."""
    smallest = 1e-3 * max(float(np.ptp(y)), 1e-9)
    return np.linalg.lstsq(proportions, np.log(np.maximum(y - b, smallest)), rcond=None)[0]


def _fit_one(proportions: Array, y: Array, num_starts: int, huber_delta: float | None) -> Array:
    """(b, theta) [1 + G] for the losses y [N] of one group."""
    spread = max(float(np.ptp(y)), 1e-9)
    offsets = y.min() - spread * np.geomspace(1 / 64, 64, num_starts)
    ones = np.ones((len(y), 1))

    def jacobian(x: Array) -> Array:
        return np.hstack([ones, _exponential(proportions, x[1:])[:, None] * proportions])

    return best_fit(
        lambda x: x[0] + _exponential(proportions, x[1:]) - y,
        jacobian,
        [np.append(b, _start(proportions, y, b)) for b in offsets],
        huber_delta,
    )


def _fit_theta(proportions: Array, y: Array, b: float, huber_delta: float | None) -> Array:
    """theta [G] for the losses y [N] of one group whose irreducible loss is b."""
    return best_fit(
        lambda theta: b + _exponential(proportions, theta) - y,
        lambda theta: _exponential(proportions, theta)[:, None] * proportions,
        [_start(proportions, y, b)],
        huber_delta,
    )
