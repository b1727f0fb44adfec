"""Adaptive Data Optimization: more of the groups whose loss a scaling law expects to fall fastest.

The loss curve of every group is kept in a fixed number of bins, which merge in pairs when they are full, and
the law is fitted to the bins by a grid over its exponent and a closed form for the rest. So neither the state
nor the cost of an update grows with the run: a few milliseconds for a hundred groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.checks import require_count, require_number, require_weights
from titan_aioli.methods.faults import report_skipped, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import bounded, normalize, normalize_or_uniform

ALPHAS = np.linspace(0.05, 0.8, 31)
"""Exponents tried for alpha, which the released code of arXiv:2410.11820 keeps within 0.05 and 0.8 too."""


class ADOState(NamedTuple):
    """All that ADO knows between two phases; H bins."""

    round: int
    """t, updates so far."""
    proportions: np.ndarray
    """[G], the policy pi."""
    average: np.ndarray
    """[G], mean of the policy so far (pi-bar)."""
    credit: np.ndarray
    """[G], h: moving average of the policy."""
    law: np.ndarray
    """[3, G], epsilon (nats), beta (nats), alpha of the last fit; nan where there was none."""
    updates_per_bin: int
    bin_updates: np.ndarray
    """[H, 2], number of updates in each bin, and the sum of their t."""
    bin_losses: np.ndarray
    """[H, 2, G], number of losses in each bin, and their sum."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class ADO:
    """pi from a prior, the slope of each group's power law and the credit for having been trained on.

    Source: Jiang et al. 2024, arXiv:2410.11820, Algorithm 1. n, the data seen so far, is that of all groups
    together, as in the released code, and is counted in updates, which cancels. Departures: the fit (the
    paper: L-BFGS from a grid of starts on a Huber loss of log L, every 1000 steps; here least squares on L at
    every update); the least share holds for pi as well as for rho; the released code weights by
    sqrt(h (1 - h)) where the paper has h^s, and averages rho where the paper averages pi.
    """

    observes: ClassVar[str] = "train"

    prior: Sequence[float] | None = None
    """[G] weights mu, usually the sizes of the groups. None: uniform."""
    steps_per_update: int = 10
    """Optimizer steps over which the losses are averaged."""
    warmup_updates: int = 50
    """Updates trained on the prior, while the loss curves begin."""
    ignored_updates: int = 10  # below warmup_updates
    """Updates at the start whose losses are left out of the fit."""
    gamma1: float = 0.1
    """Weight of the newest proportions in the credit, in (0, 1]."""
    gamma2: float = 0.1  # the rest is on the mean of the proportions so far
    """Weight of the newest preference in the proportions, in (0, 1]."""
    s: float = 0.5
    """Exponent of the credit. 0: no credit assignment."""
    min_share: float = 0.01  # delta_min; at most half of 1 / G is used
    """Least share of a group."""
    num_bins: int = 64  # H
    """Points of each loss curve that are kept, an even number."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        if self.prior is not None:
            require_weights("ado.prior", self.prior, num_groups)
        require_count("ado.steps_per_update", self.steps_per_update)
        require_count("ado.ignored_updates", self.ignored_updates, smallest=0)
        least = self.ignored_updates + 3
        require_count(
            "ado.warmup_updates", self.warmup_updates, least, "3 points of a curve after ignored_updates"
        )
        require_number("ado.gamma1", self.gamma1, above=0, at_most=1)
        require_number("ado.gamma2", self.gamma2, above=0, at_most=1)
        require_number("ado.s", self.s, at_least=0)
        require_number("ado.min_share", self.min_share, at_least=0, at_most=1)
        require_count("ado.num_bins", self.num_bins, smallest=8)
        if self.num_bins % 2:
            raise ValueError(f"ado.num_bins is {self.num_bins}: bins merge in pairs, so it must be even")

    def init(self, num_groups: int, num_targets: int | None = None) -> ADOState:
        mu = self._mu(num_groups)
        return ADOState(
            round=0,
            proportions=mu,
            average=mu,
            credit=mu,
            law=np.full((3, num_groups), np.nan),
            updates_per_bin=1,
            bin_updates=np.zeros((self.num_bins, 2)),
            bin_losses=np.zeros((self.num_bins, 2, num_groups)),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: ADOState) -> Phase:
        return Phase(state.proportions.copy(), self.steps_per_update, "train")

    def update(self, state: ADOState, observation: np.ndarray | None) -> ADOState:
        assert observation is not None, "ado observes training losses"
        t = state.round + 1
        bad = unusable(observation, nan_is_absent=True)
        if bad.any():
            return state._replace(round=t, skipped=bad)
        curve = LossCurve(state.updates_per_bin, state.bin_updates, state.bin_losses)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if t > self.ignored_updates:
                curve = add_point(curve, t, observation)
            law = fit_power_law(curve) if t >= self.warmup_updates else state.law
            slopes = -law[2] * law[1] * float(t) ** (-law[2] - 1.0)  # dL/dn
        if np.isinf(curve.bin_losses).any() or np.isinf(slopes).any():
            bad = np.isinf(curve.bin_losses).any(axis=(0, 1)) | np.isinf(slopes)
            return state._replace(round=t, skipped=bad)
        state = state._replace(round=t, law=law, **curve._asdict(), skipped=bad)
        return self._update_policy(state, slopes) if t >= self.warmup_updates else state

    def report(self, state: ADOState) -> dict[str, np.ndarray | str]:
        learned = {} if np.isnan(state.law).all() else {"law": state.law}
        return learned | report_skipped(state.skipped)

    def metrics(self, state: ADOState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: ADOState) -> np.ndarray:
        return state.proportions

    def _update_policy(self, state: ADOState, slopes: np.ndarray) -> ADOState:
        """rho in proportion to mu h^s (-dL/dn), then pi = gamma2 rho + (1 - gamma2) pi-bar."""
        t, num_groups = state.round, len(slopes)
        known = np.isfinite(slopes)
        if not (slopes[known] < 0).any():  # no group learns any more, or none has been seen
            return state
        speed = -slopes / -slopes[known].min()
        speed = np.where(known, speed, speed[known].mean())  # a group never seen is taken for average
        preference = self._mu(num_groups) * state.credit**self.s * speed
        if preference.max() == 0:
            return state
        rho = normalize(preference)
        least = min(self.min_share, 0.5 / num_groups)
        pi = bounded(self.gamma2 * bounded(rho, least) + (1.0 - self.gamma2) * state.average, least)
        return state._replace(
            proportions=pi,
            average=state.average + (pi - state.average) / (t + 1),
            credit=self.gamma1 * pi + (1.0 - self.gamma1) * state.credit,
        )

    def _mu(self, num_groups: int) -> np.ndarray:
        return normalize_or_uniform(self.prior, num_groups, "ado.prior")


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
    the smallest residual is kept. The law is the paper's (Jiang et al. 2024); this fit of it is our own.

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
