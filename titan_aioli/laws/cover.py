"""Mixtures to try: points that cover the simplex evenly, for a grid search or for fitting a law."""

import numpy as np
from scipy.spatial.distance import cdist

Array = np.ndarray
GONE = -1
"""Place of a point that was merged into another."""


def dirichlet_cover(
    num_groups: int, num_points: int, alpha: float = 1.0, oversample: int = 4, seed: int = 0
) -> Array:
    """Mixtures spread evenly over the simplex, [num_points, num_groups].

    Draws num_points * 2 ** oversample points from a Dirichlet distribution and merges the closest until
    num_points remain.

    Source: the grid search of Chen et al. 2024, arXiv:2411.05735; equal to the released files at alpha 1 (3
    groups) and 1.5 (9 groups), oversample 4. Uses numpy's legacy generator, as they do.

    Args:
        alpha: of the symmetric Dirichlet distribution; above 1 keeps away from the corners.
        oversample: doublings of the number of points drawn; 0 is a plain sample.
    Raises: ValueError: there are no groups or points, or alpha is too small or large for floats.
    Cost: num_points ** 2 * 4 ** oversample numbers of memory, read once or twice.
    """
    for name, value in (("num_groups", num_groups), ("num_points", num_points)):
        if value < 1:
            raise ValueError(f"{name} is {value}: a cover needs at least 1")
    generator = np.random.RandomState(seed)
    drawn = generator.dirichlet([alpha] * num_groups, num_points * 2**oversample)
    if not np.isclose(drawn.sum(axis=1), 1).all():
        raise ValueError(
            f"alpha is {alpha:g}, too far from 1: some shares drawn with it are no numbers: set 0.05 to 1e6"
        )
    return merge_closest(drawn, num_points)


def merge_closest(points: Array, num_points: int) -> Array:
    """Replace the two closest points by their midpoint, put last, until `num_points` remain.

    Args:
        points: [N, G].
    Returns: [num_points, G].
    """
    points = np.array(points, dtype=np.float64)
    distance = cdist(points, points)
    np.fill_diagonal(distance, np.inf)
    nearest, place = distance.min(axis=1), np.arange(len(points))
    for last in range(len(points), 2 * len(points) - max(num_points, 1)):
        first = int(np.argmin(nearest))
        second = int(np.argmin(distance[first]))  # the midpoint takes the row of the first
        points[first] = points[[first, second]].mean(axis=0)
        has_lost = (np.minimum(distance[first], distance[second]) == nearest) & (place != GONE)
        place[first], place[second] = last, GONE
        row = np.linalg.norm(points - points[first], axis=1)
        row[(place == GONE) | (place == last)] = np.inf
        distance[second] = distance[:, second] = np.inf
        distance[first] = distance[:, first] = row
        nearest = np.minimum(nearest, row)
        has_lost[[first, second]] = True
        nearest[has_lost] = distance[has_lost].min(axis=1)
    return points[np.argsort(place)[np.sum(place == GONE) :]]
