"""Small file habits that everything in `titan_aioli.data` shares.

A file appears under its name only when it is whole: it is written beside it, flushed to disk and renamed.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

EDGE_BYTES = 65536
READ_BYTES = 1 << 20
LARGEST_JSON_BYTES = 1 << 26


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends, and never if the block fails.

    Args:
        path: the file to make or replace. Until then the bytes are in PATH.PID.tmp.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_json(path: str | Path, what: str) -> Any:
    """The content of a small JSON file that somebody else may have made.

    Args:
        path: the file.
        what: what it should be, for the message.
    Raises: ValueError: too large, or not JSON.
    """
    size = os.path.getsize(path)
    if size > LARGEST_JSON_BYTES:
        raise ValueError(f"{path} is not {what}: it has {size} bytes, at most {LARGEST_JSON_BYTES} are read")
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not {what}: not JSON ({error})") from None


COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Compressions that are read, by the suffix of a file."""
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
"""First bytes of the compressions that are read."""


def open_compressed(path: str | Path) -> BinaryIO:
    """The bytes of a file, decompressed if its suffix, in any case, or its first bytes are of a compression.

    Arrow's streams take files of several frames, and raise OSError for one that was not copied whole (the
    usual zstandard stream just ends there).
    """
    import pyarrow as pa

    compression = COMPRESSIONS.get(Path(path).suffix.casefold())
    if compression is None:
        with open(path, "rb") as file:
            head = file.read(10)
        compression = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        if compression == "bz2" and head[4:10] != b"1AY&SY":  # a text may start with BZh
            compression = None
    stream = pa.input_stream(str(path), compression=compression)
    return io.BufferedReader(stream, READ_BYTES)  # pyright: ignore


def edges_digest(path: str | Path) -> str:
    """Hex digest of a file's size and its first and last 64 KiB: cheap for files of any size."""
    size = os.path.getsize(path)
    digest = blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        digest.update(file.read(EDGE_BYTES))
        if size > EDGE_BYTES:
            file.seek(max(EDGE_BYTES, size - EDGE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()
