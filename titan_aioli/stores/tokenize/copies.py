"""Documents to train on that are held-out ones: an index of the held-out, and a look at every shard.

A document is a copy of a held-out one if both have the same normalised text or the same token ids; with
n-grams also if it has at least half of those of the held-out one, in whatever order. Each document is judged
by itself, so that the result depends neither on the shards nor on the workers.

Cost: a hash of every text, and with n-grams one of every token. Memory of each worker: 16 MB (twice that with
n-grams), and about 30 bytes per held-out document, or per token of it with n-grams.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from titan_aioli.files import replacing
from titan_aioli.stores.overlap import CONTAMINATED_SHARE, Hashes, hash_ngrams, ids_key, text_key
from titan_aioli.stores.tokenize.kept import reading

FOUND, PLACES = "found", "places"
"""Names of arrays of a store in a shard: int64 [F, 3], the position of a document, the bytes of its text and
the held-out document that it is; and [F] str, where it was read."""


class Index(NamedTuple):
    """Hashes of held-out documents, which are numbered over all sets: D of them."""

    names: np.ndarray
    """[S] str, names of the sets."""
    bounds: np.ndarray
    """int64 [S + 1], the first document of each set, and D."""
    keys: np.ndarray
    """uint64, sorted: of the texts and of the token ids."""
    of_key: np.ndarray
    """int64, the first document with each key."""
    ngram: np.ndarray
    """int64 [], tokens of an n-gram; 0: none."""
    counts: np.ndarray
    """int64 [D], n-grams of each document."""
    hashes: np.ndarray
    """uint64 [H], sorted: of the n-grams."""
    starts: np.ndarray
    """int64 [H + 1], where the owners of each n-gram start."""
    owners: np.ndarray
    """int64, the documents of the n-grams, sorted by n-gram; a document once for each time it has it."""

    def save(self, path: Path) -> None:
        """Write one .npz file, whole or not at all."""
        with replacing(path) as file:
            np.savez(file, **self._asdict())

    @staticmethod
    def load(path: str | Path) -> "Index":
        """What `save` wrote."""
        with reading(Path(path)), np.load(path) as arrays:
            return Index(**arrays)


def build_index(
    names: Sequence[str], contents: Sequence[Iterable[tuple[str, np.ndarray]]], ngram: int
) -> Index:
    """The index of the documents of every set.

    Args:
        names: of the sets.
        contents: per set, the text and the token ids of each document.
        ngram: tokens of an n-gram; 0: none.
    Raises: ValueError: a set has no document with any content.
    """
    keys: list[tuple[int, int]] = []
    hashes, owners, counts, bounds = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [], [0]
    for name, documents in zip(names, contents, strict=True):
        num_keys = len(keys)
        for text, ids in documents:
            number = len(counts)
            if of_text := text_key(text):
                keys += [(of_text, number), (ids_key(ids), number)]
            found = hash_ngrams(ids, ngram) if ngram else hashes[0]
            hashes.append(found)
            owners.append(np.full(len(found), number))
            counts.append(len(found))
        bounds.append(len(counts))
        if len(keys) == num_keys:
            raise ValueError(f"--held-out {name}: no document with any text")
    every_hash, every_key = np.concatenate(hashes), np.array([key for key, _ in keys], np.uint64)
    unique_keys, first = np.unique(every_key, return_index=True)
    order = np.argsort(every_hash, kind="stable")
    unique, starts = np.unique(every_hash[order], return_index=True)
    return Index(
        names=np.array(names),
        bounds=np.array(bounds),
        keys=unique_keys,
        of_key=np.array([number for _, number in keys])[first],
        ngram=np.array(ngram),
        counts=np.array(counts),
        hashes=unique,
        starts=np.append(starts, len(order)),
        owners=np.concatenate(owners)[order],
    )


class Finder:
    """Looks for held-out documents among those of a shard."""

    def __init__(self, index: Index):
        self._index, self._ngram = index, int(index.ngram)
        self._keys = Hashes(index.keys)
        self._hashes = Hashes(index.hashes) if self._ngram else None

    def find(self, texts: Sequence[str], tokens: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """int64 [N], the first held-out document that each document is of; -1: none.

        Args:
            texts: [N].
            tokens: of all documents, each with its end of document.
            sizes: [N], tokens of each.
        """
        found = np.full(len(texts), -1)
        if self._hashes is not None:
            self._find_ngrams(self._hashes, tokens, sizes, found)
        ends = np.cumsum(sizes)
        ids = [ids_key(tokens[end - size : end - 1]) for end, size in zip(ends, sizes, strict=True)]
        for keys in ids, [text_key(text) for text in texts]:  # a copy counts before a part
            which, at = self._keys.find(np.array(keys, np.uint64))
            found[which] = self._index.of_key[at]
        return found

    def _find_ngrams(self, hashes: Hashes, tokens: np.ndarray, sizes: np.ndarray, found: np.ndarray) -> None:
        """Set `found` for the documents that have enough of a held-out one's n-grams."""
        which, at = hashes.find(hash_ngrams(tokens, self._ngram))
        document = np.repeat(np.arange(len(sizes)), sizes)
        inside = document[which] == document[which + self._ngram - 1]
        which, at = document[which[inside]], at[inside]
        if not which.size:
            return
        needed = np.maximum(1, self._index.counts * CONTAMINATED_SHARE)
        numbers, starts = np.unique(which, return_index=True)
        for number, of_document in zip(numbers, np.split(at, starts[1:]), strict=True):
            enough = np.flatnonzero(self._counts(np.unique(of_document)) >= needed)
            if enough.size:
                found[number] = enough[0]

    def _counts(self, ngrams: np.ndarray) -> np.ndarray:
        """int64 [D], how many n-grams of each held-out document are among these."""
        starts, ends = self._index.starts[ngrams], self._index.starts[ngrams + 1]
        owners = [self._index.owners[start:end] for start, end in zip(starts, ends, strict=True)]
        return np.bincount(np.concatenate(owners), minlength=len(self._index.counts))
