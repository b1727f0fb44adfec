"""When groups will be used up: the expected rows of each group, against the most that it may give.

The run draws whole rows, up to two more or fewer than expected, so every step here is an estimate.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from titan_aioli.proportions import without

Array = np.ndarray


class UsedUp(NamedTuple):
    """Groups that can give no more whole step."""

    step: int
    """Steps that are trained before, about."""
    groups: list[int]


class Drawn(NamedTuple):
    """What a run draws from its groups."""

    rows: Array
    """[G], expected rows of each group."""
    num_steps: int
    """Steps that are trained, about; fewer than asked for where groups are used up."""
    used_up: list[UsedUp]
    """In the order in which it happens; the last ends the run if `num_steps` is its step."""


def expected_rows(
    mixtures: Iterable[tuple[int, Array]], batch_size: int, most: Array | None, stops: bool
) -> Drawn:
    """The rows that a run draws from each group, up to where it ends.

    Args:
        mixtures: (steps, proportions [G]) of consecutive phases.
        batch_size: B, rows of a step.
        most: [G], most rows of each group in the whole run; None where nothing bounds them.
        stops: whether the run ends at the first group that is used up, or its share goes to the others.
    """
    step, used_up, rows, is_used_up = 0, [], np.zeros(0), np.zeros(0, dtype=bool)
    for num_steps, proportions in mixtures:
        if not len(rows):
            rows, is_used_up = np.zeros(len(proportions)), np.zeros(len(proportions), dtype=bool)
        end = step + num_steps
        while step < end:
            drawn = without(proportions, is_used_up) * batch_size
            left = np.full(len(drawn), np.inf) if most is None else _whole_steps(most - rows, drawn)
            trained = int(min(end - step, left.min()))
            rows = rows + trained * drawn
            step += trained
            if step < end:
                groups = np.flatnonzero(left == trained)
                used_up.append(UsedUp(step, groups.tolist()))
                is_used_up[groups] = True
                if stops or is_used_up.all():
                    return Drawn(rows, step, used_up)
    return Drawn(rows, step, used_up)


def _whole_steps(left: Array, drawn: Array) -> Array:
    """[G], steps that what is left of each group is enough for."""
    steps = np.full(len(left), np.inf)
    taken = drawn > 0
    steps[taken] = np.floor(left[taken] / drawn[taken] + 1e-9)
    return np.maximum(steps, 0)
