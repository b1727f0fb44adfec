"""What Aioli knows between two phases: plain arrays, saved with every checkpoint."""

from typing import NamedTuple

import numpy as np

from titan_aioli.methods.aioli.regression import empty_evidence
from titan_aioli.proportions import uniform

START, LEARN_PARAMS, TRAIN = 0, 1, 2
MOVED, CONSTANT, NOT_FINITE, TOO_FEW = 0, 1, 2, 3


class AioliState(NamedTuple):
    """All that Aioli knows between two phases, of G groups and K targets (without targets: the groups).

    A[k, j] is the loss drop of target k by training on group j.
    """

    round: int
    stage: int
    """START (before the first evaluation), LEARN_PARAMS or TRAIN."""
    segment: int
    """Position in the round's list of swept groups."""
    losses: np.ndarray
    """[K], held-out losses at the last evaluation, nats per token."""
    drops: np.ndarray
    """[K, G], loss drops of this round, summed over the sweeps (beta * num_sweeps)."""
    raw_A: np.ndarray
    """[K, G], mean loss drop per segment of the last finished LearnParams (beta)."""
    solved_A: np.ndarray
    """[K, G], loss drop per segment and unit of proportion."""
    normalized_A: np.ndarray
    """[K, G], non-negative with sum 1 (with `normalize`)."""
    ema_A: np.ndarray
    """[K, G], what the update used: moving average of normalized_A with `ema`; nan before the first round."""
    log_weights: np.ndarray
    """[G], logarithm of the weights before normalisation."""
    proportions: np.ndarray
    """[G], what the training phase uses."""
    predicted_drop: np.ndarray
    """[K], loss drop that solved_A predicted for the last training phase."""
    measured_drop: np.ndarray
    """[K], loss drop measured over that phase."""
    evidence: np.ndarray
    """[G + K + 2, G + K + 2], sums of products over the segments of this LearnParams (regression.py)."""
    level: np.ndarray
    """[G + K], mean mixture and mean drops per segment of the LearnParams of the round before."""
    pooled: np.ndarray
    """[G + K, G + K], sums of products over all rounds, without level and trend; past rounds have the weight
    `pooling`. [0, 0] without `pooling`."""
    pooled_freedom: float
    """Degrees of freedom in `pooled`; 0 without `pooling`."""
    stderr: np.ndarray
    """[G], standard error of the column sums of the A that the update used."""
    step_scale: float
    """What `eta` was multiplied by in the last update (`shrink`)."""
    note: int
    """Whether the last update MOVED the proportions, or could not: A was CONSTANT or NOT_FINITE, or the
    regression has TOO_FEW segments yet."""
    target_memory: np.ndarray
    """[3, K], what the weights of the targets depend on (objective.py); [3, 0] if on the config alone."""


def initial_state(
    num_groups: int, num_targets: int, is_pooled: bool, target_memory: np.ndarray
) -> AioliState:
    """Before the first evaluation: uniform proportions, nothing known.

    Args:
        num_groups, num_targets: G, K.
        is_pooled: whether evidence of past rounds is kept (`pooling`).
        target_memory: as of `Objective.start`.
    """
    size = num_groups + num_targets
    pooled_size = size if is_pooled else 0
    unknown, unknown_A = np.full(num_targets, np.nan), np.full((num_targets, num_groups), np.nan)
    return AioliState(
        round=0,
        stage=START,
        segment=0,
        losses=unknown,
        drops=np.zeros((num_targets, num_groups)),
        raw_A=unknown_A,
        solved_A=unknown_A,
        normalized_A=unknown_A,
        ema_A=unknown_A,
        log_weights=np.zeros(num_groups),
        proportions=uniform(num_groups),
        predicted_drop=unknown,
        measured_drop=unknown,
        evidence=empty_evidence(num_groups, num_targets),
        level=np.full(size, np.nan),
        pooled=np.zeros((pooled_size, pooled_size)),
        pooled_freedom=0.0,
        stderr=np.full(num_groups, np.nan),
        step_scale=1.0,
        note=MOVED,
        target_memory=target_memory,
    )
