"""What there is to train on: the groups of a folder of stores, and the flavors that hold their vocabulary."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from titan_aioli.hosts.flavor import Flavor
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokens import TokenStore


class Found(NamedTuple):
    """The groups that a run can be trained on."""

    groups: list[str]
    """Folders with a train and a validation store, sorted."""
    without_test: list[str]
    """Those of them that have no test store."""
    left_out: list[str]
    """One line for each folder that has some but not all of the stores that a group needs."""
    vocab_size: int
    """Largest vocabulary of the stores."""
    fewest_tokens: int
    """Tokens of the smallest store."""


def find_groups(folder: Path) -> Found:
    """The groups in a folder of stores, FOLDER/GROUP/{train,validation,test}.

    Raises: ValueError: no group, or a store that is damaged. OSError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: give the --output of `titan-aioli tokenize`")
    groups, without_test, left_out, stores = [], [], [], []
    for group in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        splits = [split for split in ("train", "validation", "test") if store_exists(folder / group / split)]
        missing = {"train", "validation"} - set(splits)
        if not splits:
            continue
        if missing == {"train"}:
            left_out.append(
                f"left out {group!r}, which has no train store: to make it a target, add "
                f"[mixing.targets.{group}] (docs/running.md, Targets)"
            )
            continue
        if missing:
            left_out.append(f"left out group {group!r}: no store {folder / group / min(missing)}")
            continue
        groups.append(group)
        without_test += [group] if "test" not in splits else []
        stores += [open_store(folder / group / split) for split in splits]
    if not groups:
        reason = "; ".join(left_out) or "no folder in it has the stores train and validation"
        raise ValueError(f"{folder} holds no group: {reason}. `titan-aioli tokenize` makes them out of text")
    sizes = [store.num_tokens for store in stores]
    return Found(groups, without_test, left_out, max(map(vocabulary, stores)), min(sizes))


def vocabulary(store: TokenStore) -> int:
    """Entries of a store's vocabulary: as it says, or the largest id of its first million tokens + 1."""
    return store.id_range()[1] + 1


def fitting_flavors(flavors: Iterable[Flavor], vocab_size: int) -> list[Flavor]:
    """The flavors whose embedding holds the vocabulary, the smallest first.

    Args:
        flavors: with plain causal attention.
        vocab_size: of the stores.
    Raises: ValueError: there is none; lists the vocabularies there are.
    """
    flavors = sorted(flavors)
    fitting = [flavor for flavor in flavors if flavor.vocab_size >= vocab_size]
    if not fitting:
        sizes = ", ".join(f"{flavor.name} {flavor.vocab_size}" for flavor in flavors)
        raise ValueError(
            f"the stores use a vocabulary of {vocab_size} tokens, more than any flavor of llama3 has "
            f"({sizes}): tokenize with a smaller tokenizer, such as `titan-aioli train-tokenizer` makes"
        )
    return fitting


def longest_sequence(wanted: int, fewest_tokens: int, least: int) -> int:
    """`wanted`, halved until the smallest store holds `least` sequences; never below 16."""
    while wanted > 16 and (fewest_tokens - 1) // wanted < least:
        wanted //= 2
    return wanted


def short(count: int) -> str:
    """A number of parameters in few characters."""
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def names(flavors: Sequence[Flavor], most: int = 3) -> str:
    """The first flavors with their sizes, in words."""
    return ", ".join(f"{flavor.name} ({short(flavor.num_parameters)})" for flavor in flavors[:most])
