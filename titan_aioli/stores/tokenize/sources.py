"""Where documents come from: each kind of input as a stream of records with their places.

A source yields (place, record): the place is for error messages (file and line), the record is a dict of
fields, or the text itself for a text file. A source also has an identity, a few facts that are cheap to read
(names, sizes, digests of the first and last bytes): a resumed run compares them to see that its inputs are
the same.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from titan_aioli.files import edges_digest, open_compressed
from titan_aioli.stores.arrow import load_dataset_folder
from titan_aioli.stores.tokenize.content import not_as_named

HUB = "hf:"
ROWS_AT_ONCE = 1000

TO_LINES = "; the file seems to be one JSON array: convert it with `jq -c '.[]'`"
"""End of the message about a file that starts with an array."""
REMEDIES = {
    "Frame requires too much memory": "; it was compressed with a long window (zstd --long): compress it "
    "again without, with `zstd -dc --long=31 FILE | zstd`",
    "zlib inflate failed": "; the file is damaged or other bytes follow its gzip data: write it again, with "
    "`gzip -dc FILE | gzip`",
}
"""Ends of messages by what the decompressor says."""


class DiskError(OSError):
    """The system cannot read a file, which may be sound: it is never left out."""


class Source(Protocol):
    """One input, read from its start to its end."""

    def identity(self) -> list[Any]:
        """JSON values that change when the content does."""
        ...

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        """(place, record) in order; only the given fields need to be read.

        In place of a record that cannot be read there is a ValueError that names the file and the line; of a
        file that cannot be read any further it is the last.

        Raises: DiskError: the system cannot read the file: it is not the content that is bad.
        """
        ...

    def labels(self, field: str) -> list[str] | None:
        """Names of the numbers in a field of class labels; None where it is none."""
        ...


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line; plain, .gz, .zst or .bz2."""

    path: Path

    def identity(self) -> list[Any]:
        return ["jsonl", self.path.name, edges_digest(self.path)]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        number = 0
        try:
            with open_compressed(self.path) as file:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        place = f"{self.path}, line {number}"
                        yield place, _parse(line, place)
        except OSError as error:
            _refuse_disk_error(error, self.path)
            what = f"cannot be read beyond line {number}: {error}{_remedy(self.path, error)}"
            yield str(self.path), ValueError(f"{self.path}: {what}")

    def labels(self, field: str) -> None:
        return None


