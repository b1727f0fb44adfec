"""Proportions to whole rows: largest remainder, with the remainder carried from step to step.

So the realised count of a group never drifts by 2 rows or more from the sum of what was asked, through any
number of changes of the proportions. The carry makes it a loop over steps, which numba compiles: NumPy's
calls for it would cost as much as reading the rows.

With many groups most get no row in a step, and a step looks only at its candidates: the groups owed at least
`cut`, which follows what the last row of the step before went for, so that there are some two a row. Where
that proves too high, the step is done again with all groups: the rows are the same, whatever the cut.
"""

import heapq

import numpy as np

from titan_aioli.data.compiled import compiled

SPARE_CANDIDATES = 8
"""Candidates of a step beyond some two a row: where rows are few, what the last one goes for varies more."""


def allocate(proportions: np.ndarray, batch_size: int, carry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each group in one step, by largest remainder, and the remainder that is left.

    Each row goes to the group that is owed most, of equals to the first. A group with proportion 0 gets no
    row and keeps its remainder for when it is asked for again.

    Args:
        proportions: [G], on the simplex.
        batch_size: B, rows to give.
        carry: [G], rows owed from earlier steps.
    Returns: counts [G] int64 with sum B, and the new carry [G].
    """
    groups, carry = allocate_steps(proportions, batch_size, carry, 1)
    return np.bincount(groups[0], minlength=len(carry)), carry


def allocate_steps(
    proportions: np.ndarray, batch_size: int, carry: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """`allocate` for consecutive steps with the same proportions.

    Returns: the groups of each step's rows in ascending order [n, B] int64, and the carry [G] after the last.
    """
    active = np.flatnonzero(proportions > 0)
    rows, left = _allocate_steps(proportions[active] * batch_size, batch_size, carry[active], num_steps)
    carry = carry.copy()
    carry[active] = left
    return active[rows], carry


@compiled
def _allocate_steps(quota, batch_size, owed, num_steps):
    """Of groups that are all asked for: `quota` [A] rows in each step, with sum B."""
    num_groups, place = len(quota), 0
    rows = np.empty(num_steps * batch_size, np.int64)
    target, owed = np.empty(num_groups), owed.copy()
    everyone, found = np.arange(num_groups), np.empty(num_groups, np.int64)
    cut, spare = -np.inf, (batch_size + SPARE_CANDIDATES) / num_groups
    for _ in range(num_steps):
        for group in range(num_groups):
            target[group] = quota[group] + owed[group]
        candidates = _at_least(target, cut, found)
        counts, least = _give(target[candidates], batch_size)
        if least < cut:
            candidates = everyone
            counts, least = _give(target, batch_size)
        if least == -np.inf:  # `cut` was too: all groups are candidates
            _give_one_by_one(target, batch_size, counts)
        cut = min(least - spare, 1.0)  # who is owed a whole row is a candidate
        for index, group in enumerate(candidates):
            target[group] -= counts[index]
            rows[place : place + counts[index]] = group
            place += counts[index]
        owed, target = target, owed
    return rows.reshape(num_steps, batch_size), owed


@compiled
def _at_least(target, cut, found):
    """The groups owed at least `cut`, ascending; `found` [A] is where they are written."""
    count = 0
    for group in range(len(target)):
        found[count] = group
        count += target[group] >= cut
    return found[:count]


@compiled
def _give(target, batch_size):
    """Rows of each group: the whole ones that are owed, then one more for those owed most.

    Returns: counts [C], and the least that was owed where one more was given: any other groups, if they are
        owed less, change nothing. -inf: not all were given, for too few groups are owed anything or, after
        a change of the proportions, more whole rows are owed than there are.
    """
    counts = np.empty(len(target), np.int64)
    left = batch_size
    for group in range(len(target)):
        counts[group] = max(0, int(target[group]))
        left -= counts[group]
    missing = target - counts
    least = _largest(missing, left) if 0 < left <= len(target) else -np.inf
    if least < 0.0:  # one group might be owed most twice
        return counts, -np.inf
    equals = left - (missing > least).sum()
    for group in range(len(target)):
        if missing[group] > least:
            counts[group] += 1
        elif missing[group] == least and equals > 0:
            counts[group] += 1
            equals -= 1
    return counts, least


@compiled
def _largest(values, number):
    """The value that is the `number`-th largest."""
    heap = list(values[:number])
    heapq.heapify(heap)
    for value in values[number:]:
        if value > heap[0]:
            heapq.heapreplace(heap, value)
    return heap[0]


@compiled
def _give_one_by_one(target, batch_size, counts):
    """The rows that are left to the group owed most, those too many from the one owed least."""
    left = batch_size - counts.sum()
    while left > 0:
        counts[np.argmax(target - counts)] += 1
        left -= 1
    while left < 0:
        counts[np.argmin(np.where(counts > 0, target - counts, np.inf))] -= 1
        left += 1
