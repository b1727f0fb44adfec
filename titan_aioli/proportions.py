"""Arithmetic on the simplex: the only place that normalises.

Proportions are float64 arrays of shape [G], non-negative, with sum 1: the share of each data group in
what is trained on. Everything here is plain numpy, allocates a few hundred bytes and changes no input.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray


def uniform(num_groups: int) -> Array:
    """The stratified mixture: 1 / num_groups for every group, [num_groups]."""
    if num_groups < 1:
        raise ValueError(f"a mixture needs at least one group, got num_groups = {num_groups}")
    return np.full(num_groups, 1.0 / num_groups)


def normalize(weights: ArrayLike, name: str = "weights") -> Array:
    """Weights divided by their sum.

    Args:
        weights: [G], finite and non-negative, not all zero.
        name: what to call them in an error.
    Returns: [G], on the simplex.
    Raises: ValueError: a weight is negative or not finite, or the sum is not positive.
    """
    weights = np.array(weights, dtype=np.float64)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"{name} must be a list of at least one number, got shape {weights.shape}")
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}[{index}] is {weights[index]}: every weight must be finite and >= 0")
    largest = weights.max()
    if largest <= 0:
        raise ValueError(f"{name} sum to {weights.sum()}: at least one weight must be positive")
    scaled = weights / largest  # so that huge or tiny weights neither overflow nor vanish
    return scaled / scaled.sum()


def normalize_or_uniform(weights: ArrayLike | None, num_groups: int, name: str = "weights") -> Array:
    """The weights [G] divided by their sum, see `normalize`; the uniform mixture where they are None."""
    return uniform(num_groups) if weights is None else normalize(weights, name)


def without(proportions: Array, left_out: Array) -> Array:
    """The proportions of the groups that stay, which share the rest in proportion; [G].

    Args:
        proportions: [G], on the simplex.
        left_out: [G] bool, groups that get 0; not all. If the others had no share, they get equal ones.
    """
    if not left_out.any():
        return proportions
    kept = np.where(left_out, 0.0, proportions)
    return normalize(kept if kept.any() else ~left_out, "proportions of the groups that are not used up")


def softmax(log_weights: Array) -> Array:
    """Proportions from log weights of any size, [G]. Stable: the largest is subtracted first."""
    with np.errstate(over="ignore"):  # a difference too large to hold is a share of 0
        weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum()


def centred_on(group: int, num_groups: int, one_hot_factor: float) -> Array:
    """The perturbed mixture of one LearnParams segment.

    Source: Chen et al. 2024, arXiv:2411.05735, Algorithm 2. The paper writes (1 - eps) 1_j + eps Unif(G),
    so one_hot_factor = 1 - eps + eps / G.

    Args:
        group: the swept group j.
        num_groups: G.
        one_hot_factor: share of group j; the others share the rest equally.
    Returns: [G], on the simplex.
    """
    if num_groups == 1:
        return np.ones(1)
    mixture = np.full(num_groups, (1.0 - one_hot_factor) / (num_groups - 1))
    mixture[group] = one_hot_factor
    return mixture


def pulled(proportions: Array, swept: int, strength: float, in_pairs: bool = False) -> Array:
    """Proportions moved towards one group: (1 - strength) p + strength 1_j.

    Args:
        proportions: [G], on the simplex.
        swept: the group j; G + j moves away from group j by as much instead.
        strength: in (0, 1].
        in_pairs: bound the strength by p_j / (1 - p_j), so that no share gets negative
            where it moves away from j.
    Returns: [G], on the simplex.
    """
    group = swept % len(proportions)
    if in_pairs:
        share = proportions[group]
        strength = min(strength, share / (1.0 - share)) if share < 1.0 else strength
    signed = strength if swept < len(proportions) else -strength
    mixture = (1.0 - signed) * proportions
    mixture[group] += signed
    mixture = np.maximum(mixture, 0.0)
    return mixture / mixture.sum()


def by_size(sizes: ArrayLike, temperature: float = 1.0, name: str = "sizes") -> Array:
    """Proportions from the sizes of the groups: size ** (1 / temperature), normalised.

    Args:
        sizes: [G], tokens of each group (any unit).
        temperature: 1 = proportional to size; above 1 flatter, towards uniform; below 1 sharper.
        name: what to call the sizes in an error.
    Returns: [G], on the simplex.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}: it must be a positive number")
    shares = normalize(sizes, name)
    if temperature == 1.0:
        return shares
    with np.errstate(divide="ignore"):
        return softmax(np.log(shares) / temperature)


def bounded(proportions: Array, least: ArrayLike = 0.0, most: ArrayLike = 1.0) -> Array:
    """The mixture within bounds that is closest in KL divergence: clip(c * p_j, least_j, most_j) for one c.

    Args:
        proportions: [G], on the simplex.
        least: [G] or a number, smallest shares; their sum is at most 1.
        most: [G] or a number, largest shares; their sum is at least 1.
    Returns: [G], on the simplex.
    Raises: ValueError: no mixture is within the bounds.
    """
    least, most = (
        np.broadcast_to(np.asarray(bound, np.float64), proportions.shape) for bound in (least, most)
    )
    if least.sum() > 1 + 1e-9 or most.sum() < 1 - 1e-9:
        raise ValueError(
            f"no mixture is within the bounds: least sums to {least.sum()}, most to {most.sum()}"
        )
    if most[proportions > 0].sum() < 1:  # groups at 0 must take a share: all of them alike
        proportions = np.maximum(proportions, 1e-300)
    held = np.clip(0.0, least, most)  # a group at 0 stays at its least share
    moves = proportions > 0
    p, low, high = proportions[moves], least[moves], most[moves]
    with np.errstate(over="ignore"):
        leaves, arrives = low / p, high / p  # c at which a share leaves its least, and arrives at its most
    bends = np.sort(np.concatenate([leaves, arrives]))  # between two of them the sum is linear in c
    others = 1.0 - held[~moves].sum()
    place = bisect_right(bends, others, key=lambda c: np.clip(c * p, low, high).sum())
    bend = bends[max(place - 1, 0)]
    free = (leaves <= bend) & (bend < arrives)
    shares = np.clip(bend * p, low, high)
    if free.any():  # what the groups at a bound leave goes to those that no bound holds
        shares[free] = p[free] * ((others - shares[~free].sum()) / p[free].sum())
    held[moves] = shares
    return held
