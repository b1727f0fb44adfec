"""Tables as sources of documents: Parquet files, and Hugging Face datasets on disk or of the hub."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from titan_aioli.files import edges_digest
from titan_aioli.stores.arrow import load_dataset_folder
from titan_aioli.stores.tokenize.sources import refuse_disk_error

HUB = "hf:"
ROWS_AT_ONCE = 1000


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
            refuse_disk_error(error, self.path)
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
