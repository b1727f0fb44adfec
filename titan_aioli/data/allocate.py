"""Proportions to whole rows: largest remainder, with the remainder carried from step to step.

So the realised count of a group never drifts by 2 rows or more from the sum of what was asked, through any
number of changes of the proportions. The carry makes it a loop over steps; a step costs 2 to 3 us for 7
groups (plain Python, which numpy's calls would double) and 6 to 10 us for 1,000 (numpy).
"""

from array import array
from operator import add, sub

import numpy as np

MAX_PLAIN_GROUPS = 24
"""Up to so many groups, plain Python is faster than numpy's calls."""


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


def allocate_steps(
    quota: np.ndarray, batch_size: int, carry: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """`allocate` for consecutive steps with the same proportions.

    Args:
        quota: [G], rows asked for in each step, all positive, with sum B.
        batch_size: B.
        carry: [G], rows owed from earlier steps.
        num_steps: n.
    Returns: the groups of each step's rows in ascending order [n, B] int64, and the carry after each step
        [n, G].
    """
    if len(quota) > MAX_PLAIN_GROUPS:
        rows, carries = np.empty((num_steps, batch_size), np.int64), np.empty((num_steps, len(quota)))
        for index in range(num_steps):
            rows[index], carry = _allocate_many(quota, batch_size, carry)
            carries[index] = carry
        return rows, carries
    # flat arrays: thousands of small lists would call the garbage collector
    all_counts, all_carries = array("q"), array("d")
    asked, owed = quota.tolist(), carry.tolist()
    for _ in range(num_steps):
        counts, owed = _allocate_plain(asked, batch_size, owed)
        all_counts.extend(counts)
        all_carries.extend(owed)
    rows = np.repeat(np.tile(np.arange(len(quota)), num_steps), np.array(all_counts, dtype=np.int64))
    return rows.reshape(num_steps, batch_size), np.array(all_carries).reshape(num_steps, len(quota))


def _allocate_plain(quota: list[float], batch_size: int, carry: list[float]) -> tuple[list[int], list[float]]:
    """One step: the whole rows that are owed, then one by one to (or from) the group owed most (least)."""
    target = list(map(add, quota, carry))
    counts = list(map(int, target))
    if min(counts) < 0:
        counts = [max(0, count) for count in counts]
    missing = list(map(sub, target, counts))
    left = batch_size - sum(counts)
    while left > 0:
        most = missing.index(max(missing))
        counts[most] += 1
        missing[most] = target[most] - counts[most]
        left -= 1
    while left < 0:
        least = min((owed, group) for group, owed in enumerate(missing) if counts[group])[1]
        counts[least] -= 1
        missing[least] = target[least] - counts[least]
        left += 1
    return counts, missing


def _allocate_many(quota: np.ndarray, batch_size: int, carry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in numpy: the groups of the rows [B], ascending, and the new carry [G]."""
    target = quota + carry
    if target.max() < 1.0:  # no group is owed a whole row
        chosen = _largest(target, batch_size)
        if chosen is not None:
            target[chosen] -= 1.0
            return chosen, target
    counts = np.maximum(target, 0.0).astype(np.int64)
    chosen = _largest(target - counts, batch_size - int(counts.sum()))
    if chosen is not None:
        counts[chosen] += 1
        owed = target - counts
    else:
        counts, owed = map(np.array, _allocate_plain(quota.tolist(), batch_size, carry.tolist()))
    return np.repeat(np.arange(len(counts)), counts), owed


def _largest(missing: np.ndarray, count: int) -> np.ndarray | None:
    """The groups owed most, of equals the first; None where one of them might be owed most twice."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    if not 0 < count <= len(missing):
        return None
    smallest = np.partition(missing, -count)[-count]
    if smallest < 0.0:
        return None
    chosen = (missing >= smallest).nonzero()[0]
    if len(chosen) > count:
        above = np.flatnonzero(missing > smallest)
        ties = np.flatnonzero(missing == smallest)[: count - len(above)]
        chosen = np.sort(np.append(above, ties))
    return chosen
