"""Loss curves of bounded size, and the power law L(n) = epsilon + beta n^-alpha through them.

Source: the law is that of Jiang et al. 2024, arXiv:2410.11820; how it is fitted is our own.
"""

from typing import NamedTuple

import numpy as np

ALPHAS = np.linspace(0.05, 0.8, 31)
"""Exponents tried: the released code of arXiv:2410.11820 keeps alpha within 0.05 and 0.8 too."""


class LossCurve(NamedTuple):
    """Losses of G groups against time, in at most H bins of equal length."""

    updates_per_bin: int
    bin_updates: np.ndarray
    """[H, 2], number of updates in each bin, and the sum of their t."""
    bin_losses: np.ndarray
    """[H, 2, G], number of losses in each bin, and their sum (nats per token)."""


def add_point(curve: LossCurve, t: int, losses: np.ndarray) -> LossCurve:
    """The curve with one more update; when the bins are full, neighbours merge and bins grow twice as long.

    Args:
        t: number of the update.
        losses: [G], nan where a group had no token.
    """
    updates_per_bin, bin_updates, bin_losses = curve
    last = int(np.count_nonzero(bin_updates[:, 0])) - 1
    full = last < 0 or bin_updates[last, 0] >= updates_per_bin
    if full and last + 1 == len(bin_updates):
        updates_per_bin *= 2
        half = len(bin_updates) // 2
        pairs = [bins.reshape(half, 2, *bins.shape[1:]).sum(axis=1) for bins in (bin_updates, bin_losses)]
        bin_updates, bin_losses = (np.concatenate([pair, np.zeros_like(pair)]) for pair in pairs)
        last = half - 1
    else:
        bin_updates, bin_losses = bin_updates.copy(), bin_losses.copy()
    present = ~np.isnan(losses)
    bin_updates[last + full] += 1.0, t
    bin_losses[last + full] += present, np.where(present, losses, 0.0)
    return LossCurve(updates_per_bin, bin_updates, bin_losses)


def fit_power_law(curve: LossCurve) -> np.ndarray:
    """epsilon, beta, alpha of every group by weighted least squares, with epsilon and beta not negative.

    For each alpha of a grid the law is linear in epsilon and beta, so both have a closed form; the alpha with
    the smallest residual is kept.

    Returns: [3, G]; nan for a group that is in fewer than 3 bins.
    Cost: three matrix products of [len(ALPHAS), H] with [H, G].
    """
    used = curve.bin_updates[:, 0] > 0
    n = curve.bin_updates[used, 1] / curve.bin_updates[used, 0]
    w, sums = curve.bin_losses[used, 0], curve.bin_losses[used, 1]
    L = np.where(w > 0, sums / np.maximum(w, 1.0), 0.0)
    total = np.maximum(w.sum(axis=0), 1.0)
    x = n ** -ALPHAS[:, None] / n[0] ** -ALPHAS[:, None] if len(n) else np.zeros((len(ALPHAS), 0))
    L_mean, x_mean = (w * L).sum(axis=0) / total, x @ w / total
    L_spread = L - L_mean
    L_var, x_var = (w * L_spread**2).sum(axis=0) / total, x**2 @ w / total - x_mean**2
    covariance = x @ (w * L_spread) / total
    beta = np.maximum(covariance / np.maximum(x_var, 1e-300), 0.0)
    through_zero = (covariance + x_mean * L_mean) / np.maximum(x_var + x_mean**2, 1e-300)
    beta = np.where(L_mean - beta * x_mean < 0, np.maximum(through_zero, 0.0), beta)
    epsilon = np.maximum(L_mean - beta * x_mean, 0.0)
    residual = L_var - 2 * beta * covariance + beta**2 * x_var + (L_mean - epsilon - beta * x_mean) ** 2
    best = np.argmin(residual, axis=0)
    groups = np.arange(len(total))
    alpha = ALPHAS[best]
    scale = n[0] ** alpha if len(n) else 1.0
    law = np.stack([epsilon[best, groups], beta[best, groups] * scale, alpha])
    return np.where((w > 0).sum(axis=0) >= 3, law, np.nan)
