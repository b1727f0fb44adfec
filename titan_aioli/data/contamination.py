"""Contamination: documents of held-out sets that are trained on.

Two comparisons. A document is a copy if its key is that of a training document: a hash of its normalised text
where a tokenizer is given, else of its token ids without the end of the document. Or a document shares
n-grams: every n consecutive tokens of it are looked for anywhere in the training tokens, so that a document
inside a longer one, or a long quotation, is found too.

Memory: hashes of the held-out documents (of every token of them, for n-grams). Training stores are streamed.
A store without documents has no keys; held out, it counts in pieces of the length of a sequence.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from titan_aioli.data.group import Group
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.stores.overlap import (
    CONTAMINATED_SHARE,
    Hashes,
    document_spans,
    hash_ngrams,
    ids_key,
    text_key,
)
from titan_aioli.stores.tokenize.tokenizer import Decode
from titan_aioli.stores.tokens import TokenStore

TOKENS_AT_ONCE = 1 << 22

Progress = Callable[[int], object]
"""Called with the number of tokens that were gone through since the last call."""


class Found(NamedTuple):
    """Documents of a held-out set that are in the training stores of a group."""

    group: str
    documents: np.ndarray
    """int64, their numbers in the held-out set, rising."""
    shares: np.ndarray
    """Largest share of each document's n-grams that was found; 1 for a copy."""


class _Comparison(Protocol):
    def look(self, store: TokenStore, progress: Progress) -> None:
        """Go through a training store."""
        ...

    def take(self) -> np.ndarray:
        """[D] share of each held-out document that was seen since the last call."""
        ...


def passes(ngram: int) -> int:
    """How often the training stores are gone through."""
    return 2 if ngram else 1


def find_contamination(
    held_out: Sequence[HeldOutSet],
    train: Sequence[Group],
    ngram: int = 0,
    decode: Decode | None = None,
    progress: Progress = lambda tokens: None,
) -> list[list[Found]]:
    """For each held-out set, the groups that train on documents of it, and which.

    Args:
        held_out: sets whose documents are looked for.
        train: groups whose stores are looked through.
        ngram: tokens of an n-gram; 0: only whole documents are compared.
        decode: of the tokenizer of all these stores. None: token ids are compared.
        progress: goes up to `passes(ngram)` times the number of training tokens.
    """
    stores = [(store, spans(store, held.seq_len)) for held in held_out for store in held.stores]
    comparisons: list[_Comparison] = [_Copies(stores, decode)]
    if ngram:
        comparisons.append(_Ngrams(stores, ngram))
    bounds = np.cumsum([0, *map(num_documents, held_out)])
    found: list[list[Found]] = [[] for _ in held_out]
    for group in train:
        for comparison in comparisons:
            for store in group.stores:
                comparison.look(store, progress)
        shares = np.max([comparison.take() for comparison in comparisons], axis=0)
        for of_set, first, last in zip(found, bounds[:-1], bounds[1:], strict=True):
            documents = np.flatnonzero(shares[first:last] >= CONTAMINATED_SHARE)
            if documents.size:
                of_set.append(Found(group.name, documents, shares[first:last][documents]))
    return found


def spans(store: TokenStore, piece: int) -> np.ndarray:
    """int64 [D, 2], first token of every document and the one after its last; the end's token is left out.

    Pieces of `piece` tokens for a store without documents.
    """
    if store.document_offsets is not None:
        return document_spans(store)
    offsets = np.append(np.arange(0, store.num_tokens, piece), store.num_tokens)
    return np.stack([offsets[:-1], offsets[1:]], axis=1)


def document(held: HeldOutSet, number: int) -> np.ndarray:
    """The tokens of a document of a held-out set, without its end."""
    for store in held.stores:
        bounds = spans(store, held.seq_len)
        if number < len(bounds):
            start, end = bounds[number]
            return store.tokens[start:end]
        number -= len(bounds)
    raise IndexError(number)