@dataclass(frozen=True)
class Parquet:
    """One row per document."""

    path: Path

    def identity(self) -> list[Any]:
        return ["parquet", self.path.name, edges_digest(self.path)]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        from pyarrow import ArrowException, parquet

        number = 0
        try:
            with parquet.ParquetFile(self.path, memory_map=True) as file:
                names = file.schema_arrow.names
                for field in fields:
                    if _column(file.schema_arrow, field) is None:
                        raise ValueError(f"{self.path}: no column {field!r}; it has {', '.join(names)}")
                read = [_column(file.schema_arrow, field) for field in fields]
                rows = (row for some in file.iter_batches(ROWS_AT_ONCE, columns=read) for row in _rows(some))
                for number, row in enumerate(rows, 1):
                    yield f"{self.path}, row {number}", _placed(row, f"{self.path}, row {number}")
        except (ArrowException, OSError) as error:
            _refuse_disk_error(error, self.path)
            what = f"not a whole Parquet file (after row {number}): {error}"
            yield str(self.path), ValueError(f"{self.path}: {what}")

    def labels(self, field: str) -> list[str] | None:
        """As the `datasets` library writes them beside the schema."""
        from pyarrow import ArrowException, parquet

        try:
            described = (parquet.read_schema(self.path).metadata or {}).get(b"huggingface", b"{}")
            feature = _nested(json.loads(described)["info"]["features"], field)
            return list(feature["names"]) if feature["_type"] == "ClassLabel" else None
        except (ArrowException, OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class TextFiles:
    """One document per file, in UTF-8."""

    files: tuple[tuple[str, Path], ...]
    """Pairs (name relative to the input folder, path)."""

    def identity(self) -> list[Any]:
        digest = blake2b(digest_size=16)
        for name, path in self.files:
            digest.update(f"{name}\0{edges_digest(path)}\0".encode())
        return ["text", len(self.files), digest.hexdigest()]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        for _, path in self.files:
            yield str(path), _read_text(path)

    def labels(self, field: str) -> None:
        return None


@dataclass(frozen=True)
class ForeignFile:
    """A file of another kind than its name says, as one bad line; only where bad lines are left out."""

    path: Path
    reason: str

    def identity(self) -> list[Any]:
        return ["foreign", self.path.name, edges_digest(self.path)]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        yield str(self.path), ValueError(self.reason)

    def labels(self, field: str) -> None:
        return None


@dataclass(frozen=True)
class SavedDataset:
    """A Hugging Face dataset on disk, made by `save_to_disk`."""

    folder: Path

    def identity(self) -> list[Any]:
        files = sorted(self.folder.glob("*.arrow"))
        return ["dataset", self.folder.name, [edges_digest(path) for path in files]]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        dataset = load_dataset_folder(str(self.folder))
        tables = dataset.with_format("arrow").iter(ROWS_AT_ONCE)
        for number, row in enumerate((row for table in tables for row in _rows(table)), 1):
            yield f"{self.folder}, row {number}", _placed(row, f"{self.folder}, row {number}")

    def labels(self, field: str) -> list[str] | None:
        return getattr(_nested(load_dataset_folder(str(self.folder)).features, field), "names", None)


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hugging Face hub, or a local folder as the hub would hold it, streamed."""

    name: str
    config: str | None
    split: str

    def identity(self) -> list[Any]:
        return ["hub", self.name, self.config, self.split, self.revision]

    def records(self, fields: list[str]) -> Iterator[tuple[str, Any]]:
        import datasets

        place = f"{HUB}{self.name}"
        try:
            stream = datasets.load_dataset(
                self.name, self.config, split=self.split, streaming=True, revision=self.revision
            )
            for number, row in enumerate(stream, 1):
                yield f"{place}, row {number}", row
        except Exception as error:  # the network, the hub and every file format raise their own kinds
            raise ValueError(
                f"{place}: cannot be read: {error}. Run the same command again to continue"
            ) from error

    def labels(self, field: str) -> list[str] | None:
        import datasets

        try:
            stream = datasets.load_dataset(
                self.name, self.config, split=self.split, streaming=True, revision=self.revision
            )
            return getattr(_nested(stream.features, field), "names", None)
        except Exception:  # reading the rows says what is wrong
            return None

    @cached_property
    def revision(self) -> str | None:
        """The commit that is read, fixed at the first use; None for a local folder."""
        if os.path.isdir(self.name):
            return None
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.name).sha
        except Exception as error:  # offline, no such name, no right to read
            raise ValueError(f"{HUB}{self.name}: the Hugging Face hub does not give it: {error}") from None


def _rows(table: Any) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of an Arrow table or batch; in place of one whose bytes are no UTF-8 the error."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for at in range(table.num_rows):
            try:
                yield from table.slice(at, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield error


def _placed(row: Any, place: str) -> Any:
    """The row, or its error with the place."""
    return ValueError(f"{place}: not a text in UTF-8: {row}") if isinstance(row, ValueError) else row


def _refuse_disk_error(error: BaseException, path: Path) -> None:
    """Raises: DiskError: the system cannot read the file; those of decompressors have no errno."""
    if getattr(error, "errno", None) is not None:
        raise DiskError(f"{path}: cannot be read: {error}")


def _read_text(path: Path) -> str | ValueError:
    """The text of a file without a byte order mark, or why it is none."""
    try:
        with open_compressed(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return ValueError(f"{path}: not a text in UTF-8 ({error}): remove it from the inputs")
    except OSError as error:
        _refuse_disk_error(error, path)
        return ValueError(f"{path}: cannot be read: {error}{_remedy(path, error)}")
    if "\0" in text:
        return ValueError(f"{path}: a binary file (it contains NUL bytes): remove it from the inputs")
    return text


def _nested(features: Any, field: str) -> Any:
    """The feature of a field, dotted where nested; None if there is no such."""
    while isinstance(features, dict):
        if field in features:
            return features[field]
        name, dot, field = field.partition(".")
        features = features.get(name) if dot else None
    return None


def _column(schema: Any, field: str) -> str | None:
    """The column to read for a field: its own, at any depth of structs, or the one that holds it as a text
    or a map. None if there is no such column.
    """
    from pyarrow import types

    names = {name: schema.field(name).type for name in schema.names}
    path, rest = [], field
    while rest not in names:
        name, dot, rest = rest.partition(".")
        if not dot or name not in names:
            return ".".join(path) or None
        path.append(name)
        if not types.is_struct(names[name]):
            return ".".join(path)
        names = {inner.name: inner.type for inner in names[name]}
    return ".".join([*path, rest])


def _parse(line: bytes, place: str) -> dict[str, Any] | ValueError:
    """The object of a line, or why it is none."""
    if b"\0" in line:
        return ValueError(
            f"{place}: not JSON: it contains NUL bytes, as after a crash while it was written: remove them "
            "(`tr -d '\\000'`), or leave the line out with --on-bad-line skip"
        )
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # bad JSON, bytes that are not UTF-8, too deeply nested
        hint = TO_LINES if line.strip(b"\xef\xbb\xbf \t\r\n") == b"[" else ""
        return ValueError(f"{place}: not JSON: {error}{hint}")
    if not isinstance(record, dict):
        hint = TO_LINES if isinstance(record, list) else ""
        return ValueError(
            f"{place}: a JSON {type(record).__name__}, expected one object per line, {{...}}{hint}"
        )
    return record


def _remedy(path: Path, error: OSError) -> str:
    """What to do about an error of a decompressor; empty where it is not known."""
    renaming = not_as_named(path)
    if renaming is not None:
        return f"; {renaming}"
    return next((remedy for part, remedy in REMEDIES.items() if part in str(error)), "")
