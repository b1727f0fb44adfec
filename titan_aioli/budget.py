"""How many held-out sequences a run can afford.

Evaluating D_e tokens costs D_e / 3 of training on them (a forward pass against a forward and a backward
pass). A run of T rounds with k sweeps over G groups evaluates T (1 + G k) times, so its relative overhead is
T (1 + G k) D_e / (3 D_t), D_t the tokens trained on.
"""

import numpy as np

from titan_aioli.methods import MixingMethod

MAX_PHASES = 1_000_000


def count_evaluations(method: MixingMethod, num_groups: int, num_steps: int) -> int:
    """Evaluations that the method asks for in a run of `num_steps`, by walking through its phases.

    The lengths of phases do not depend on what is observed, so any losses do.
    """
    if method.observes != "validation":
        return 0
    state, step, count = method.init(num_groups), 0, 0
    while count < MAX_PHASES:
        step += method.phase(state).num_steps
        if step > num_steps:
            break
        state = method.update(state, np.ones(num_groups))
        count += 1
    return count


def relative_overhead(num_evaluations: int, sequences: int, num_steps: int, batch_size: int) -> float:
    """Cost of the evaluations as a share of the training compute.

    Args:
        num_evaluations: in the run.
        sequences: held-out sequences of one evaluation, over all groups.
        num_steps, batch_size: optimizer steps and rows of each.
    """
    return num_evaluations * sequences / (3.0 * num_steps * batch_size)


def affordable_sequences(
    percent: float | None,
    method: MixingMethod,
    num_groups: int,
    num_steps: int,
    batch_size: int,
    largest: int,
) -> int:
    """Held-out sequences of each group, so that all evaluations cost at most `percent` of the training.

    Args:
        percent: of the training compute, None for no bound; at least one sequence a group is evaluated.
        method, num_groups, num_steps, batch_size: of the run.
        largest: never more than this.
    """
    evaluations = 0 if percent is None else count_evaluations(method, num_groups, num_steps)
    if percent is None or evaluations == 0:
        return largest
    one_each = relative_overhead(evaluations, num_groups, num_steps, batch_size)
    return int(np.clip(percent / 100.0 / one_each, 1, largest))
