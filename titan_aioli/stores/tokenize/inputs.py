"""The inputs of a command as sources: what each file is, and what is left out of a folder.

Everything in a folder is read, refused, or named as left out, hidden files and folders too.
A folder with data files (JSON lines, Parquet) is read as data; a folder without any is one of texts, one
document per file.
"""

import os
from collections import Counter
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

from titan_aioli.files import COMPRESSIONS
from titan_aioli.stores.arrow import is_dataset_folder
from titan_aioli.stores.tokenize.content import HEAD_BYTES, head_of, is_json_lines, refuse_foreign
from titan_aioli.stores.tokenize.sources import ForeignFile, JsonLines, Source, TextFiles
from titan_aioli.stores.tokenize.tables import HUB, HubDataset, Parquet, SavedDataset

ENDS = ("", *COMPRESSIONS)
JSON_LINES = tuple(f".{kind}{end}" for kind in ("jsonl", "ndjson") for end in ENDS)
JSON = tuple(f".json{end}" for end in ENDS)
PARQUET = (".parquet",)
HIDDEN = (".", "__pycache__")


class Inputs(NamedTuple):
    """What a command reads."""

    sources: list[Source]
    left_out: list[str]
    """One line for each folder of which some files are not read."""


def find_inputs(inputs: list[str], skip_foreign: bool = False) -> Inputs:
    """The sources of a command's inputs, in the order given; the files of a folder are sorted by name.

    Args:
        inputs: files, folders, or hf:OWNER/NAME[:CONFIG[:SPLIT]].
        skip_foreign: whether a file that is no text is a source of one bad line instead of refused.
    Raises:
        FileNotFoundError: an input that does not exist.
        ValueError: a folder without files, a file that is no text (names what it is), or one that is there
            twice.
    """
    found: list[Source] = []
    left_out: list[str] = []
    seen: set[Source | str] = set()
    for given in inputs:
        sources = [_hub(given)] if given.startswith(HUB) else _local(Path(given), left_out, skip_foreign)
        if not seen.isdisjoint(new := {os.path.realpath(given), *sources}):
            raise ValueError(
                f"input {given} was given before, by itself or in a folder: its documents would be there "
                "twice: give it once"
            )
        seen |= new
        found += sources
    return Inputs(_joined(found), left_out)


def _joined(found: list[Source]) -> list[Source]:
    """The sources, with files of text that follow each other as one."""
    sources: list[Source] = []
    for is_text, run in groupby(found, key=lambda source: isinstance(source, TextFiles)):
        if is_text:
            texts = [source.files for source in run if isinstance(source, TextFiles)]
            sources.append(TextFiles(tuple(chain.from_iterable(texts))))
        else:
            sources += run
    return sources


def _hub(given: str) -> HubDataset:
    name, config, split, *rest = (*given.removeprefix(HUB).split(":"), "", "")
    if not name or any(rest):
        raise ValueError(
            f"input {given!r}: expected {HUB}OWNER/NAME, {HUB}OWNER/NAME:CONFIG or ...:CONFIG:SPLIT"
        )
    return HubDataset(name, config or None, split or "train")


def _local(path: Path, left_out: list[str], skip_foreign: bool) -> list[Source]:
    _refuse_broken_link(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no input at {path}: give files or folders, or {HUB}OWNER/NAME for a dataset of the hub"
        )
    if path.is_dir():
        if is_dataset_folder(str(path)):
            return [SavedDataset(path)]
        return _folder(path, left_out, skip_foreign)
    return [_file(path, skip_foreign)]


def _file(path: Path, skip_foreign: bool) -> Source:
    """The source of a file that is given by name."""
    if _has(path, JSON):
        # whatever its first line is: reading names what is wrong
        return _foreign(path, head_of(path, is_json=True), skip_foreign) or JsonLines(path)
    return _data(path, skip_foreign) or _text(path.name, path, skip_foreign)


