"""Documents out of files: JSONL, Parquet, text, Hugging Face datasets.

A source is read from its start to its end: a JSONL or Parquet file, a dataset, or a list of text files.
Reading is a plain generator in the calling process; it checks every document, and an error names the file and
the line.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from titan_aioli.stores.tokenize.sources import Source

GROUP_LONGEST = 200
"""Length of the longest group name, in characters."""
FORBIDDEN = '/\\:*?"<>|'
"""Characters that some file system refuses in a name: a group is a folder."""


class Document(NamedTuple):
    """One text and the group it belongs to."""

    text: str
    group: str


class Fields(NamedTuple):
    """Which fields of a record are read."""

    text: str
    """Field of the text, dotted where nested."""
    group_by: str | None
    """Field of the group's name, dotted where nested; None: every document belongs to `group`."""
    group: str | None
    """Name of the one group; None if `group_by` is given."""


def read_documents(source: Source, fields: Fields) -> Iterator[Document]:
    """The documents of a source, in order.

    Raises: ValueError: a record is wrong; names the file, the line and the reason.
    """
    for place, record in source.records(columns(fields)):
        text = record if isinstance(record, str) else lookup(record, fields.text, place)
        if not isinstance(text, str):
            raise ValueError(f"{place}: field {fields.text!r} is {_shown(text)}, expected a text")
        if fields.group_by is None:
            assert fields.group is not None
            yield Document(_encodable(text), fields.group)
        elif isinstance(record, str):
            raise ValueError(f"{place}: a text file has no field {fields.group_by!r}: use --group NAME")
        else:
            group = lookup(record, fields.group_by, place)
            yield Document(_encodable(text), group_name(group, f"{place}: field {fields.group_by!r}"))


def columns(fields: Fields) -> list[str]:
    """The names of the fields that must be read."""
    return [fields.text] if fields.group_by is None else [fields.text, fields.group_by]


def lookup(record: Any, field: str, place: str) -> Any:
    """The value of a field; `a.b` is field b of field a, unless a field's own name contains the dot.

    Raises: ValueError: no such field; lists the fields there are.
    """
    value, rest = record, field
    while isinstance(value, dict) and rest:
        if rest in value:
            return value[rest]
        name, _, rest = rest.partition(".")
        if name not in value:
            break
        value = value[name]
    there = ", ".join(map(str, value)) if isinstance(value, dict) else _shown(value)
    raise ValueError(f"{place}: no field {field!r}; found {there}")


def group_name(name: Any, place: str) -> str:
    """A group's name, which becomes a folder's.

    Raises: ValueError: not a text, empty, too long, or not usable as a folder's name.
    """
    if not isinstance(name, str):
        raise ValueError(f"{place} is {_shown(name)}, expected the name of a group")
    bad = sorted({char for char in name if char in FORBIDDEN or ord(char) < 32})
    if bad or not name.strip() or name != name.strip() or name.startswith(".") or len(name) > GROUP_LONGEST:
        raise ValueError(
            f"{place} is {_shown(name)}, but a group's name is a folder's: 1 to {GROUP_LONGEST} characters, "
            f"none of {FORBIDDEN}, no dot at the start, no space at either end"
        )
    return name


def _encodable(text: str) -> str:
    """The text with lone surrogates, which JSON can express and UTF-8 cannot, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _shown(value: Any) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
