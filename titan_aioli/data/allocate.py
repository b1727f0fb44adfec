"""Proportions to whole rows: largest remainder, with the remainder carried from step to step.

So the realised count of a group never drifts by 2 rows or more from the sum of what was asked, through any
number of changes of the proportions. The carry makes it a loop over steps, which numba compiles: NumPy's
calls for it would cost as much as reading the rows.
"""

import heapq

import numpy as np

from titan_aioli.data.compiled import compiled


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
    active = np.flatnonzero(proportions > 0)
    rows, carries = allocate_steps(proportions[active] * batch_size, batch_size, carry[active], 1)
    new_carry = carry.copy()
    new_carry[active] = carries[0]
    return np.bincount(active[rows[0]], minlength=len(carry)), new_carry


@compiled
def _give_to_most_owed(target, counts, left):
    """One row more for each of the `left` groups owed most; False, and none given, where one of them might
    be owed most twice."""
    heap = [(target[group] - counts[group], -group) for group in range(left)]
    heapq.heapify(heap)
    for group in range(left, len(target)):
        missing = target[group] - counts[group]
        if missing > heap[0][0]:
            heapq.heapreplace(heap, (missing, -group))
    if heap[0][0] < 0.0:
        return False
    for _, minus_group in heap:
        counts[-minus_group] += 1
    return True


@compiled
def _allocate_step(target, batch_size, counts):
    """The whole rows that are owed, then one by one to (or from) the group owed most (least)."""
    left = batch_size
    for group in range(len(target)):
        counts[group] = max(0, int(target[group]))
        left -= counts[group]
    if 0 < left <= len(target) and _give_to_most_owed(target, counts, left):
        return
    while left > 0:
        counts[np.argmax(target - counts)] += 1
        left -= 1
    while left < 0:
        missing = np.where(counts > 0, target - counts, np.inf)
        counts[np.argmin(missing)] -= 1
        left += 1


@compiled
def allocate_steps(quota, batch_size, carry, num_steps):
    """`allocate` for consecutive steps with the same proportions.

    Args:
        quota: [G], rows asked for in each step, all positive, with sum B.
        batch_size: B.
        carry: [G], rows owed from earlier steps.
        num_steps: n.
    Returns: the groups of each step's rows in ascending order [n, B] int64, and the carry after each step
        [n, G].
    """
    rows = np.empty((num_steps, batch_size), np.int64)
    carries = np.empty((num_steps, len(quota)))
    counts, owed = np.empty(len(quota), np.int64), carry
    for step in range(num_steps):
        target = quota + owed
        _allocate_step(target, batch_size, counts)
        owed, place = carries[step], 0
        for group in range(len(quota)):
            owed[group] = target[group] - counts[group]
            for _ in range(counts[group]):
                rows[step, place] = group
                place += 1
    return rows, carries
