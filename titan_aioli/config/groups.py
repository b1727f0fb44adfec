"""Token stores of the groups: opened, cut where the config says so, and checked against the model."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from titan_aioli.config import Group as Table
from titan_aioli.config import Mixing
from titan_aioli.data.first_share import first_share
from titan_aioli.data.group import Group
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.errors import UserError
from titan_aioli.stores.split import PARTS, Split, parse_split, parts_of, with_documents
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokens import TokenStore, prefix_of


class Groups(NamedTuple):
    """The data of every group, in the order of the proportions."""

    train: list[Group]
    validation: list[Group]
    """Empty where `evaluation.validation` is off."""
    test: list[Group]
    """Empty where `evaluation.test` is off."""
    splits: Mapping[str, Split | None]
    """How each group's stores are cut; None where they are not."""


class Vocabulary(NamedTuple):
    """How many token ids the model knows."""

    size: int | None
    """None: not checked."""
    of_flavors: Mapping[str, int] = {}
    """Vocabularies of other models, by name, for whoever needs a larger one."""


def open_groups(mixing: Mixing, seq_len: int, vocabulary: Vocabulary) -> Groups:
    """The stores of every group, in the parts that the run needs.

    Args:
        mixing: the config section.
        seq_len: S, inputs of a sequence.
        vocabulary: of the model.
    Raises: UserError, ValueError, OSError: what is wrong with which group.
    """
    evaluation = mixing.evaluation
    wanted = ["train", *["validation"] * evaluation.validation, *["test"] * evaluation.test]
    opened: dict[str, list[Group]] = {part: [] for part in PARTS}
    splits = {name: split_of(mixing, name) for name in mixing.groups}
    for name, table in mixing.groups.items():
        split = splits[name]
        whole = [] if split is None else _open_whole(mixing, name, table)
        for part in wanted:
            stores = (
                _open(mixing, name, table, part) if split is None else _cut(name, table, whole, split, part)
            )
            if part == "train" and mixing.train_share < 1:
                stores = first_share(stores, mixing.train_share)
            for store in stores:
                if store.prompts is not None:
                    raise UserError(
                        f"group {name!r}: {store.path} holds prompts and answers, which are a target: "
                        "name it in [mixing.targets.NAME], and train on other text"
                    )
                check_vocabulary("group", name, store, vocabulary)
            weights = table.store_weights if part == "train" else ()
            opened[part].append(Group(name, stores, seq_len, weights, vocabulary.size))
    return Groups(**opened, splits=splits)


def split_of(mixing: Mixing, name: str) -> Split | None:
    """How a group's stores are cut; None where they are not.

    Raises: UserError: the shares are not possible, there are other stores for the parts, or only the end of a
        document is given.
    """
    table, key = mixing.groups[name], f"mixing.groups.{name}"
    if table.split is None:
        if table.end_of_document is not None:
            raise UserError(
                f"{key}.end_of_document is {table.end_of_document}, but there is no split to find the ends "
                "of documents for: set split, or leave it out"
            )
        return None
    if table.validation or table.test:
        raise UserError(
            f"{key} has both split and {'validation' if table.validation else 'test'}: leave one out"
        )
    try:
        return parse_split(table.split)
    except ValueError as error:
        raise UserError(f"{key}.split {error}") from None


def describe_splits(splits: Mapping[str, Split | None]) -> str:
    """How the groups' stores are cut, in words; empty where none is."""
    return ", ".join(f"{name} {split}" for name, split in splits.items() if split is not None)


def open_stores(owner: str, paths: Sequence[str], dtype: str | None) -> list[TokenStore]:
    """The stores of a group or target.

    Raises: UserError: names a store that is there twice, links followed.
    """
    places = [os.path.realpath(prefix_of(path)) for path in paths]
    for number, path in enumerate(paths):
        if places[number] in places[:number]:
            raise UserError(
                f"{owner} names the store {path} twice: name it once (a group draws more of a store by "
                "store_weights)"
            )
    return [open_store(path, dtype) for path in paths]


