"""A warning where `max_epochs` of the config only warns."""

import logging
from collections.abc import Sequence

import numpy as np

from titan_aioli.config import Mixing

logger = logging.getLogger(__name__)


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
