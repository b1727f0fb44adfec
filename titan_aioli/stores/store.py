"""Token stores: one data group's tokens on disk, mapped into memory, any stretch by random access.

    store = open_store("stores/web/train")          # Megatron .bin + .idx, as `titan-aioli tokenize` makes
    store = open_store("web.npy")                   # a flat NumPy array
    store = open_store("web.bin", dtype="uint16")   # raw little-endian integers
    store = open_store("web_tokenized:input_ids")   # a Hugging Face dataset saved to disk

Every number is checked before anything is mapped; nothing is copied, so opening takes milliseconds.
"""

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from titan_aioli.files import EDGE_BYTES
from titan_aioli.stores.arrow import ChunkedTokens, is_dataset_folder, open_dataset_folder
from titan_aioli.stores.megatron import REMEDY, read_index
from titan_aioli.stores.metadata import read_sidecar

__all__ = ["ChunkedTokens", "TokenStore", "open_store"]

NUM_PROBES = 16
"""Stretches of 64 KiB that a fingerprint reads, evenly spread, the first and the last included."""


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Tokens on disk, and what is known of them."""

    path: str
    """As it was given."""
    tokens: np.ndarray | ChunkedTokens
    """Integers [num_tokens], memory-mapped; a slice is an ndarray."""
    document_offsets: np.ndarray | None = None
    """int64 [D + 1], where every document starts, and num_tokens; None if the format does not say."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """PREFIX.json as `titan-aioli tokenize` writes it: documents, tokens, text_bytes, tokenizer, vocab_size,
    end_of_document, group, split, shares. {} where there is none."""

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int | None:
        """None if the format does not say."""
        return None if self.document_offsets is None else len(self.document_offsets) - 1

    def fingerprint(self) -> str:
        """Hex digest of the dtype, the sizes, the document offsets and 16 stretches of the tokens.

        It depends on the content alone, not on path, times or format, and reads 1 MiB of a store of any size.
        """
        digest = blake2b(f"{self.tokens.dtype.name} {self.num_tokens}".encode(), digest_size=16)
        length = EDGE_BYTES // self.tokens.dtype.itemsize
        for start in np.linspace(0, max(0, self.num_tokens - length), NUM_PROBES, dtype=np.int64):
            digest.update(np.ascontiguousarray(self.tokens[start : start + length]).data)
        if self.document_offsets is not None:
            digest.update(self.document_offsets.data)
        return digest.hexdigest()


def open_store(path: str | Path, dtype: str | None = None) -> TokenStore:
    """The token store at a path.

    Args:
        path: prefix of a Megatron .bin and .idx (with or without suffix), a .npy file, a raw .bin without
            .idx, or a tokenized Hugging Face dataset on disk, FOLDER or FOLDER:COLUMN (default: input_ids).
        dtype: integer dtype of a raw .bin, such as uint16. The other formats say theirs.
    Raises:
        FileNotFoundError: there is no store.
        ValueError: there is one, but it is damaged or holds no token ids; says what was found and expected.
    """
    name = str(path)
    folder, colon, column = name.rpartition(":")
    if not (colon and os.path.isdir(folder)):
        folder, column = name, "input_ids"
    if is_dataset_folder(folder):
        tokens, document_offsets = open_dataset_folder(folder, column)
        store = TokenStore(name, tokens, document_offsets)
    elif name.endswith(".npy"):
        store = TokenStore(name, _map_npy(name), None, read_sidecar(name.removesuffix(".npy")))
    else:
        store = _open_prefix(name, dtype)
    if dtype is not None and _dtype(dtype) != store.tokens.dtype:
        raise ValueError(
            f"{name}: the store says its dtype is {store.tokens.dtype}, but {dtype} was given: leave it out"
        )
    return store


def _open_prefix(name: str, dtype: str | None) -> TokenStore:
    prefix = name.removesuffix(".bin").removesuffix(".idx")
    data, index = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    if not data.is_file():
        raise FileNotFoundError(_missing(name, data))
    if index.is_file():
        return _open_megatron(name, prefix)
    if dtype is None:
        raise ValueError(
            f"{data} is there, but not its index {index}: make the store again with `titan-aioli tokenize`, "
            "or give the dtype if this is a raw array of tokens"
        )
    kind = _dtype(dtype)
    if kind.kind not in "iu":
        raise ValueError(f"{data}: dtype {dtype} holds no token ids: give an integer dtype such as uint16")
    size = os.path.getsize(data)
    if size % kind.itemsize:
        raise ValueError(
            f"{data}: {size} bytes are no whole number of {kind} ({kind.itemsize} bytes each); {REMEDY}"
        )
    return TokenStore(name, _map(data, kind, size // kind.itemsize), None, read_sidecar(prefix))


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        raise ValueError(f"dtype {name!r} is not known: give an integer dtype such as uint16") from None


def _open_megatron(name: str, prefix: str) -> TokenStore:
    index = read_index(Path(f"{prefix}.idx"))
    data = Path(f"{prefix}.bin")
    num_tokens = int(index.document_offsets[-1])
    expected, found = num_tokens * index.dtype.itemsize, os.path.getsize(data)
    if found != expected:
        raise ValueError(
            f"{data}: holds {found} bytes, expected {expected} for the {num_tokens} tokens of {index.dtype} "
            f"that {prefix}.idx counts; {REMEDY}"
        )
    metadata = read_sidecar(prefix)
    counts = {"tokens": num_tokens, "documents": len(index.document_offsets) - 1}
    for key, count in counts.items():
        if metadata.get(key, count) != count:
            raise ValueError(
                f"{prefix}.json: says {metadata[key]} {key}, but the index counts {count}: the files are not "
                "of one store. Make it again with `titan-aioli tokenize`"
            )
    return TokenStore(name, _map(data, index.dtype, num_tokens), index.document_offsets, metadata)


def _map(path: Path, dtype: np.dtype, num_tokens: int) -> np.ndarray:
    if num_tokens == 0:
        return np.empty(0, dtype)  # an empty file cannot be mapped
    mapped = np.memmap(path, dtype, mode="r", shape=(num_tokens,))
    return mapped.view(np.ndarray)  # slicing a memmap object costs several times what slicing an array does


def _map_npy(name: str) -> np.ndarray:
    if not os.path.isfile(name):
        raise FileNotFoundError(_missing(name, Path(name)))
    try:
        tokens = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{name}: not a whole NumPy array of integers ({error}); {REMEDY}") from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: an array of {tokens.dtype} and shape {list(tokens.shape)}, expected one flat array of "
            "integer token ids: save it with numpy.save(path, ids.reshape(-1).astype('uint16'))"
        )
    return tokens.view(np.ndarray)


def _missing(name: str, expected: Path) -> str:
    folder = Path(name)
    if folder.is_dir():
        inside = sorted(str(path.with_suffix("")) for path in folder.rglob("*.idx"))[:4]
        hint = f"the stores in it are {', '.join(inside)}" if inside else "it holds no token store"
        return f"{name} is a folder; {hint}. Give the path of a store without .bin or .idx"
    return f"no token store at {name} ({expected} does not exist): make one with `titan-aioli tokenize`"
