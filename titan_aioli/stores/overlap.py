"""What two documents have in common: hashes of normalised texts, of token ids, and of n-grams.

Equal content has equal hashes; different content has, with 64 bits, equal ones about never.
"""

import unicodedata
from hashlib import blake2b

import numpy as np

from titan_aioli.stores.tokens import TokenStore

CONTAMINATED_SHARE = 0.5
"""A held-out document is trained on if at least this share of its n-grams is."""
LARGEST_NGRAM = 1024
NUM_ENDS = 1000
"""Documents whose last tokens say what ends a document, where the metadata do not."""
TABLE_BITS = 24
ODD = np.uint64(0x9E3779B97F4A7C15)


def normalised(text: str) -> str:
    """Text in which what does not matter is equal: compatibility characters, case, white space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def text_key(text: str) -> int:
    """Hash of the normalised text, in 64 bits; 0 if it has no content."""
    return _key(normalised(text).encode(errors="replace"))


def ids_key(tokens: np.ndarray) -> int:
    """Hash of the token ids, in 64 bits; 0 if there are none."""
    return _key(np.ascontiguousarray(tokens, "<i8").tobytes())


def _key(content: bytes) -> int:
    if not content:
        return 0
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") or 1


def hash_ngrams(tokens: np.ndarray, ngram: int) -> np.ndarray:
    """uint64 [N - ngram + 1], a hash of every `ngram` consecutive tokens; empty if there are none."""
    count = len(tokens) - ngram + 1
    if count < 1:
        return np.empty(0, np.uint64)
    mixed = (tokens.astype(np.int64).view(np.uint64) + np.uint64(1)) * ODD
    mixed ^= mixed >> np.uint64(29)
    hashes = np.zeros(count, np.uint64)
    for place in range(ngram):
        hashes *= np.uint64(0xD6E8FEB86659FD93)
        hashes += mixed[place : place + count]
    return hashes


class Hashes:
    """A set of hashes, among which many others are looked up at a time."""

    def __init__(self, unique: np.ndarray):
        """Args:
        unique: uint64 [H], sorted and without repeats.
        """
        self._unique = unique
        self._table = np.zeros(1 << TABLE_BITS, bool)  # a look here spares most searches
        self._table[_places(unique)] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the hashes are in the set, and which of the set's each of those is: int64 [F], [F]."""
        which = np.flatnonzero(self._table[_places(hashes)])
        if not which.size:
            return which, which
        at = np.minimum(np.searchsorted(self._unique, hashes[which]), len(self._unique) - 1)
        equal = self._unique[at] == hashes[which]
        return which[equal], at[equal]


def _places(hashes: np.ndarray) -> np.ndarray:
    """Where each hash is in the table."""
    return (hashes * ODD) >> np.uint64(64 - TABLE_BITS)


def document_spans(store: TokenStore) -> np.ndarray:
    """int64 [D, 2], first token of every document and the one after its last; the end's token is left out.

    The store must have documents.
    """
    offsets = store.document_offsets
    assert offsets is not None
    starts, ends = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
    end = _end_of_document(store, offsets)
    full = np.flatnonzero(ends > starts)
    if end is not None and full.size:
        ends[full] -= store.tokens[ends[full] - 1] == end
    return np.stack([starts, ends], axis=1)


def _end_of_document(store: TokenStore, offsets: np.ndarray) -> int | None:
    """The token that ends a document: as the metadata say, else what the first documents all end with."""
    end = store.metadata.get("end_of_document")
    if end is not None:
        return end
    first = offsets[: NUM_ENDS + 1]
    last = store.tokens[first[1:][np.diff(first) > 0] - 1]
    return int(last[0]) if len(last) > 1 and (last == last[0]).all() else None
