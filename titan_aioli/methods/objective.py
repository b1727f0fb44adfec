"""What the proportions are for: held-out targets, how much each counts, and in which unit.

A method that looks at held-out losses gets those of K targets, in nats per token, and asks here how much the
row of each target counts (`row_weights`). What that depends on besides the config (how a target has improved,
what it was at the start of the round) is kept in a small array, the target memory, which the method carries
in its state. Where all targets count the same, the weights are exactly 1.0 and there is no memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from titan_aioli.methods.checks import require_choice, require_fields, require_number
from titan_aioli.proportions import normalize

Unit = Literal["nats", "bits_per_byte", "relative"]
Combine = Literal["mean", "worst"]

LOG_STRENGTH, LOWEST, ROUND_START = 0, 1, 2
"""Rows of the target memory: logarithm of what `worst` multiplies a weight by, lowest loss at the start of
any round, loss at the start of this round."""


@dataclass(frozen=True)
class Objective:
    """The weighted mean over the targets of their loss, in the unit of the config.

    Source: for `worst`, GRAPE, arXiv:2505.20380, with the relative improvement that a mixing law predicts,
    (A p)_k / L_k, or that a round measured (aioli_bayes), in place of the inner product of gradients. There
    the step of a weight is the improvement itself; here it is the improvement beyond the mean, over the mean
    of its size, since that of a mixing law has no scale of its own.
    """

    weights: Sequence[float] | None = None
    """[K], relative; 0: only watched. None: every target the same."""
    scales: Sequence[float] | None = None
    """[K], the unit's value of one nat per token, such as tokens per byte over ln 2. None: 1."""
    tolerances: Sequence[float | None] | None = None
    """[K], nats per token by which a guard may be above its lowest loss before it counts; None: no guard, but
    a target that is rewarded."""
    relative: bool = False
    """Count each loss relative to what it was at the start of the round."""
    combine: Combine = "mean"
    """`mean`: by the weights. `worst`: targets that improve least gain weight."""
    worst_eta: float = 0.5
    """With `worst`: step size of the weights' logarithms at each round."""
    worst_pull: float = 0.2
    """With `worst`: share of the way back to the given weights at each round."""

    def check(self, num_targets: int) -> None:
        """Refuse what does not fit this many targets.

        Raises: ValueError: names the key, its value and what is allowed.
        """
        for name in ("weights", "scales", "tolerances"):
            values = getattr(self, name)
            if values is not None and len(values) != num_targets:
                raise ValueError(f"objective.{name} has {len(values)} numbers for {num_targets} targets")
        weights = self._given(num_targets)
        normalize(weights, "objective.weights")
        if not (weights[~self._is_guard(num_targets)] > 0).any():
            raise ValueError(
                f"objective.weights is {weights.tolist()}: at least one target that is no guard needs a "
                "weight above 0"
            )
        for scale in self.scales or ():
            require_number("objective.scales", scale, above=0, what="the unit's value of a nat per token")
        for tolerance in self.tolerances or ():
            if tolerance is not None:
                require_number("objective.tolerances", tolerance, at_least=0, what="a guard's tolerance")
        require_choice("objective.combine", self.combine, get_args(Combine))
        require_number("objective.worst_eta", self.worst_eta, above=0, what="the step size")
        require_number("objective.worst_pull", self.worst_pull, at_least=0, at_most=1)

    def start(self, num_targets: int) -> np.ndarray:
        """The target memory before the first evaluation: [3, K], or [3, 0] where nothing is to be kept."""
        if not (self.relative or self.combine == "worst" or self._is_guard(num_targets).any()):
            return np.zeros((3, 0))
        memory = np.full((3, num_targets), np.nan)
        memory[LOG_STRENGTH] = 0.0
        return memory

    def begin_round(self, memory: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """The memory after the evaluation that begins a round; losses [K] that are not finite are ignored."""
        if memory.size == 0:
            return memory
        memory, is_finite = memory.copy(), np.isfinite(losses)
        memory[ROUND_START] = np.where(is_finite, losses, memory[ROUND_START])
        memory[LOWEST] = np.fmin(memory[LOWEST], memory[ROUND_START])
        return memory

    def strengthen(self, memory: np.ndarray, drop: np.ndarray) -> np.ndarray:
        """With `worst`: the memory after a law has predicted, or a round shown, how each target improves.

        Args:
            memory: of the round of that drop.
            drop: [K], A p of the proportions before the update, in any unit of time; or what was measured.
        """
        if self.combine != "worst":
            return memory
        counts = self.shares(len(drop)) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            improvement = (drop / memory[ROUND_START])[counts]
            beyond_mean = (improvement - improvement.mean()) / np.abs(improvement).mean()
        if not np.isfinite(beyond_mean).all():
            return memory
        memory = memory.copy()
        pulled = (1 - self.worst_pull) * memory[LOG_STRENGTH, counts]
        memory[LOG_STRENGTH, counts] = pulled - self.worst_eta * beyond_mean
        return memory

    def row_weights(self, memory: np.ndarray, num_targets: int) -> np.ndarray:
        """[K], what the row of each target is multiplied by: exactly 1.0 where all count the same.

        The mean is 1 over the targets that are rewarded, before the unit is applied. 0 for a target that is
        only watched, and for a guard that is not above its tolerance.
        """
        weights, is_rewarded = self._of_mean_one(num_targets), self.shares(num_targets) > 0
        if memory.size == 0:
            return np.where(is_rewarded, weights * self._scales(num_targets), 0.0)
        if self.combine == "worst":
            strength = np.exp(memory[LOG_STRENGTH] - memory[LOG_STRENGTH].max())
            mean = (weights * strength)[is_rewarded].sum() / weights[is_rewarded].sum()
            weights = np.where(is_rewarded, weights * strength / mean, weights)
        if self.relative:
            with np.errstate(invalid="ignore", divide="ignore"):
                weights = weights / memory[ROUND_START]
        counts = is_rewarded | (self._is_guard(num_targets) & self._is_worse(memory))
        return np.where(counts, weights * self._scales(num_targets), 0.0)

    def value(self, losses: np.ndarray) -> float:
        """The objective at these losses [K] (nats per token): the mean by the weights, in its unit.

        Guards and watched targets are left out. In the unit `relative` it is the geometric mean, nats per
        token, whose gradient is the mean of the relative changes.
        """
        shares = self.shares(len(losses))
        counts = shares > 0
        if self.relative:
            with np.errstate(invalid="ignore", divide="ignore"):
                return float(np.exp(shares[counts] @ np.log(losses[counts])))
        return float(shares[counts] @ (losses * self._scales(len(losses)))[counts])

    def gradient(self, losses: np.ndarray) -> np.ndarray:
        """[K], change of the value per nat per token of each loss [K]; 0 for guards and watched targets."""
        shares = self.shares(len(losses))
        if not self.relative:
            return shares * self._scales(len(losses))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(shares > 0, self.value(losses) * shares / losses, 0.0)

    def counts_as(self, other: "Objective", num_targets: int) -> bool:
        """Whether equal losses have the same value in both."""
        same_shares = np.allclose(self.shares(num_targets), other.shares(num_targets))
        same_scales = np.allclose(self._scales(num_targets), other._scales(num_targets))
        return self.relative == other.relative and same_shares and same_scales

    def shares(self, num_targets: int) -> np.ndarray:
        """[K], share of each rewarded target in the objective, sum 1; 0 for guards and watched targets."""
        rewarded = np.where(self._is_guard(num_targets), 0.0, self._given(num_targets))
        return normalize(rewarded, "objective.weights")

    def only_watched(self, num_targets: int) -> np.ndarray:
        """[K] bool, targets of weight 0, whose losses never matter. A quiet guard is none of them: where its
        loss is not finite, nobody knows whether it is within its tolerance."""
        return self._given(num_targets) == 0

    def _of_mean_one(self, num_targets: int) -> np.ndarray:
        """[K], the given weights over the mean of those that are rewarded; equal ones become exactly 1.0."""
        given = self._given(num_targets)
        rewarded = given[self.shares(num_targets) > 0]
        return given / (rewarded[0] if (rewarded == rewarded[0]).all() else rewarded.mean())

    def _given(self, num_targets: int) -> np.ndarray:
        return np.ones(num_targets) if self.weights is None else np.array(self.weights, dtype=np.float64)

    def _scales(self, num_targets: int) -> np.ndarray:
        return np.ones(num_targets) if self.scales is None else np.array(self.scales, dtype=np.float64)

    def _is_guard(self, num_targets: int) -> np.ndarray:
        if self.tolerances is None:
            return np.zeros(num_targets, dtype=bool)
        return np.array([most is not None for most in self.tolerances])

    def _is_worse(self, memory: np.ndarray) -> np.ndarray:
        """[K] bool: the loss at the start of this round is above the lowest by more than the tolerance."""
        if self.tolerances is None:
            return np.zeros(memory.shape[1], dtype=bool)
        tolerances = np.array([np.inf if most is None else most for most in self.tolerances])
        return memory[ROUND_START] - memory[LOWEST] > tolerances


def to_objective(value: Objective | Mapping[str, Any] | None) -> Objective:
    """The objective from its fields, as a run's mixture.json keeps them; None: equal weights."""
    if isinstance(value, Objective):
        return value
    require_fields("objective", Objective, value or {})
    return Objective(**(value or {}))
