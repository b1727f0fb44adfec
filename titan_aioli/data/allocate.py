"""Proportions to whole rows: largest remainder, with the remainder carried from step to step.

So the realised count of a group never drifts by 2 rows or more from the sum of what was asked, through any
number of changes of the proportions. The carry makes it a loop over steps; a step costs 2 to 3 us for 7
groups (plain Python, which numpy's calls would double) and 8 to 10 us for 1,000 (numpy).
"""

from typing import Any

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
    counts, carries = allocate_steps(proportions[active] * batch_size, batch_size, carry[active], 1)
    all_counts, new_carry = np.zeros(len(carry), dtype=np.int64), carry.copy()
    all_counts[active], new_carry[active] = counts[0], carries[0]
    return all_counts, new_carry


def allocate_steps(
    quota: np.ndarray, batch_size: int, carry: np.ndarray, num_steps: int
) -> tuple[np.ndarray, list[Any]]:
    """`allocate` for consecutive steps with the same proportions.

    Args:
        quota: [G], rows asked for in each step, all positive, with sum B.
        batch_size: B.
        carry: [G], rows owed from earlier steps.
        num_steps: n.
    Returns: counts [n, G] int64, and the carry after each step, n times [G].
    """
    is_plain = len(quota) <= MAX_PLAIN_GROUPS
    step: Any = _allocate_plain if is_plain else _allocate_many
    asked, owed = (quota.tolist(), carry.tolist()) if is_plain else (quota, carry)
    counts, carries = [], []
    for _ in range(num_steps):
        given, owed = step(asked, batch_size, owed)
        counts.append(given)
        carries.append(owed)
    return np.array(counts, dtype=np.int64).reshape(num_steps, len(quota)), carries


def _allocate_plain(quota: list[float], batch_size: int, carry: list[float]) -> tuple[list[int], list[float]]:
    """One step: the whole rows that are owed, then one by one to (or from) the group owed most (least)."""
    target = [asked + owed for asked, owed in zip(quota, carry, strict=True)]
    counts = [int(rows) if rows > 0.0 else 0 for rows in target]
    missing = [rows - count for rows, count in zip(target, counts, strict=True)]
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


def _allocate_many(quota: np.ndarray, batch_size: int, carry: np.ndarray) -> tuple[Any, Any]:
    """The same in numpy: the largest remainders are chosen at once."""
    target = quota + carry
    counts = np.maximum(target, 0.0).astype(np.int64)
    missing = target - counts
    left = batch_size - int(counts.sum())
    if left == 0:
        return counts, missing
    if 0 < left <= len(missing):
        smallest = np.partition(missing, -left)[-left]
        if smallest >= 0.0:  # then none of the chosen could be owed most twice
            chosen = np.flatnonzero(missing >= smallest)
            if len(chosen) > left:  # of equals the first
                above = np.flatnonzero(missing > smallest)
                chosen = np.append(above, np.flatnonzero(missing == smallest)[: left - len(above)])
            counts[chosen] += 1
            return counts, target - counts
    given, owed = _allocate_plain(quota.tolist(), batch_size, carry.tolist())
    return np.array(given), np.array(owed)
