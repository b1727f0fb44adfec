"""LearnParams (Algorithm 2): the perturbed mixtures, their order, and from measured loss drops to A.

Each of `num_sweeps` sweeps trains a short segment on every perturbed mixture. With the loss drops beta of the
segments and the mixtures P, the mixing matrix A solves P A_k = beta_k for every target k (in the paper, for
every group).

Source: Chen et al. 2024, arXiv:2411.05735, Algorithm 2.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from titan_aioli.methods.checks import require_choice, require_count
from titan_aioli.proportions import centred_on, pulled

Order = Literal["per_sweep", "shuffled"]
Mixtures = Literal["one_hot", "centred", "opposite"]
MOST_SEGMENTS = 16_000
"""Largest number of segments of one LearnParams."""


def check_learn_params(
    num_groups: int,
    num_sweeps: int,
    steps_per_mixture: int,
    one_hot_factor: float,
    diagonal: bool,
    order: Order,
    orders: Sequence[Sequence[int]] | None,
    mixtures: Mixtures,
) -> None:
    """Refuse hyperparameters of LearnParams that make no sense for this number of groups.

    Args: see `Aioli`.
    Raises: ValueError: which, its value, what is allowed.
    """
    require_count("aioli.num_sweeps", num_sweeps)
    require_count("aioli.steps_per_mixture", steps_per_mixture)
    require_choice("aioli.order", order, get_args(Order))
    require_choice("aioli.mixtures", mixtures, get_args(Mixtures))
    if num_groups > 1 and not 1.0 / num_groups < one_hot_factor <= 1.0:
        raise ValueError(
            f"aioli.one_hot_factor is {one_hot_factor}: with {num_groups} groups it must be above "
            f"1/{num_groups} = {1.0 / num_groups:.4g} and at most 1. At 1/{num_groups} every perturbed "
            "mixture is uniform and A cannot be solved for; below it the swept group is trained on least"
        )
    if diagonal and one_hot_factor == 1.0:
        warnings.warn("aioli.diagonal does nothing at one_hot_factor 1: the full A is used", stacklevel=3)
    count = count_mixtures(mixtures, num_groups)
    if num_sweeps * count > MOST_SEGMENTS:
        raise ValueError(
            f"aioli.num_sweeps is {num_sweeps}: with {count} mixtures it must be at most "
            f"{MOST_SEGMENTS // count}"
        )
    expected = sorted(list(range(count)) * num_sweeps)
    for round_, swept in enumerate(orders or ()):
        if sorted(swept) != expected:
            raise ValueError(
                f"aioli.orders[{round_}] is {list(swept)}: it must name each of the groups 0 to "
                f"{count - 1} exactly num_sweeps = {num_sweeps} times"
            )


def count_mixtures(mixtures: str, num_groups: int) -> int:
    """Number of perturbed mixtures in one sweep."""
    return 2 * num_groups if mixtures == "opposite" else num_groups


@lru_cache(maxsize=1)  # every segment of a round asks for it
def draw_sweep_order(
    num_mixtures: int, num_sweeps: int, order: str, seed: int, round_: int
) -> tuple[int, ...]:
    """The swept mixture of every segment of a round: a function of (seed, round).

    Args:
        num_mixtures: of one sweep, as of `count_mixtures`.
        num_sweeps: sweeps of the round.
        order: `per_sweep`: a permutation per sweep; `shuffled`: one over all sweeps.
        seed: seed of the run.
        round_: number of the round, from 0.
    """
    rng = np.random.default_rng((seed, round_))
    if order == "shuffled":
        return tuple(rng.permutation(np.tile(np.arange(num_mixtures), num_sweeps)).tolist())
    return tuple(swept for _ in range(num_sweeps) for swept in rng.permutation(num_mixtures).tolist())


def perturbed_mixture(
    mixtures: str, swept: int, proportions: np.ndarray, one_hot_factor: float
) -> np.ndarray:
    """The mixture of one segment, [G].

    Args:
        mixtures: `one_hot`: around uniform (the paper); `centred` on the proportions; `opposite`: the same,
            towards and away from each group.
        swept: mixture j < G is centred on group j, or leads towards it; G + j leads away from it.
        proportions: [G], those of the round.
        one_hot_factor: share of the swept group where the others are even.
    """
    num_groups = len(proportions)
    if mixtures == "one_hot" or num_groups == 1:
        return centred_on(swept % num_groups, num_groups, one_hot_factor)
    strength = (one_hot_factor - 1 / num_groups) / (1 - 1 / num_groups)
    return pulled(proportions, swept, strength, in_pairs=mixtures == "opposite")


def solve_mixing_matrix(raw_A: np.ndarray, one_hot_factor: float, diagonal: bool = False) -> np.ndarray:
    """A from the mean loss drops of the perturbed mixtures: P A_k = beta_k for every row k.

    P[j, l] is the share of group l in the mixture centred on j: c0 off the diagonal, f on it, so
    A_kj = (beta_kj - c0 * sum_l beta_kl) / (f - c0).

    Source: Chen et al. 2024, arXiv:2411.05735, Algorithm 2; the diagonal variant is the released code's.

    Args:
        raw_A: [K, G], beta: mean loss drop of target k over a segment centred on group j.
        one_hot_factor: f; not 1/G.
        diagonal: only diag(beta_ii / f), no solve; K = G. Ignored at f = 1, as in the released code.
    Returns: [K, G], loss drop per segment and unit of proportion.
    """
    num_groups = raw_A.shape[1]
    if one_hot_factor == 1.0 or num_groups == 1:
        return raw_A.copy()
    if diagonal:
        return np.diag(np.diag(raw_A) / one_hot_factor)
    rest = (1.0 - one_hot_factor) / (num_groups - 1)
    return (raw_A - rest * raw_A.sum(axis=1, keepdims=True)) / (one_hot_factor - rest)


def normalized(A: np.ndarray) -> np.ndarray | None:
    """A shifted to be non-negative (only if an entry is negative) and divided by its sum.

    Returns: [K, G] with sum 1; None where nothing is left to divide by (A is constant, or zero).
    """
    smallest, total = A.min(), shifted_sum(A)
    shifted = A - smallest if smallest < 0 else A
    return None if total == 0 else shifted / total


def shifted_sum(A: np.ndarray) -> float:
    """What `normalized` divides by; 0 where a shift leaves nothing but rounding."""
    smallest = A.min()
    if smallest < 0 and np.ptp(A) <= 1e-12 * -smallest:
        return 0.0
    return float((A - smallest if smallest < 0 else A).sum())
