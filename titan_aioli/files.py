"""Small file habits that the whole package shares: files that are whole or not there, JSON, TOML.

A file appears under its name only when it is whole: it is written beside it, flushed to disk and renamed.
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from titan_aioli.errors import UserError
from titan_aioli.values import fits, in_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EDGE_BYTES = 65536
READ_BYTES = 1 << 20
LARGEST_JSON_BYTES = 1 << 26


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of the system while a file is written name it: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends, and never if the block fails.

    Args:
        path: the file to make or replace. Until then the bytes are in PATH.PID.tmp.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with naming(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def to_plain(value: Any, nan_as_null: bool = False) -> Any:
    """The value as JSON knows it: arrays and tuples become lists, NumPy's numbers Python's, paths strings.

    Args:
        value: anything; what is none of these, alone or inside of dicts and lists, stays as it is.
        nan_as_null: whether nan and infinities become None: strict JSON has no word for them.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        if not nan_as_null:
            return value
    if isinstance(value, Mapping):
        return {key: to_plain(item, nan_as_null) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, nan_as_null) for item in value]
    if isinstance(value, Path):
        return str(value)
    if nan_as_null and isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_json(
    path: str | Path, content: Any, *, indent: int = 1, sort_keys: bool = False, nan_as_null: bool = False
) -> None:
    """Write a small JSON file, whole or not at all; the folder is made where it is missing.

    Args:
        path: the file to make or replace.
        content: as `to_plain` takes it.
        indent: spaces per level.
        sort_keys: whether equal contents give equal bytes, whatever the order of their keys.
        nan_as_null: whether nan becomes null; otherwise it is written as NaN, which Python reads.
    """
    text = json.dumps(to_plain(content, nan_as_null), indent=indent, sort_keys=sort_keys)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises: OSError: it cannot be read. ValueError: it is not TOML, or not UTF-8.
    """
    with open(path, "rb") as file:
        return tomllib.load(file)


def refuse_unwritable(folder: Path, said: str) -> None:
    """Refuse a folder that nothing can be written into, or that cannot be made. Nothing is left behind.

    Args:
        folder: that something will be written into.
        said: how the user named it, for the error.
    Raises: UserError: it is a file, or the system lets nothing be written there.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{said} cannot be written: {error}") from None


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


def read_object(
    path: str | Path, what: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of a small JSON file that holds an object.

    Args:
        path, what: as `read_json` takes them.
        required: types of the values of keys that must be there.
        optional: types of the values of keys that may be there, beside others.
    Raises: ValueError: it is no such object; names the key, the value and the type.
    """
    content = read_json(path, what)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not {what}: it must hold an object {{...}}")
    for key, hint in {**required, **(optional or {})}.items():
        if key not in content and key in required:
            raise ValueError(f"{path} is not {what}: it has no {key!r}")
        if key in content and not fits(content[key], hint):
            raise ValueError(f"{path} is not {what}: {key} is {content[key]!r}: it must be {in_words(hint)}")
    return content


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
    file = open(path, "rb")  # noqa: SIM115, the stream closes it; Arrow's own takes names in UTF-8 only
    stream = pa.input_stream(file, compression=compression)
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
