"""Raw little-endian token ids: PREFIX.bin with no index, of a dtype that the caller must know."""

import os
from pathlib import Path

import numpy as np

from titan_aioli.stores.metadata import read_sidecar
from titan_aioli.stores.tokens import REMEDY, StoreFormat, TokenStore, map_tokens, parse_dtype, prefix_of


def _claims(path: str) -> bool:
    return os.path.isfile(f"{prefix_of(path)}.bin")


def _open(path: str, dtype: str | None) -> TokenStore:
    prefix = prefix_of(path)
    data = Path(f"{prefix}.bin")
    if dtype is None:
        raise ValueError(
            f"{data} is there, but not its index {prefix}.idx: make the store again with `titan-aioli "
            "tokenize`, or give the dtype if this is a raw array of tokens"
        )
    return TokenStore(path, map_raw(data, dtype), None, read_sidecar(prefix), files=(str(data),))


def map_raw(data: Path, dtype: str) -> np.ndarray:
    """A file of nothing but token ids of a dtype, mapped.

    Raises: ValueError: the dtype holds no ids, or the file is no whole number of them.
    """
    kind = parse_dtype(dtype)
    if kind.kind not in "iu":
        raise ValueError(f"{data}: dtype {dtype} holds no token ids: give an integer dtype such as uint16")
    size = os.path.getsize(data)
    if size % kind.itemsize:
        raise ValueError(
            f"{data}: {size} bytes are no whole number of {kind} ({kind.itemsize} bytes each); {REMEDY}"
        )
    return map_tokens(data, kind, size // kind.itemsize)


RAW = StoreFormat(_claims, _open)
