"""Where documents come from: files as streams of records with their places; tables are in tables.py.

A source yields (place, record): the place is for error messages (file and line), the record is a dict of
fields, or the text itself for a text file. A source also has an identity, a few facts that are cheap to read
(names, sizes, digests of the first and last bytes): a resumed run compares them to see that its inputs are
the same.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from titan_aioli.files import edges_digest, open_compressed
from titan_aioli.stores.tokenize.content import not_as_named

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
            refuse_disk_error(error, self.path)
            what = f"cannot be read beyond line {number}: {error}{_remedy(self.path, error)}"
            yield str(self.path), ValueError(f"{self.path}: {what}")

    def labels(self, field: str) -> None:
        return None


@dataclass(frozen=True)
class TextFiles:
    """One document per file, in UTF-8."""

    files: tuple[tuple[str, Path], ...]
    """Pairs (name relative to the input folder, path)."""

    def identity(self) -> list[Any]:
        digest = blake2b(digest_size=16)
        for name, path in self.files:
            digest.update(os.fsencode(f"{name}\0{edges_digest(path)}\0"))  # names need not be UTF-8
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


def refuse_disk_error(error: BaseException, path: Path) -> None:
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
        refuse_disk_error(error, path)
        return ValueError(f"{path}: cannot be read: {error}{_remedy(path, error)}")
    if "\0" in text:
        return ValueError(f"{path}: a binary file (it contains NUL bytes): remove it from the inputs")
    return text


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