def _open(mixing: Mixing, name: str, table: Table, part: str) -> list[TokenStore]:
    """The stores of one part that the config names, or STORES/NAME/PART."""
    paths = getattr(table, part)
    if not paths and not mixing.stores:
        raise UserError(
            f"group {name!r} has no {part} stores: set mixing.groups.{name}.{part}, or set "
            "mixing.stores to the folder that `titan-aioli tokenize` made"
        )
    if paths:
        return open_stores(f"group {name!r}", paths, table.dtype)
    path = Path(mixing.stores) / name / part
    if part != "train" and not store_exists(path) and path.parent.is_dir():
        raise UserError(
            f"group {name!r} has no {part} store at {path}: give `titan-aioli tokenize` more documents or a "
            f"larger share for it (--{'val' if part == 'validation' else 'test'}-share 0.1), or do without "
            f"(--mixing.evaluation.no-{part})"
        )
    return [open_store(path, table.dtype)]


def _open_whole(mixing: Mixing, name: str, table: Table) -> list[TokenStore]:
    """The stores of a group that is cut into parts, with their documents if the config says what ends one."""
    if not table.train and not mixing.stores:
        raise UserError(f"group {name!r} has no stores to split: set mixing.groups.{name}.train")
    paths = table.train or [str(Path(mixing.stores) / name)]
    whole = open_stores(f"group {name!r}", paths, table.dtype)
    if (end := table.end_of_document) is not None:
        whole = [with_documents(store, end) for store in whole]
    return whole


def _cut(name: str, table: Table, whole: list[TokenStore], split: Split, part: str) -> list[TokenStore]:
    """One part of every store of a group."""
    parts = parts_of(whole, split, part)
    if part == "train" and table.store_weights and len(parts) < len(whole):
        raise UserError(
            f"group {name!r}: split {split} leaves nothing for train of one of its {len(whole)} stores, and "
            "store_weights has a weight for each: leave out the store and its weight"
        )
    if not parts:
        documents = sum(store.num_documents or 0 for store in whole)
        raise UserError(
            f"group {name!r}: split {split} leaves nothing for {part} of {documents} documents "
            f"({sum(store.num_tokens for store in whole)} tokens): give {part} a larger share"
            + f", or set mixing.evaluation.{part} = false"
            * (part != "train")
        )
    return parts


def check_vocabulary(kind: str, name: str, store: TokenStore, vocabulary: Vocabulary) -> None:
    """Refuse a store with token ids that the model has no embedding for, as far as its first tokens say.

    Raises: UserError: names the store of the group or target, and the id.
    """
    if vocabulary.size is None or store.num_tokens == 0:
        return
    smallest, largest = store.id_range()
    if smallest < 0:
        raise UserError(f"{kind} {name!r}: {store.path} holds token ids below 0, such as {smallest}")
    if (needed := largest + 1) > vocabulary.size:
        larger = {name: size for name, size in vocabulary.of_flavors.items() if size >= needed}
        flavors = ", ".join(f"{name} {size}" for name, size in larger.items())
        raise UserError(
            f"{kind} {name!r}: {store.path} uses a vocabulary of {needed} tokens, the model has "
            f"{vocabulary.size}: choose a model flavor with a larger vocab_size"
            + (f" ({flavors})" if flavors else "")
            + ", or tokenize with the model's tokenizer"
        )


def shared_stores(train: Sequence[Group], held_out: Sequence[HeldOutSet]) -> Iterator[str]:
    """One sentence for each store that is both trained on and held out, links followed.

    Parts of one store that do not overlap are not shared.
    """
    trained: dict[str, list[tuple[str, TokenStore]]] = {}
    for file, name, store in _files(train):
        trained.setdefault(file, []).append((name, store))
    seen = set()
    for file, set_name, store in _files(held_out):
        for name, other in trained.get(file, ()):
            if (file, name, set_name) not in seen and _overlap(store, other):
                seen.add((file, name, set_name))
                yield (
                    f"{store.path} is held out as {set_name} and trained on as {name}: its losses say how "
                    "well the model remembers it: hold out other documents, or set split"
                )


def _files(sets: Sequence[Group | HeldOutSet]) -> Iterator[tuple[str, str, TokenStore]]:
    """Every file of every store, links followed, with the name of the group or held-out set and the store."""
    for each in sets:
        for store in each.stores:
            for file in store.files:
                yield os.path.realpath(file), each.name, store


def _overlap(one: TokenStore, other: TokenStore) -> bool:
    """Whether two stores of the same files share a token."""
    ends = [store.first_token + store.num_tokens for store in (one, other)]
    return one.first_token < ends[1] and other.first_token < ends[0]