def _folder(folder: Path, left_out: list[str], skip_foreign: bool) -> list[Source]:
    inside, hidden = _walk(folder)
    if not inside:
        only = f" but hidden ones ({_some(hidden)}): give these by name" if hidden else ""
        raise ValueError(f"input {folder}: the folder holds no files{only}")
    data = {path: source for _, path in inside if (source := _data(path, skip_foreign)) is not None}
    read: list[Source] = list(data.values())
    others = [path for _, path in inside if path not in data]
    if not data:
        read = [_text(name, path, skip_foreign) for name, path in inside if not _has(path, JSON)]
        others = [path for path in others if _has(path, JSON)]
    if not read:
        raise ValueError(f"{others[0]}: not one JSON object per line: convert it, e.g. with `jq -c '.[]'`")
    if others:
        left_out.append(f"{folder}: left out {_counts(others)}")
    if hidden:
        left_out.append(f"{folder}: left out {len(hidden)} hidden ({_some(hidden)})")
    return read


def _foreign(path: Path, head: bytes, skip_foreign: bool) -> ForeignFile | None:
    """A file whose first bytes are of another kind, where it is a bad line; None if it may be text.

    Raises: ValueError: it is of another kind, and that is not left out.
    """
    try:
        refuse_foreign(path, head)
    except ValueError as error:
        if not skip_foreign:
            raise
        return ForeignFile(path, str(error))
    return None


def _data(path: Path, skip_foreign: bool) -> Source | None:
    """The source of a file of data; None if it is none, by its suffix and, for .json, its first line."""
    if _has(path, PARQUET):
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        is_parquet = head.startswith(b"PAR1")
        return (None if is_parquet else _foreign(path, head, skip_foreign)) or Parquet(path)
    if _has(path, JSON_LINES):
        return _foreign(path, head_of(path, is_json=True), skip_foreign) or JsonLines(path)
    if _has(path, JSON):
        foreign = _foreign(path, head_of(path, is_json=True), skip_foreign)
        return foreign or (JsonLines(path) if is_json_lines(path) else None)
    return None


def _text(name: str, path: Path, skip_foreign: bool) -> Source:
    return _foreign(path, head_of(path), skip_foreign) or TextFiles(((name, path),))


def _has(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.casefold().endswith(suffixes)


def _walk(folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Every file, sorted by name, as (name below the folder, path), and the names of what is hidden.

    Every folder is visited once, through links too.

    Raises: ValueError: a link to something that is not there, or an entry that is neither file nor folder.
    """
    found: list[tuple[str, Path]] = []
    hidden: list[str] = []
    seen = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be read: {error}") from None

    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        hidden += [
            Path(root, name).relative_to(folder).as_posix()
            for name in (*folders, *files)
            if name.startswith(HIDDEN)
        ]
        names, folders[:] = sorted(folders), []
        for name in names:
            real = os.path.realpath(os.path.join(root, name))
            if real not in seen and not name.startswith(HIDDEN):
                seen.add(real)
                folders.append(name)
        for name in files:
            path = Path(root, name)
            if not name.startswith(HIDDEN):
                _refuse_broken_link(path)
                if not path.is_file():
                    raise ValueError(f"{path} is neither a file nor a folder: remove it from the inputs")
                found.append((path.relative_to(folder).as_posix(), path))
    return sorted(found), sorted(hidden)


def _refuse_broken_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"{path} is a link to {os.readlink(path)}, which does not exist: restore it or remove the link"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)


def _counts(files: list[Path]) -> str:
    """How many files there are of each suffix, in words."""
    kinds = Counter(file.suffix.casefold() or "without suffix" for file in files)
    words = [f"{count} {kind}" for kind, count in kinds.most_common(8)] + ["..."] * (len(kinds) > 8)
    return f"{len(files)} file{'s' * (len(files) > 1)} of other kinds ({', '.join(words)})"
