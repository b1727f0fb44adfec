"""What every format returns: tokens, where documents start, and the metadata.

A format is one file of this folder that defines a `StoreFormat`, and an entry in `store.FORMATS`. It maps the
tokens and does not read them: only the size of the index decides how long a store takes to open.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.files import EDGE_BYTES

NUM_PROBES = 16
"""Number of 64 KiB pieces that a fingerprint reads, evenly spaced, the first and the last included."""

NUM_PROBED_TOKENS = 1_000_000
"""Number of tokens that are read where a store does not say its vocabulary."""

REMEDY = (
    "the file is damaged or was not copied whole: copy it again, or make it again with `titan-aioli tokenize`"
)
"""End of every message about a damaged file."""


class ChunkedTokens:
    """Integer arrays seen as one; `tokens[a:b]` copies only if it crosses from one array into the next."""

    def __init__(self, chunks: list[np.ndarray]):
        """
        Args:
            chunks: at least one, of one integer dtype, each 1-D.
        """
        self._chunks = [chunk for chunk in chunks if chunk.size] or chunks[:1]
        self._starts = np.concatenate([[0], np.cumsum([chunk.size for chunk in self._chunks])])
        self.dtype = self._chunks[0].dtype
        self.ndim = 1

    @property
    def size(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: slice | np.ndarray) -> np.ndarray:
        """The tokens of a slice with step 1, or those at positions [N], each in range(size)."""
        return self._slice(where) if isinstance(where, slice) else self._at(where)

    def part(self, start: int, stop: int) -> "ChunkedTokens":
        """The tokens from `start` to `stop` (not included), without a copy."""
        return ChunkedTokens(self._parts(start, stop))

    def _slice(self, span: slice) -> np.ndarray:
        start, stop, step = span.indices(self.size)
        assert step == 1, "only consecutive tokens are read"
        parts = self._parts(start, stop)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _parts(self, start: int, stop: int) -> list[np.ndarray]:
        """Views that make up a range of tokens, at least one."""
        if stop <= start:
            return [np.empty(0, self.dtype)]
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left")) - 1
        return [
            self._chunks[at][max(0, start - self._starts[at]) : stop - self._starts[at]]
            for at in range(first, last + 1)
        ]

    def _at(self, positions: np.ndarray) -> np.ndarray:
        tokens = np.empty(len(positions), self.dtype)
        chunks = np.searchsorted(self._starts, positions, side="right") - 1
        for chunk in np.unique(chunks):
            here = chunks == chunk
            tokens[here] = self._chunks[chunk][positions[here] - self._starts[chunk]]
        return tokens


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Tokens on disk, where documents start, and the metadata."""

    path: str
    """Path as it was given to `open_store`."""
    tokens: np.ndarray | ChunkedTokens
    """Integers [num_tokens], memory-mapped; a slice or an array of positions gives an ndarray."""
    document_offsets: np.ndarray | None = None
    """int64 [D + 1], where every document starts, and num_tokens; None if the format has no documents."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """PREFIX.json as `titan-aioli tokenize` writes it: documents, tokens, text_bytes, tokenizer, vocab_size,
    end_of_document, group, split, shares. {} if there is none."""
    prompts: np.ndarray | None = None
    """[D], tokens of each document that are its prompt, which nothing is trained on and which do not count;
    None for a store of whole documents."""
    files: tuple[str, ...] = ()
    """Files (or folders) that the tokens lie in; () for tokens in memory."""
    first_token: int = 0
    """Number of the first token in those files: above 0 for a part of a store that is not its first."""

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int | None:
        """Number of documents; None if the format has no documents."""
        return None if self.document_offsets is None else len(self.document_offsets) - 1

    def id_range(self) -> tuple[int, int]:
        """Smallest and largest token id: as the metadata says, or in the first NUM_PROBED_TOKENS tokens.

        (0, -1) for a store without tokens whose metadata says nothing.
        """
        recorded = self.metadata.get("vocab_size")
        if recorded is not None or self.num_tokens == 0:
            return 0, (recorded or 0) - 1
        probed = self.tokens[:NUM_PROBED_TOKENS]
        return int(probed.min()), int(probed.max())

    def part(self, start: int, stop: int) -> "TokenStore":
        """The documents from `start` to `stop` (not included) as a store; the tokens, if it has no documents.

        Nothing is copied. Of the metadata the counts go, but for `text_bytes`: its share by tokens, so that
        the bytes per token stay.
        """
        offsets = self.document_offsets
        first, last = (start, stop) if offsets is None else (int(offsets[start]), int(offsets[stop]))
        metadata = {key: value for key, value in self.metadata.items() if key not in ("documents", "tokens")}
        if "text_bytes" in metadata and self.num_tokens:
            metadata["text_bytes"] = round(metadata["text_bytes"] * (last - first) / self.num_tokens)
        return TokenStore(
            self.path,
            self.tokens.part(first, last)
            if isinstance(self.tokens, ChunkedTokens)
            else self.tokens[first:last],
            None if offsets is None else offsets[start : stop + 1] - first,
            metadata,
            None if self.prompts is None else self.prompts[start:stop],
            self.files,
            self.first_token + first,
        )

    def fingerprint(self) -> str:
        """Hex digest of the dtype, the sizes, the document offsets and 16 pieces of the tokens.

        It depends on the content alone, not on path, times or format, and reads 1 MiB of the tokens of a
        store of any size, once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = blake2b(f"{self.tokens.dtype.name} {self.num_tokens}".encode(), digest_size=16)
        length = EDGE_BYTES // self.tokens.dtype.itemsize
        for start in np.linspace(0, max(0, self.num_tokens - length), NUM_PROBES, dtype=np.int64):
            digest.update(np.ascontiguousarray(self.tokens[start : start + length]).data)
        if self.document_offsets is not None:
            digest.update(self.document_offsets.data)
        return digest.hexdigest()


class StoreFormat(NamedTuple):
    """One way in which tokens lie on disk."""

    claims: Callable[[str], bool]
    """Whether the files at a path are there and of this format, judged by names alone."""
    open: Callable[[str, str | None], TokenStore]
    """(path, dtype or None) -> the store; raises ValueError if its files are damaged or hold no token ids."""


def map_tokens(path: Path, dtype: np.dtype, num_tokens: int) -> np.ndarray:
    """The tokens of a file that holds nothing else, mapped and not read."""
    if num_tokens == 0:
        return np.empty(0, dtype)  # an empty file cannot be mapped
    mapped = np.memmap(path, dtype, mode="r", shape=(num_tokens,))
    return mapped.view(np.ndarray)  # slicing a memmap object costs several times what slicing an array does


def parse_dtype(name: str) -> np.dtype:
    """The dtype of a name that a user gave.

    Raises: ValueError: NumPy does not know it.
    """
    try:
        return np.dtype(name)
    except TypeError:
        raise ValueError(f"dtype {name!r} is not known: give an integer dtype such as uint16") from None


def prefix_of(path: str) -> str:
    """The path of a .bin, an .idx or both, without suffix."""
    return path.removesuffix(".bin").removesuffix(".idx")
