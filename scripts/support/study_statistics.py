"""What the seeds say: differences to stratified, their spread and interval, and whether more would decide."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from .study_settings import StopRule

CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """An arm against stratified, over n seeds that both have; nats per token."""

    differences: np.ndarray
    """[n], of the losses with the same seed: below 0 is better than stratified."""
    unpaired_sd: float
    """What the standard deviation of the differences would be if the seeds were not paired; nan for n = 1."""

    @property
    def mean(self) -> float:
        return float(self.differences.mean())

    @property
    def paired_sd(self) -> float:
        """Standard deviation of the differences; nan for n = 1."""
        return float(self.differences.std(ddof=1)) if len(self.differences) > 1 else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return self.paired_sd / math.sqrt(len(self.differences))

    @property
    def half_width(self) -> float:
        """Half the width of the t interval of the mean, with n - 1 degrees of freedom; nan for n = 1."""
        n = len(self.differences)
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * self.standard_error if n > 1 else math.nan


def compare(losses: np.ndarray, base: np.ndarray) -> Comparison:
    """An arm's losses against stratified's.

    Args:
        losses, base: [n], of the same seeds in the same order.
    """
    n = len(losses)
    unpaired = math.sqrt(losses.var(ddof=1) + base.var(ddof=1)) if n > 1 else math.nan
    return Comparison(losses - base, unpaired)


def share_of_gap(arm: Comparison, oracle: Comparison, standard_errors: float) -> float | None:
    """How much of the oracle's gain on stratified an arm has; None where that gain cannot be told from 0."""
    if not oracle.mean < -standard_errors * oracle.standard_error:
        return None
    return arm.mean / oracle.mean


def advice(found: Comparison, rule: StopRule) -> str:
    """Whether more pairs of runs would tell the arm from stratified."""
    n, errors = len(found.differences), rule.standard_errors
    if n < rule.pairs:
        return f"{rule.pairs - n} more"
    if abs(found.mean) > errors * found.standard_error:
        return "decided"
    needed = math.ceil((errors * found.paired_sd / found.mean) ** 2) if found.mean else math.inf
    return f"{max(1, int(needed) - n)} more" if needed <= rule.most_pairs else "stop, undecided"
