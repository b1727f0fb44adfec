"""A benchmark as a target: prompts and answers, of which only the answers count.

Row k is document k: its prompt, its answer and the end of the document, filled up to the length of a
sequence. The labels that count are the tokens of the answer and the end. A prompt that is too long loses its
beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from titan_aioli.data.group import are_below
from titan_aioli.errors import UserError
from titan_aioli.stores.tokens import TokenStore


@dataclass(frozen=True)
class Answers:
    """A named held-out set over one or more stores of prompts and answers."""

    name: str
    stores: Sequence[TokenStore]
    seq_len: int
    """S, number of inputs of one row."""
    vocab_size: int | None = None
    """Of the model: every token id is checked against it where it is read. None: not checked."""

    def __post_init__(self):
        if self.num_sequences == 0:
            raise ValueError(
                f"target {self.name!r} has no document in {', '.join(s.path for s in self.stores)}"
            )
        for store, sizes in zip(self.stores, self._answer_sizes, strict=True):
            self._check_sizes(store, sizes)

    def _check_sizes(self, store: TokenStore, sizes: np.ndarray) -> None:
        """Refuse a store with a document of which nothing counts, or whose answer does not fit into a row."""
        for number in np.flatnonzero((sizes < 1) | (sizes > self.seq_len))[:1]:
            what = f"target {self.name!r}: document {number} of {store.path} has an answer of {sizes[number]}"
            if sizes[number] < 1:
                raise ValueError(f"{what} tokens: leave such documents out")
            raise ValueError(
                f"{what} tokens, and a row has {self.seq_len} (training.seq_len): leave such documents out, "
                "or train on longer sequences"
            )

    @property
    def num_sequences(self) -> int:
        """Number of documents."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def num_tokens(self) -> int:
        """Number of tokens that count."""
        return sum(int(sizes.sum()) for sizes in self._answer_sizes)

    def read(self, sequence: int, out: np.ndarray) -> None:
        """Write the tokens of a document into `out` [S + 1] int64, and 0 behind them.

        Raises: UserError: an id is outside the vocabulary of the model.
        """
        store, tokens, _ = self._document(sequence)
        if self.vocab_size is not None and not are_below(tokens, self.vocab_size):
            bad = int(tokens[(tokens < 0) | (tokens >= self.vocab_size)][0])
            raise UserError(
                f"target {self.name!r}: document {sequence} of {store.path} holds the token {bad}, and the "
                f"model knows the ids 0 to {self.vocab_size - 1}: tokenize with the model's tokenizer"
            )
        out[:] = 0
        out[: len(tokens)] = tokens

    def counted(self, sequence: int) -> slice:
        """The labels of a row that count."""
        _, tokens, answer_size = self._document(sequence)
        return slice(len(tokens) - 1 - answer_size, len(tokens) - 1)

    def _document(self, sequence: int) -> tuple[TokenStore, np.ndarray, int]:
        """The store, the tokens of a document that fit into a row, and how many of them count as labels."""
        index = int(np.searchsorted(self._ends, sequence, side="right"))
        store = self.stores[index]
        number = int(sequence) - (int(self._ends[index - 1]) if index else 0)
        assert store.document_offsets is not None
        start, end = store.document_offsets[number : number + 2]
        tokens = store.tokens[max(start, end - self.seq_len - 1) : end].astype(np.int64)
        return store, tokens, int(self._answer_sizes[index][number])

    @cached_property
    def _answer_sizes(self) -> list[np.ndarray]:
        """[D] per store, tokens of each document that count; the first token of a row is never a label."""
        answer_sizes = []
        for store in self.stores:
            assert store.document_offsets is not None and store.prompts is not None
            sizes = np.diff(store.document_offsets)
            answer_sizes.append(np.minimum(sizes - store.prompts, sizes - 1))
        return answer_sizes

    @cached_property
    def _ends(self) -> np.ndarray:
        """[stores] int64, number of the document after the last one of each store."""
        return np.cumsum([store.num_documents or 0 for store in self.stores])
