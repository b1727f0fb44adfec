"""How often each group may be read: `max_epochs` of the groups, and `when_used_up`."""

from collections.abc import Sequence

import numpy as np

from titan_aioli.config import Mixing
from titan_aioli.data.group import Group
from titan_aioli.errors import UserError


def describe_limits(mixing: Mixing) -> str:
    """What bounds the repetition of groups, in words; empty where nothing does."""
    limits = [f"{name} {group.max_epochs}" for name, group in mixing.groups.items() if group.max_epochs]
    if not limits or mixing.when_used_up == "repeat":
        return ""
    return f"{mixing.when_used_up} after {', '.join(limits)} epochs"


def max_drawn(mixing: Mixing, groups: Sequence[Group]) -> np.ndarray | None:
    """[G] int64, most rows of each group in the whole run; None where nothing bounds them."""
    if not describe_limits(mixing):
        return None
    largest = np.iinfo(np.int64).max
    rows = np.full(len(groups), largest)
    for index, group in enumerate(groups):
        most = mixing.groups[group.name].max_epochs
        if most is not None:
            rows[index] = min(int(most * group.num_sequences), largest)
    return rows


def largest_shares(mixing: Mixing, groups: Sequence[Group], num_rows: int | None) -> list[float] | None:
    """[G], the share at which a group's `max_epochs` last from the first step to the last; None: no bound.

    Args:
        num_rows: rows of the whole run.
    Raises: UserError: a group may not be read at all, all together last for less than the run, or its length
        is not known.
    """
    rows = max_drawn(mixing, groups)
    if rows is None or mixing.when_used_up != "spread":
        return None
    if num_rows is None or num_rows < 1:
        raise UserError('mixing.when_used_up is "spread", which needs the length of the run: set its steps')
    for group, most in zip(groups, rows, strict=True):
        if most < 1:
            limit = mixing.groups[group.name].max_epochs
            raise UserError(
                f"mixing.groups.{group.name}.max_epochs is {limit}: not one of the group's "
                f"{group.num_sequences:,} sequences; raise it, or leave the group out"
            )
    rows = np.minimum(rows, num_rows)
    if rows.sum() < num_rows:
        raise UserError(
            f'mixing.when_used_up is "spread": read as often as their max_epochs allow, the groups give '
            f"{rows.sum():,} rows, and the run trains on {num_rows:,}: raise max_epochs, leave it out for a "
            "group, or train for fewer steps"
        )
    return (rows / num_rows).tolist()
