"""A linear regression of loss drops on the mixtures that were trained, and how sure it is.

Every segment of LearnParams gives one observation: the mixture p [G] and the drop of every target's held-out
loss [K]. Differences between the columns of A are its slopes. The level of the drops and its linear trend
over the segments of a round (losses fall more slowly as training continues) are taken out first, so that they
count neither as signal nor as noise. What is left of the drops says how large the noise of a segment is, and
so the standard error of each column sum of A, which is what the proportions follow.

Sums of products are kept, not the observations: their size depends on the numbers of groups and targets
alone.
"""

import numpy as np


def empty_evidence(num_groups: int, num_targets: int) -> np.ndarray:
    """Sums of products [G + K + 2, G + K + 2] of (1, place in the round, mixture, drops) over no segment."""
    size = num_groups + num_targets + 2
    return np.zeros((size, size))


def add_segment(evidence: np.ndarray, place: int, mixture: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """The evidence with one more segment.

    Args:
        evidence: as of `empty_evidence`.
        place: number of the segment in its round.
        mixture: [G], what was trained on.
        drops: [K], loss before minus loss after, nats per token.
    """
    segment = np.concatenate([[1.0, place], mixture, drops])
    return evidence + np.outer(segment, segment)


def without_trend(evidence: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums of products [G + K, G + K] of what mixtures and drops are beyond their mean and linear trend.

    Returns: those, and their degrees of freedom: the segments less 2; zeros where there are 2 or fewer.
    """
    num_segments = evidence[0, 0]
    if not num_segments > 2:
        return np.zeros_like(evidence[2:, 2:]), 0.0
    shared = np.linalg.solve(evidence[:2, :2], evidence[:2, 2:])
    return evidence[2:, 2:] - evidence[2:, :2] @ shared, num_segments - 2


def spread(products: np.ndarray, freedom: float, counts: np.ndarray) -> float:
    """Root mean square of the drops in sums of products [G + K, G + K], nats per token; 1 where they are 0.

    Only those of the targets [K] bool that count.

    Drops and their noise shrink by an order of magnitude during training. Rounds are pooled in units of their
    own spread, so that the first does not dominate the sum.
    """
    squares = np.diag(products)[-len(counts) :][counts]
    total = squares.sum()
    return float(np.sqrt(total / (freedom * len(squares)))) if total > 0 else 1.0


def scaled(products: np.ndarray, factor: float | np.ndarray, num_groups: int) -> np.ndarray:
    """The sums of products [G + K, G + K] with every drop times a factor, or times one [K] of its own."""
    factors = np.ones(len(products))
    factors[num_groups:] = factor
    return products * np.outer(factors, factors)


def level(evidence: np.ndarray) -> np.ndarray:
    """[G + K], mean mixture and mean drops of the segments."""
    return evidence[0, 2:] / evidence[0, 0]


def training_observation(
    trained: np.ndarray,
    levels: tuple[np.ndarray, np.ndarray],
    unit: float,
    num_segments: float,
    num_learned: float,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """A training phase as one more observation, beyond the level of the LearnParams before and after it.

    Its drop also contains the general decline of the losses, which is measured before and after it but not
    during it. The mean of an exponential curve between those two levels is subtracted, and the result is
    divided by the standard deviation of that guess: gap^2 / 12, plus the noise of one LearnParams (not of the
    mean of two: neighbouring phases share one).

    Args:
        trained: [G + K], mixture and drops per segment.
        levels: [G + K] before and after, as of `level`.
        unit: as of `spread`.
        num_segments: length of the phase, in segments.
        num_learned: number of segments of the LearnParams before, and of the one after.
        counts: [K] bool, targets that count. None: all, as many as groups.
    Returns: [G + K], mixture and drops that count like one segment of LearnParams.
    """
    before, after = levels
    counts = np.ones(len(trained) // 2, dtype=bool) if counts is None else counts
    gap = (after - before)[-len(counts) :][counts]
    variance = 1 / num_segments + 1 / num_learned + np.mean((gap / unit) ** 2) / 12
    return (trained - _mean_between(before, after)) / np.sqrt(variance)


def _mean_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mean of an exponential curve from the one to the other; the middle where one is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (after - before) / np.log(after / before)
    by_factors = (before > 0) & (after > 0) & ~np.isclose(before, after)
    return np.where(by_factors, mean, (before + after) / 2)


def slopes(products: np.ndarray, freedom: float, num_groups: int) -> np.ndarray:
    """The regression of drops on mixtures; slopes [K, G] sum to zero in each row (only differences show).

    Args:
        products: as of `without_trend`, of one round or of several.
        freedom: degrees of freedom in them.
        num_groups: G.
    Returns: slope of the drop of target k on the share of group j [k, j]; nan where there are too few
        segments to tell.
    """
    if not _can_tell(products, freedom, num_groups):
        return np.full((len(products) - num_groups, num_groups), np.nan)
    return (_inverse(products, num_groups) @ products[:num_groups, num_groups:]).T


def column_sum_errors(products: np.ndarray, freedom: float, weighted_slopes: np.ndarray) -> np.ndarray:
    """Standard error [G] of each column sum of the slopes; nan where there are too few segments to tell.

    Args:
        products: as given to `slopes`, each drop times the weight of its target.
        freedom: degrees of freedom in them.
        weighted_slopes: [K, G], the slopes, each row times the weight of its target.
    """
    num_groups = weighted_slopes.shape[1]
    if not _can_tell(products, freedom, num_groups):
        return np.full(num_groups, np.nan)
    sums = weighted_slopes.sum(axis=0)
    unexplained = products[num_groups:, num_groups:].sum() - sums @ products[:num_groups, num_groups:].sum(1)
    left = freedom - (num_groups - 1)
    return np.sqrt(max(unexplained, 0.0) / left * np.diag(_inverse(products, num_groups)))


def _can_tell(products: np.ndarray, freedom: float, num_groups: int) -> bool:
    return freedom - (num_groups - 1) > 0 and bool(np.isfinite(products).all())


def _inverse(products: np.ndarray, num_groups: int) -> np.ndarray:
    return np.linalg.pinv(products[:num_groups, :num_groups], rcond=1e-9, hermitian=True)


def add_level(found: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """A [K, G] with these slopes and the round's mean drops: loss drop per segment and unit of proportion."""
    num_groups = found.shape[1]
    mean = level(evidence)
    return found + (mean[num_groups:] - found @ mean[:num_groups])[:, None]


def certainty(sums: np.ndarray, stderr: np.ndarray) -> float:
    """How much of the spread of the column sums is more than their errors would give, in [0, 1].

    Source: the shrinkage factor of James and Stein (1961), positive part, without their correction for few
    groups; 0 where the errors are not known.
    """
    spread = float(np.mean((sums - sums.mean()) ** 2))
    noise = float(np.mean(stderr**2))
    return 0.0 if not spread > 0 or not np.isfinite(noise) else max(0.0, 1.0 - noise / spread)
