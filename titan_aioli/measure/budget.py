"""How many held-out sequences a run can afford.

Evaluating D_e tokens costs D_e / 3 of training on them (a forward pass against a forward and a backward
pass). A run of T rounds with k sweeps over G groups evaluates T (1 + G k) times, so its relative overhead is
T (1 + G k) D_e / (3 D_t), D_t the tokens trained on, D_e those of all targets.
"""

import numpy as np

from titan_aioli.methods import MixingMethod
from titan_aioli.methods.protocol import shape_observed
from titan_aioli.methods.walk import walk

MAX_PHASES = 1_000_000
"""Phases after which a walk gives up: a method that only ever measures never reaches a second round."""
ROUNDS = {"validation": range(1, 2), "alignment": range(10)}
"""Rounds by which a method's cost is judged, by what it observes. Held-out losses: the second, since the
first may hold a prior; it does not depend on the length of the run, so a run that is extended continues with
the same sequences. Alignments: a round is one measurement, and the first ones follow each other soon."""


def evaluations_of_a_round(
    method: MixingMethod, num_groups: int, num_targets: int | None = None
) -> tuple[int, int]:
    """Measurements on held-out sequences that the method asks for in some rounds, and the rounds' steps.

    The lengths of phases do not depend on what is observed, so any numbers serve.
    """
    if method.observes not in ROUNDS:
        return 0, 0
    evaluations, steps, rounds = 0, 0, ROUNDS[method.observes]
    observed = np.ones(shape_observed(method, num_groups, num_targets))
    for number, stretch in enumerate(walk(method, num_groups, lambda _: observed, num_targets=num_targets)):
        if stretch.state.round >= rounds.stop or number == MAX_PHASES:
            break
        if stretch.state.round in rounds:
            evaluations += 1
            steps += stretch.phase.num_steps
    return evaluations, steps


def relative_overhead(num_evaluations: int, sequences: int, num_steps: int, batch_size: int) -> float:
    """Cost of the evaluations as a share of the training compute.

    Args:
        num_evaluations: in the run.
        sequences: held-out sequences of one evaluation, over all sets.
        num_steps, batch_size: optimizer steps and rows of each.
    """
    return num_evaluations * sequences / (3.0 * num_steps * batch_size)


def rows_evaluated(method: MixingMethod, num_groups: int, num_targets: int | None = None) -> int:
    """What one more sequence of every set costs a measurement, in rows that pass forward.

    A held-out loss: the rows of the targets. An alignment of gradients: those of the groups and as many of
    the targets, forward and backward, which is three times as much.
    """
    if method.observes == "alignment":
        return 3 * 2 * num_groups
    return num_groups if num_targets is None else num_targets


def affordable_sequences(
    percent: float,
    method: MixingMethod,
    num_groups: int,
    batch_size: int,
    largest: int,
    num_targets: int | None = None,
) -> int:
    """Sequences of each set that is measured, so that a round's measurements cost at most `percent`.

    Args:
        percent: of the training compute; 0 for no bound; at least one sequence per target is evaluated.
        method, num_groups, batch_size: of the run.
        largest: never more than this.
        num_targets: K. None: the targets are the groups.
    """
    evaluations, steps = evaluations_of_a_round(method, num_groups, num_targets) if percent else (0, 0)
    if evaluations == 0:
        return largest
    rows = rows_evaluated(method, num_groups, num_targets)
    one_each = relative_overhead(evaluations, rows, steps, batch_size)
    return int(np.clip(percent / 100.0 / one_each, 1, largest))
