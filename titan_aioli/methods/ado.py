"""Adaptive Data Optimization: more of the groups whose loss a scaling law expects to fall fastest.

The loss curve of every group is kept in a fixed number of bins, which merge in pairs when they are full, and
the law is fitted to the bins by a grid over its exponent and a closed form for the rest. So neither the state
nor the cost of an update grows with the run: a few milliseconds for a hundred groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods import checks
from titan_aioli.methods.faults import skipped_note, unusable
from titan_aioli.methods.loss_curve import LossCurve, add_point, fit_power_law
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import bounded, normalize, uniform


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
    ignored_updates: int = 10
    """Updates at the start of the run whose losses are left out of the fit; below warmup_updates."""
    gamma1: float = 0.1
    """Weight of the newest policy in the credit h, in (0, 1]."""
    gamma2: float = 0.1
    """Weight of the newest preference rho in the policy, in (0, 1]; the rest is on the mean policy."""
    s: float = 0.5
    """Exponent of the credit, at least 0. 0: no credit assignment."""
    min_share: float = 0.01
    """delta_min, least share of a group; at most half of 1 / G is used."""
    num_bins: int = 64
    """H, an even number: points of a loss curve that are kept."""

    def check(self, num_groups: int) -> None:
        if self.prior is not None:
            checks.weights("ado.prior", self.prior, num_groups)
        checks.count("ado.steps_per_update", self.steps_per_update)
        checks.count("ado.ignored_updates", self.ignored_updates, smallest=0)
        least = self.ignored_updates + 3
        checks.count(
            "ado.warmup_updates", self.warmup_updates, least, "3 points of a curve after ignored_updates"
        )
        checks.number("ado.gamma1", self.gamma1, above=0, at_most=1)
        checks.number("ado.gamma2", self.gamma2, above=0, at_most=1)
        checks.number("ado.s", self.s, at_least=0)
        checks.number("ado.min_share", self.min_share, at_least=0, at_most=1)
        checks.count("ado.num_bins", self.num_bins, smallest=8)
        if self.num_bins % 2:
            raise ValueError(f"ado.num_bins is {self.num_bins}: bins merge in pairs, so it must be even")

    def init(self, num_groups: int) -> ADOState:
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
        learned: dict[str, np.ndarray | str] = {} if np.isnan(state.law).all() else {"law": state.law}
        return learned | ({"note": skipped_note(state.skipped)} if state.skipped.any() else {})

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
        return uniform(num_groups) if self.prior is None else normalize(self.prior, "ado.prior")
