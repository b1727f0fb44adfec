"""The mixing matrix of a linear law: from measured loss drops to A, and A as the update uses it."""

import numpy as np


def solve_mixing_matrix(raw_A: np.ndarray, one_hot_factor: float, diagonal: bool = False) -> np.ndarray:
    """A from the mean loss drops of the perturbed mixtures: P A_i = beta_i for every row i.

    P[j, l] is the share of group l in the mixture centred on j: c0 off the diagonal, f on it, so
    A_ij = (beta_ij - c0 * sum_l beta_il) / (f - c0).

    Source: Chen et al. 2024, arXiv:2411.05735, Algorithm 2; the diagonal variant is the released code's.

    Args:
        raw_A: [G, G], beta: mean loss drop of group i over a segment centred on group j.
        one_hot_factor: f; not 1/G.
        diagonal: only diag(beta_ii / f), no solve. Ignored at f = 1, as in the released code.
    Returns: [G, G], loss drop per segment and unit of proportion.
    """
    num_groups = len(raw_A)
    if one_hot_factor == 1.0 or num_groups == 1:
        return raw_A.copy()
    if diagonal:
        return np.diag(np.diag(raw_A) / one_hot_factor)
    rest = (1.0 - one_hot_factor) / (num_groups - 1)
    return (raw_A - rest * raw_A.sum(axis=1, keepdims=True)) / (one_hot_factor - rest)


def normalized(A: np.ndarray) -> np.ndarray | None:
    """A shifted to be non-negative (only if an entry is negative) and divided by its sum.

    Returns: [G, G] with sum 1; None where nothing is left to divide by (A is constant, or zero).
    """
    smallest, total = A.min(), shifted_sum(A)
    shifted = A - smallest if smallest < 0 else A
    return None if total == 0 else shifted / total


def shifted_sum(A: np.ndarray) -> float:
    """What `normalized` divides by."""
    smallest = A.min()
    return float((A - smallest if smallest < 0 else A).sum())