def num_documents(held: HeldOutSet) -> int:
    """Number of documents of a held-out set; of pieces, where a store has no documents."""
    return sum(
        -(-store.num_tokens // held.seq_len) if store.num_documents is None else store.num_documents
        for store in held.stores
    )


def _batches(bounds: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive documents of about TOKENS_AT_ONCE tokens, at least one."""
    first = 0
    while first < len(bounds):
        last = int(np.searchsorted(bounds[:, 1], bounds[first, 0] + TOKENS_AT_ONCE, side="right"))
        last = max(last, first + 1)
        yield bounds[first:last]
        first = last


class _Copies:
    """Whole documents, by the hashes of their tokens or of their texts."""

    def __init__(self, held_out: Sequence[tuple[TokenStore, np.ndarray]], decode: Decode | None):
        self._decode = decode
        keys, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for store, bounds in held_out:
            sizes.append(bounds[:, 1] - bounds[:, 0])
            if store.document_offsets is None:
                keys.append(np.zeros(len(bounds), np.uint64))
            else:
                keys.extend(self._keys(store, batch) for batch in _batches(bounds))
        self._sizes = np.unique(np.concatenate(sizes))
        unique, self._of_document = np.unique(np.concatenate(keys), return_inverse=True)
        self._hashes, self._seen = Hashes(unique), np.zeros(len(unique), bool)

    def look(self, store: TokenStore, progress: Progress) -> None:
        if store.document_offsets is None:
            progress(store.num_tokens)
            return
        for batch in _batches(spans(store, 0)):
            read = batch if self._decode else batch[np.isin(batch[:, 1] - batch[:, 0], self._sizes)]
            keys = self._keys(store, read)
            self._seen[self._hashes.find(keys[keys != 0])[1]] = True
            progress(int(batch[-1, 1] - batch[0, 0]))

    def take(self) -> np.ndarray:
        shares = self._seen[self._of_document].astype(np.float64)
        self._seen[:] = False
        return shares

    def _keys(self, store: TokenStore, bounds: np.ndarray) -> np.ndarray:
        """[D] uint64; 0 for a document without content, which is equal to nothing."""
        tokens = [store.tokens[start:end] for start, end in bounds]
        if self._decode is None:
            return np.array([ids_key(document) for document in tokens], np.uint64)
        texts = self._decode([document.tolist() for document in tokens])
        return np.array([text_key(text) for text in texts], np.uint64)


class _Ngrams:
    """Any n consecutive tokens of the held-out documents, wherever they are in the training tokens."""

    def __init__(self, held_out: Sequence[tuple[TokenStore, np.ndarray]], ngram: int):
        self._ngram = ngram
        hashes, counts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for store, bounds in held_out:
            counts.append(np.maximum(0, bounds[:, 1] - bounds[:, 0] - ngram + 1))
            hashes.extend(hash_ngrams(store.tokens[start:end], ngram) for start, end in bounds)
        self._counts = np.concatenate(counts)
        unique, self._of_ngram = np.unique(np.concatenate(hashes), return_inverse=True)
        self._hashes, self._seen = Hashes(unique), np.zeros(len(unique), bool)

    def look(self, store: TokenStore, progress: Progress) -> None:
        for start in range(0, store.num_tokens, TOKENS_AT_ONCE):
            tokens = store.tokens[start : start + TOKENS_AT_ONCE + self._ngram - 1]
            self._seen[self._hashes.find(hash_ngrams(tokens, self._ngram))[1]] = True
            progress(min(TOKENS_AT_ONCE, store.num_tokens - start))

    def take(self) -> np.ndarray:
        owner = np.repeat(np.arange(len(self._counts)), self._counts)
        found = np.bincount(owner, self._seen[self._of_ngram], minlength=len(self._counts))
        self._seen[:] = False
        return found / np.maximum(1, self._counts)
