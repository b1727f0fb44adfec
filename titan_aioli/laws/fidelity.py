"""How well a law fits, and how near a method's mixing matrix is to the true one."""

from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

Array = np.ndarray


def mse(observed: Array, predicted: Array) -> float:
    """Mean squared residual over all runs and groups, (nats per token) squared."""
    return float(np.mean((np.asarray(observed) - np.asarray(predicted)) ** 2))


def mse_by_group(observed: Array, predicted: Array) -> Array:
    """Mean squared residual of each group [M] over the runs of [N, M], (nats per token) squared."""
    return np.mean((observed - predicted) ** 2, axis=0)


def r2(observed: Array, predicted: Array) -> float:
    """1 - residual / total sum of squares over all runs and groups together; nan where nothing varies."""
    return float(_r2(np.asarray(observed, dtype=np.float64), predicted, axis=None))


def r2_by_group(observed: Array, predicted: Array) -> Array:
    """`r2` of each group [M] over the runs of [N, M]; nan where its loss does not vary."""
    return _r2(observed, predicted, axis=0)


def _r2(observed: Array, predicted: Array, axis: int | None) -> Array:
    residual = np.sum((observed - predicted) ** 2, axis=axis)
    total = np.sum((observed - observed.mean(axis=axis)) ** 2, axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, 1.0 - residual / total, np.nan)


class Similarity(NamedTuple):
    """How alike two mixing matrices move the proportions: 1 is the same direction and the same ranking."""

    cosine: float
    spearman: float

    @property
    def mean(self) -> float:
        """0.5 cosine + 0.5 spearman, in [-1, 1]."""
        return 0.5 * self.cosine + 0.5 * self.spearman


def similarity(A: Array, A_star: Array) -> Similarity:
    """Similarity of the column sums of A to those of the true A, averaged over seeds.

    Only the column sums enter the update of the proportions.

    Source: Chen et al. 2024, arXiv:2411.05735, section 5 (sim of A-tilde and A-star).

    Args:
        A: [G, G] or [seeds, G, G], rows = evaluated group.
        A_star: the same shape.
    Returns: nan in a part that is undefined (all column sums equal: no ranking; all zero: no direction).
    """
    x, y = (np.atleast_2d(np.asarray(matrix, dtype=np.float64).sum(axis=-2)) for matrix in (A, A_star))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.mean((x * y).sum(axis=1) / norms)
    ranked = [np.ptp(a) > 0 and np.ptp(b) > 0 for a, b in zip(x, y, strict=True)]
    spearman = [spearmanr(a, b)[0] if ok else np.nan for a, b, ok in zip(x, y, ranked, strict=True)]
    return Similarity(float(cosine), float(np.mean(np.asarray(spearman, dtype=np.float64))))
