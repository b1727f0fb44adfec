"""The held-out sets that a mixture is for."""

from collections.abc import Sequence
from typing import NamedTuple

from titan_aioli.data.group import Group


class Targets(NamedTuple):
    """K named held-out sets; some may be those of groups."""

    names: Sequence[str]
    validation: Sequence[Group]
    """[K], what the method sees."""
    test: Sequence[Group]
    """[K], of the final result; empty where nothing is tested."""

    def are(self, groups: Sequence[Group]) -> bool:
        """Whether the targets are just these held-out sets of the groups, in the same order."""
        return list(map(id, self.validation)) == list(map(id, groups))
