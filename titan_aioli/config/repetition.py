"""How often groups may be repeated: `max_epochs` of the config as rows, and a warning where it only warns."""

import logging
from collections.abc import Sequence

import numpy as np

from titan_aioli.config import Mixing
from titan_aioli.data.group import Group

logger = logging.getLogger(__name__)


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
    rows = np.full(len(groups), np.iinfo(np.int64).max)
    for index, group in enumerate(groups):
        most = mixing.groups[group.name].max_epochs
        if most is not None:
            rows[index] = int(most * group.num_sequences)
    return rows


class RepetitionWarner:
    """Says once of each group that it is read more often than its max_epochs."""

    def __init__(self, mixing: Mixing):
        self._limits = {name: group.max_epochs for name, group in mixing.groups.items() if group.max_epochs}

    def see(self, names: Sequence[str], epochs: np.ndarray) -> None:
        """How often each group has been read through by now, [G]."""
        for name, done in zip(names, epochs, strict=True):
            if done > self._limits.get(name, np.inf):
                most = self._limits.pop(name)
                logger.warning(f"mixing: group {name} is now read more than {most} times (max_epochs)")
