"""Documents out of files: JSONL, Parquet, text, Hugging Face datasets.

A source is read from its start to its end: a JSONL or Parquet file, a dataset, or a list of text files.
Reading is a plain generator in the calling process; it checks every document, and an error names the file and
the line.
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from titan_aioli.stores.tokenize.left_out import LeftOut
from titan_aioli.stores.tokenize.sources import Source

GROUP_LONGEST = 200
"""Length of the longest group name, in characters."""
LONGEST_BYTES = 240
"""Length of the longest group name in bytes: file systems allow 255, and work folders need some of them."""
FORBIDDEN = '/\\:*?"<>|'
"""Characters that some file system refuses in a name: a group is a folder."""


class WrongCommand(ValueError):
    """A group cannot be made of what the inputs hold, so that leaving out lines would lose it."""


class Document(NamedTuple):
    """One text and the group it belongs to."""

    text: str
    group: str
    prompt: str | None = None
    """What stands before the text and does not count; None for a whole document."""
    place: str = ""
    """Where it was read: file and line."""


class Fields(NamedTuple):
    """Which fields of a record are read."""

    text: str
    """Field of the text, dotted where nested."""
    group_by: str | None
    """Field of the group's name, dotted where nested; None: every document belongs to `group`."""
    group: str | None
    """Name of the one group; None if `group_by` is given."""
    prompt: str | None = None
    """Field of the prompt, dotted where nested; None: documents are texts alone."""
    renamed: Mapping[str, str] = MappingProxyType({})
    """Group names by what the field says, where they differ."""


Spellings = dict[str, tuple[str, str]]
"""By the name found that a number could also give, how it was written first, and where."""


def read_documents(
    source: Source, fields: Fields, left_out: LeftOut, spellings: Spellings | None = None
) -> Iterator[Document]:
    """The documents of a source, in order; a null text is an empty one.

    Args:
        spellings: of the sources read before; those of this one are added.
    Raises: ValueError: a record is wrong and `left_out` refuses it; names the file, the line and the reason.
    """
    labels = None if fields.group_by is None else source.labels(fields.group_by)
    spellings = {} if spellings is None else spellings
    for place, record in source.records(columns(fields)):
        try:
            document = _document(place, record, fields, labels, spellings)
        except WrongCommand:  # whatever the line: it is the command that does not fit the inputs
            raise
        except ValueError as error:
            left_out.bad(error)
            continue
        if not document.text:
            left_out.empty()
        yield document


def _document(
    place: str, record: Any, fields: Fields, labels: list[str] | None, spellings: Spellings
) -> Document:
    """Raises: ValueError: the record is none, or has no text or no group."""
    if isinstance(record, ValueError):
        raise record
    text, prompt = record if isinstance(record, str) else _text(record, fields.text, place), None
    if fields.prompt is not None:
        if isinstance(record, str):
            raise WrongCommand(f"{place}: a text file has no field {fields.prompt!r}")
        prompt = _encodable(_text(record, fields.prompt, place))
    if fields.group_by is None:
        assert fields.group is not None
        return Document(_encodable(text), fields.group, prompt, place)
    if isinstance(record, str):
        raise WrongCommand(f"{place}: a text file has no field {fields.group_by!r}: use --group NAME")
    where = f"{place}: field {fields.group_by!r}"
    value = lookup(record, fields.group_by, place)
    found = _label(value, labels, where)
    if not isinstance(found, str):
        raise ValueError(f"{where} is {_shown(found)}, expected the name of a group")
    _refuse_two_spellings(found, isinstance(value, int) and labels is None, where, spellings)
    try:
        name = group_name(fields.renamed.get(found, found), where)
    except ValueError as error:
        raise WrongCommand(str(error)) from None
    if found not in fields.renamed and name in fields.renamed.values():
        raise WrongCommand(f"{where} is {name!r}, the name that --group-name gives to another group")
    return Document(_encodable(text), name, prompt, place)


