"""Tokens as datatrove's DocumentTokenizer writes them: NAME.ds, NAME.ds.index, or a folder of such shards.

A .ds file is nothing but token ids, little-endian; its index holds the end of every document as uint64, in
tokens. So the size of the data says how many bytes a token has. Shards of a folder are read as one store, in
the order of their names, without those of tasks that had no document: datatrove leaves their data empty, and
their index empty, all zeros or away.
"""

import os
from pathlib import Path

import numpy as np

from titan_aioli.stores.raw import map_raw
from titan_aioli.stores.tokens import REMEDY, ChunkedTokens, StoreFormat, TokenStore, parse_dtype

SUFFIX = ".ds"
DTYPES = {2: "uint16", 4: "uint32"}


def _claims(path: str) -> bool:
    if os.path.isdir(path):
        return any(name.endswith(SUFFIX) for name in os.listdir(path))
    return path.endswith(SUFFIX) and os.path.isfile(path)


def _open(path: str, dtype: str | None) -> TokenStore:
    files = _shards(Path(path)) if os.path.isdir(path) else [Path(path)]
    chunks, offsets = [], [np.zeros(1, dtype=np.int64)]
    for file in files:
        ends = _document_ends(file)
        chunks.append(map_raw(file, _dtype(file, int(ends[-1]), dtype)))
        offsets.append(ends + offsets[-1][-1])
    if len({chunk.dtype for chunk in chunks}) > 1:
        raise ValueError(f"{path}: its shards have tokens of 2 and of 4 bytes: give them as separate stores")
    tokens = chunks[0] if len(chunks) == 1 else ChunkedTokens(chunks)
    return TokenStore(path, tokens, np.concatenate(offsets), files=tuple(map(str, files)))


def _shards(folder: Path) -> list[Path]:
    """The shards of a folder that hold tokens, by name."""
    shards = sorted(folder.glob(f"*{SUFFIX}"))
    filled = [shard for shard in shards if not _is_empty(shard)]
    if not filled:
        raise ValueError(f"{folder}: none of its {len(shards)} shards holds a token: name another folder")
    return filled


def _is_empty(shard: Path) -> bool:
    index = Path(f"{shard}.index")
    has_tokens = shard.stat().st_size > 0 or (index.is_file() and any(index.read_bytes()))
    return not has_tokens


def _document_ends(file: Path) -> np.ndarray:
    """int64 [documents], where each document ends."""
    index = Path(f"{file}.index")
    if not index.is_file():
        raise ValueError(
            f"{file} has no index {index.name}: datatrove writes it beside the data: copy it there"
        )
    content = index.read_bytes()
    ends = np.frombuffer(content[: len(content) // 8 * 8], "<u8").astype(np.int64)
    if not len(ends) or len(content) % 8 or (np.diff(ends, prepend=0) < 0).any():
        raise ValueError(f"{index}: not the ends of documents as datatrove writes them; {REMEDY}")
    return ends


def _dtype(file: Path, num_tokens: int, given: str | None) -> str:
    """Name of the token type: what fits the size of the data and the number of tokens.

    A given type of another width is left out, so that `open_store` refuses it.
    """
    size = os.path.getsize(file)
    found = next((name for width, name in DTYPES.items() if size == width * num_tokens), None)
    if found is None:
        raise ValueError(
            f"{file}: {size} bytes for the {num_tokens} tokens of its index, neither 2 nor 4 each; {REMEDY}"
        )
    is_as_wide = given is not None and parse_dtype(given).itemsize == parse_dtype(found).itemsize
    return given if given is not None and is_as_wide else found


DATATROVE = StoreFormat(_claims, _open)
