"""A linear regression of loss drops on the mixtures that were trained, and how sure it is.

Every segment of LearnParams gives one observation: the mixture p [G] and the drop of every group's held-out
loss [G]. Differences between the columns of A are its slopes. The level of the drops and its linear trend
over the segments of a round (losses fall more slowly as training continues) are taken out first, so that they
count neither as signal nor as noise. What is left of the drops says how large the noise of a segment is, and
so the standard error of each column sum of A, which is what the proportions follow.

Sums of products are kept, not the observations: their size depends on the number of groups alone.
"""

import numpy as np


def empty_evidence(num_groups: int) -> np.ndarray:
    """Sums of products [2 G + 2, 2 G + 2] of (1, place in the round, mixture, drops) over no segment."""
    return np.zeros((2 * num_groups + 2, 2 * num_groups + 2))


def add_segment(evidence: np.ndarray, place: int, mixture: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """The evidence with one more segment.

    Args:
        evidence: as of `empty_evidence`.
        place: number of the segment in its round.
        mixture: [G], what was trained on.
        drops: [G], loss before minus loss after, nats per token.
    """
    segment = np.concatenate([[1.0, place], mixture, drops])
    return evidence + np.outer(segment, segment)


def without_trend(evidence: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums of products [2 G, 2 G] of what mixtures and drops are beyond their mean and linear trend.

    Returns: those, and their degrees of freedom: the segments less 2; zeros where there are 2 or fewer.
    """
    num_segments = evidence[0, 0]
    if not num_segments > 2:
        return np.zeros_like(evidence[2:, 2:]), 0.0
    shared = np.linalg.solve(evidence[:2, :2], evidence[:2, 2:])
    return evidence[2:, 2:] - evidence[2:, :2] @ shared, num_segments - 2


def spread(products: np.ndarray, freedom: float) -> float:
    """Root mean square of the drops in sums of products [2 G, 2 G], nats per token; 1 where they are zero.

    Drops and their noise shrink by an order of magnitude during training. Rounds are pooled in units of their
    own spread, so that the first does not dominate the sum.
    """
    num_groups = len(products) // 2
    squares = np.trace(products[num_groups:, num_groups:])
    return float(np.sqrt(squares / (freedom * num_groups))) if squares > 0 else 1.0


def scaled(products: np.ndarray, factor: float) -> np.ndarray:
    """The sums of products [2 G, 2 G] with every drop times a factor."""
    factors = np.repeat([1.0, factor], len(products) // 2)
    return products * np.outer(factors, factors)


def level(evidence: np.ndarray) -> np.ndarray:
    """[2 G], mean mixture and mean drops of the segments."""
    return evidence[0, 2:] / evidence[0, 0]


def training_observation(
    trained: np.ndarray,
    levels: tuple[np.ndarray, np.ndarray],
    unit: float,
    num_segments: float,
    num_learned: float,
) -> np.ndarray:
    """A training phase as one more observation, beyond the level of the LearnParams before and after it.

    Its drop also contains the general decline of the losses, which is measured before and after it but not
    during it. The mean of an exponential curve between those two levels is subtracted, and the result is
    divided by the standard deviation of that guess: gap^2 / 12, plus the noise of one LearnParams (not of the
    mean of two: neighbouring phases share one).

    Args:
        trained: [2 G], mixture and drops per segment.
        levels: [2 G] before and after, as of `level`.
        unit: as of `spread`.
        num_segments: length of the phase, in segments.
        num_learned: number of segments of the LearnParams before, and of the one after.
    Returns: [2 G], mixture and drops that count like one segment of LearnParams.
    """
    before, after = levels
    gap = (after - before)[len(trained) // 2 :]
    variance = 1 / num_segments + 1 / num_learned + np.mean((gap / unit) ** 2) / 12
    return (trained - _mean_between(before, after)) / np.sqrt(variance)


def _mean_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mean of an exponential curve from the one to the other; the middle where one is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (after - before) / np.log(after / before)
    by_factors = (before > 0) & (after > 0) & ~np.isclose(before, after)
    return np.where(by_factors, mean, (before + after) / 2)


def slopes(products: np.ndarray, freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """The regression of drops on mixtures; slopes [G, G] sum to zero in each row (only differences show).

    Args:
        products: as of `without_trend`, of one round or of several.
        freedom: degrees of freedom in them.
    Returns: slope of the drop of group i on the share of group j [i, j], and the standard error [G] of each
        column sum; all nan where there are too few segments to tell.
    """
    num_groups = len(products) // 2
    left = freedom - (num_groups - 1)
    if not left > 0 or not np.isfinite(products).all():
        return np.full((num_groups, num_groups), np.nan), np.full(num_groups, np.nan)
    inverse = np.linalg.pinv(products[:num_groups, :num_groups], rcond=1e-9, hermitian=True)
    found = (inverse @ products[:num_groups, num_groups:]).T
    sums = found.sum(axis=0)
    unexplained = products[num_groups:, num_groups:].sum() - sums @ products[:num_groups, num_groups:].sum(1)
    return found, np.sqrt(max(unexplained, 0.0) / left * np.diag(inverse))


def add_level(found: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """A [G, G] with these slopes and the round's mean drops: loss drop per segment and unit of proportion."""
    num_groups = len(found)
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
