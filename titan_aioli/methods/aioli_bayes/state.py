"""All that aioli_bayes knows between two stretches."""

from typing import NamedTuple

import numpy as np

START, RUNNING, ON_ANCHOR, ON_PROPORTIONS = 0, 1, 2, 3
LEARNED, LEFT_OUT = 0, 1


class AioliBayesState(NamedTuple):
    """All that the method knows between two stretches, of G groups, K targets and M opinions."""

    round: int
    """Passes over the groups: G stretches each."""
    stage: int
    """START (before the first evaluation), RUNNING, or one of the two halves of a comparison."""
    stretch: int
    """Stretches done, those of comparisons counted."""
    compared: int
    """Stretches of comparisons done."""
    losses: np.ndarray
    """[K], held-out losses at the last evaluation, nats per token."""
    proportions: np.ndarray
    """[G], p, around which stretches are perturbed."""
    origin: np.ndarray
    """[G], the proportions at which the slopes below hold: p before the last update."""
    exposure: np.ndarray
    """[G], r: the mixture that the model has lately seen."""
    mean: np.ndarray
    cov: np.ndarray
    freedom: np.ndarray
    noise: np.ndarray
    log_evidence: np.ndarray
    """These five: what the opinions have learned, see law.Opinions."""
    last_drop: float
    """What the objective lost in the last stretch before looking began, then in the first half of the last
    comparison, nats; nan before the first."""
    first_unit: float
    """Standard deviation of the noise of a stretch, from those before looking began, nats; 0: unknown."""
    unit: float
    """Running standard deviation of the noise of a stretch, nats; 0 before the first stretch."""
    round_drops: np.ndarray
    """[K], loss drops since the round began."""
    worth: np.ndarray
    """[2], what p is worth beyond the anchor as the law says, in the unit and per stretch, and its error."""
    measured_gain: np.ndarray
    """[2], the gain over the anchor as comparisons show it, nats, and its error: infinite without one."""
    note: int
    """LEARNED, or LEFT_OUT: what the last stretch showed is not finite, or too large to compute with."""
    bad: np.ndarray
    """[K] bool, targets whose last drop was not finite."""
    target_memory: np.ndarray
    """[3, K], what the weights of the targets depend on (objective.py); [3, 0] if on the config alone."""
