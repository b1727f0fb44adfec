"""One data group as numbered sequences: its token stores, cut into pieces of equal length.

Sequence k of a store is tokens [k * S, k * S + S] inclusive, S + 1 of them: S inputs and their S labels.
Neighbours share one token, so every token but the first of a store is a label exactly once per epoch (a last
piece that is shorter than S is left out). Sequences never cross from one store into the next. Reading one
copies S + 1 tokens out of a memory map, by random access; gather.py reads many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from titan_aioli.data.streams import CYCLE_ROWS, WeightedStores
from titan_aioli.errors import UserError
from titan_aioli.stores.tokens import TokenStore


@dataclass(frozen=True)
class Group:
    """A named group over one or more token stores."""

    name: str
    stores: Sequence[TokenStore]
    seq_len: int
    """S, number of inputs of one sequence."""
    store_weights: Sequence[float] = ()
    """Relative frequency of each store among the group's rows; empty: by size, as if the stores were one."""
    vocab_size: int | None = None
    """Of the model: every token id is checked against it where it is read. None: not checked."""

    def __post_init__(self):
        if self.num_sequences == 0:
            counts = ", ".join(f"{store.path}: {store.num_tokens}" for store in self.stores) or "no store"
            raise ValueError(
                f"group {self.name!r} has no sequence of seq_len {self.seq_len} + 1 tokens ({counts} tokens)"
                ": give it more text or set a smaller training.seq_len"
            )
        if self.store_weights:
            self._check_weights()

    @property
    def store_sequences(self) -> np.ndarray:
        """[stores] int64, number of sequences of each store."""
        return np.array([max(0, (store.num_tokens - 1) // self.seq_len) for store in self.stores], np.int64)

    @property
    def weighted(self) -> WeightedStores | None:
        """The sizes and weights of the stores; None if they are drawn by size."""
        if not self.store_weights:
            return None
        return WeightedStores(self.store_sequences.tolist(), list(self.store_weights))

    @property
    def num_sequences(self) -> int:
        """Number of sequences in one epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def num_tokens(self) -> int:
        return sum(store.num_tokens for store in self.stores)

    def locate(self, sequence: int) -> tuple[TokenStore, int]:
        """The store that holds a sequence, and the sequence's number in that store."""
        index = int(np.searchsorted(self._ends, sequence, side="right"))
        return self.stores[index], int(sequence) - (int(self._ends[index - 1]) if index else 0)

    def read(self, sequence: int, out: np.ndarray) -> None:
        """Copy the S + 1 tokens of a sequence into `out` [S + 1] int64.

        Raises: UserError: an id is outside the vocabulary of the model.
        """
        store, number = self.locate(sequence) if len(self.stores) > 1 else (self.stores[0], int(sequence))
        start = number * self.seq_len
        out[:] = store.tokens[start : start + self.seq_len + 1]
        if self.vocab_size is not None and not are_below(out, self.vocab_size):
            raise self.bad_id(sequence, out)

    def counted(self, sequence: int) -> slice:
        """The labels of a sequence that count: all."""
        return slice(0, self.seq_len)

    def bad_id(self, sequence: int, tokens: np.ndarray) -> UserError:
        """What to say of the first id in a sequence's tokens [S + 1] that the model has no embedding for."""
        assert self.vocab_size is not None
        place = int(np.flatnonzero((tokens < 0) | (tokens >= self.vocab_size))[0])
        store, number = self.locate(sequence)
        position = store.first_token + number * self.seq_len + place
        return UserError(
            f"group {self.name!r}: token {position:,} of {store.path} is {tokens[place]}, and the model "
            f"knows the ids 0 to {self.vocab_size - 1}: tokenize with the model's tokenizer, or a model "
            f"with a larger vocabulary (`titan-aioli inspect {store.path} --vocab-size {self.vocab_size}` "
            "looks at every token)"
        )

    @cached_property
    def _ends(self) -> np.ndarray:
        """[stores] int64, number of the sequence after the last one of each store."""
        return np.cumsum(self.store_sequences)

    def _check_weights(self) -> None:
        weights = list(self.store_weights)
        if len(weights) != len(self.stores):
            raise ValueError(
                f"group {self.name!r} has {len(self.stores)} stores but {len(weights)} store_weights "
                f"{weights}: give one weight for each store, or none to draw by size"
            )
        if len(weights) > CYCLE_ROWS:
            raise ValueError(
                f"group {self.name!r} has {len(weights)} stores with store_weights: at most {CYCLE_ROWS}, "
                f"since each has a row in {CYCLE_ROWS}: merge stores, or give no weights to draw by size"
            )
        for store, count, weight in zip(self.stores, self.store_sequences, weights, strict=True):
            if not (np.isfinite(weight) and weight > 0):
                raise ValueError(
                    f"group {self.name!r}: the weight of {store.path} in store_weights is {weight}: it must "
                    "be above 0; leave out a store that is not to be drawn from"
                )
            if count == 0:
                raise ValueError(
                    f"group {self.name!r}: {store.path} has a weight but no sequence of seq_len "
                    f"{self.seq_len} + 1 tokens ({store.num_tokens} tokens): leave out both"
                )


def are_below(tokens: np.ndarray, vocab_size: int) -> bool:
    """Whether all of these int64 ids are in range(vocab_size), in one pass."""
    # as unsigned numbers negative ids are huge
    return bool(tokens.view(np.uint64).max() < vocab_size)
