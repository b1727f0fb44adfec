"""Proportions to whole rows: largest remainder, with the remainder carried from step to step.

The count of rows that a group has got therefore never differs by 2 or more from the sum of what was asked,
through any number of changes of the proportions. The carry makes this a loop over steps, which numba
compiles: NumPy's calls for it would cost as much as reading the rows.

A group's debt is what it is owed: its quota in this step plus its carry. With thousands of groups most get no
row in a step. A step therefore ranks only the candidates, the groups whose debt is at least `cut`: a
threshold set from the smallest debt that earned a row in the previous step, so that there are about two
candidates per row. If too few groups pass, the step is redone with all of them. The threshold changes the
cost, never the rows.
"""

import heapq

import numpy as np

from titan_aioli.data.compiled import compiled

SPARE_CANDIDATES = 8
"""Number of candidates per step beyond two per row: with few rows the threshold is a noisy guess."""


def allocate(proportions: np.ndarray, batch_size: int, carry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each group in one step, by largest remainder, and the new remainder.

    Each group gets the whole rows of its debt; each row that is left goes to the group with the largest
    remaining debt, ties to the lowest index. A group with proportion 0 gets no row and keeps its remainder
    until its proportion is positive again.

    Args:
        proportions: [G], on the simplex.
        batch_size: B, number of rows.
        carry: [G], rows owed from earlier steps; negative: rows given early.
    Returns: counts [G] int64 with sum B, and the new carry [G].
    """
    groups, carry = allocate_steps(proportions, batch_size, carry, 1)
    return np.bincount(groups[0], minlength=len(carry)), carry


def allocate_steps(
    proportions: np.ndarray, batch_size: int, carry: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """`allocate` for consecutive steps with the same proportions.

    Returns: the group of each row [n, B] int64, ascending in each step, and the carry [G] at the end.
    """
    active = np.flatnonzero(proportions > 0)
    rows, left = _allocate_steps(proportions[active] * batch_size, batch_size, carry[active], num_steps)
    carry = carry.copy()
    carry[active] = left
    return active[rows], carry


@compiled
def _allocate_steps(quota, batch_size, owed, num_steps):
    """`allocate_steps` for the A active groups alone (proportion above 0).

    Args:
        quota: [A], rows asked for in each step, with sum B.
        owed: [A], the carry.
    Returns: the number of each row's group among the active ones [n, B], and the carry [A].
    """
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
        if least == -np.inf:  # then `cut` is -inf or the step was redone: all groups are candidates
            _give_one_by_one(target, batch_size, counts)
        cut = min(least - spare, 1.0)  # a group with a debt of a whole row is always a candidate
        for index, group in enumerate(candidates):
            target[group] -= counts[index]
            rows[place : place + counts[index]] = group
            place += counts[index]
        owed, target = target, owed
    return rows.reshape(num_steps, batch_size), owed


@compiled
def _at_least(target, cut, found):
    """The groups whose debt is at least `cut`, ascending: a view of `found` [A], which is overwritten."""
    count = 0
    for group in range(len(target)):
        found[count] = group
        count += target[group] >= cut
    return found[:count]


@compiled
def _give(target, batch_size):
    """Rows of each candidate: the whole rows of its debt, and one more for those with the largest rest.

    Args:
        target: [C], the debt of each candidate.
    Returns: counts [C], and the smallest rest that earned a row: groups that are no candidates, if their debt
        is smaller, change nothing. -inf if this rule cannot hand out exactly the batch: too few candidates
        are owed anything more, or, after a change of proportions, the whole rows owed exceed the batch.
    """
    counts = np.empty(len(target), np.int64)
    left = batch_size
    for group in range(len(target)):
        counts[group] = max(0, int(target[group]))
        left -= counts[group]
    missing = target - counts
    least = _largest(missing, left) if 0 < left <= len(target) else -np.inf
    if least < 0.0:  # after a row, a group might still have the largest rest
        return counts, -np.inf
    ties = left - (missing > least).sum()
    for group in range(len(target)):
        if missing[group] > least:
            counts[group] += 1
        elif missing[group] == least and ties > 0:
            counts[group] += 1
            ties -= 1
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
    """Correct `counts` in place to the batch, row by row, by the largest or smallest remaining debt."""
    left = batch_size - counts.sum()
    while left > 0:
        counts[np.argmax(target - counts)] += 1
        left -= 1
    while left < 0:
        counts[np.argmin(np.where(counts > 0, target - counts, np.inf))] -= 1
        left += 1