def _refuse_two_spellings(found: str, is_number: bool, where: str, spellings: Spellings) -> None:
    """Raises: WrongCommand: a number and a text would become one group, such as 0 and "0"."""
    if not is_number and not found.removeprefix("-").isdecimal():
        return
    written = f"the number {found}" if is_number else f"the text {_shown(found)}"
    first, there = spellings.setdefault(found, (written, where))
    if first != written:
        raise WrongCommand(
            f"{where} is {written}, and {there} is {first}: both would be the group {found!r}: "
            "write it in one way in all inputs, or give one of them another value"
        )


def _text(record: Any, field: str, place: str) -> str:
    """The text of a field; a null one is empty.

    Raises: ValueError: no such field, or no text in it.
    """
    text = lookup(record, field, place)
    if isinstance(text, bytes):
        text = _decoded(text, f"{place}: field {field!r}")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"{place}: field {field!r} is {_shown(text)}, expected a text")
    return text


def _label(value: Any, labels: list[str] | None, where: str) -> Any:
    """What a field says of the group: a text as it is, a number as a text or by the dataset's class labels.

    Raises: ValueError: a label without a name, or bytes that are no text.
    """
    if isinstance(value, bytes):
        return _decoded(value, where)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if labels is None:
        return str(value)
    if not 0 <= value < len(labels):
        raise ValueError(f"{where} is {value}, and the dataset names {len(labels)} classes")
    return labels[value]


def columns(fields: Fields) -> list[str]:
    """The names of the fields that must be read."""
    return [field for field in (fields.text, fields.group_by, fields.prompt) if field is not None]


def lookup(record: Any, field: str, place: str) -> Any:
    """The value of a field; `a.b` is field b of field a, unless a field's own name contains the dot.

    Field a may also be an Arrow map (a list of pairs), or a text that holds a JSON object.

    Raises: ValueError: no such field; lists the fields there are.
    """
    value, rest = record, field
    while isinstance(value, dict) and rest:
        if rest in value:
            return value[rest]
        name, _, rest = rest.partition(".")
        if name not in value:
            break
        value = _opened(value[name]) if rest else value[name]
    there = ", ".join(map(str, value)) if isinstance(value, dict) else _shown(value)
    raise ValueError(f"{place}: no field {field!r}; found {there}")


def group_name(name: str, place: str) -> str:
    """A group's name, which becomes a folder's.

    Raises: ValueError: empty, too long, or not usable as a folder's name.
    """
    bad = sorted({char for char in name if char in FORBIDDEN or ord(char) < 32})
    is_long = len(name) > GROUP_LONGEST or len(name.encode(errors="replace")) > LONGEST_BYTES
    if bad or not name.strip() or name != name.strip() or name.startswith(".") or is_long:
        raise ValueError(
            f"{place} is {_shown(name)}, but a group's name is a folder's: 1 to {GROUP_LONGEST} characters "
            f"(at most {LONGEST_BYTES} bytes), none of {FORBIDDEN}, no dot at the start, no space at an end: "
            "give it another one with --group-name, such as --group-name en/web=web"
        )
    if name.endswith((".partial", ".done.json")):
        raise ValueError(
            f"{place} is {_shown(name)}, but names that end so are those of the work on a group: give it "
            "another one with --group or --group-name"
        )
    if any(0xD800 <= ord(char) < 0xE000 for char in name):
        raise ValueError(f"{place} is {_shown(name)}, half of a character, which no folder's name can hold")
    return name


def _opened(value: Any) -> Any:
    """A map or a JSON text as a dict; anything else as it is."""
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return dict(value)
    if isinstance(value, str | bytes) and value.lstrip()[:1] in ("{", b"{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _decoded(value: bytes, where: str) -> str:
    """Raises: ValueError: the bytes are no text in UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not a text in UTF-8: {error}") from None


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
