"""The held-out sets that a mixture is for."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from titan_aioli.stores.tokens import TokenStore


class HeldOutSet(Protocol):
    """Numbered rows of S + 1 tokens that a loss is measured on: a group's, or the answers of a benchmark."""

    @property
    def name(self) -> str: ...

    @property
    def stores(self) -> Sequence[TokenStore]: ...

    @property
    def seq_len(self) -> int: ...

    @property
    def num_sequences(self) -> int: ...

    @property
    def num_tokens(self) -> int:
        """Number of tokens that count."""
        ...

    def read(self, sequence: int, out: np.ndarray) -> None:
        """Copy the tokens of a row into `out` [S + 1] int64."""
        ...

    def counted(self, sequence: int) -> slice:
        """The labels of a row, of S, that count."""
        ...


class Targets(NamedTuple):
    """K named held-out sets; some may be those of groups."""

    names: Sequence[str]
    validation: Sequence[HeldOutSet]
    """[K], what the method sees."""
    test: Sequence[HeldOutSet]
    """[K], of the final result; empty where nothing is tested."""

    def are(self, groups: Sequence[HeldOutSet]) -> bool:
        """Whether the targets are just these held-out sets of the groups, in the same order."""
        return list(map(id, self.validation)) == list(map(id, groups))
