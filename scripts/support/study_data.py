"""Tokenizer and token stores of the study: from a folder of GROUP.jsonl.gz files, and from other stores.

Everything is a function of the corpus and of the study's file; what is there is not made again.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from titan_aioli.commands.demo_corpus import train_tokenizer
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.errors import UserError
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokens import TokenStore

VOCAB_SIZE = 1024  # of flavor mixing_small
SPLITS = ("train", "validation", "test")
EXCERPT_TOKENS = 128
VALIDATION_SHARE, TEST_SHARE = 0.05, 0.1


def prepare(corpus: Path, output: Path, sources: Sequence[str]) -> None:
    """One tokenizer over the whole corpus, and the stores of these files of it.

    Raises: UserError: a file is missing.
    """
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in corpus.glob("*.jsonl.gz"))
    if missing := [name for name in sources if name not in names]:
        raise UserError(f"{corpus} has no {missing[0]}.jsonl.gz; it has: {', '.join(names) or 'none'}")
    tokenizer = output / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        train_tokenizer(
            {name: _documents(corpus / f"{name}.jsonl.gz") for name in names}, tokenizer, VOCAB_SIZE
        )
    for name in sources:
        source = (str(corpus / f"{name}.jsonl.gz"),)
        tokenize(source, tokenizer=tokenizer, output=output / "stores", group=name,
                 val_share=VALIDATION_SHARE, test_share=TEST_SHARE)  # fmt: skip


def _documents(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def derive(stores: Path, recipes: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    """Make the stores of these names by their recipes, unless they are there.

    Args:
        stores: folder of the sources' stores; gets NAME/{train,validation,test}.
        recipes: all of the study's, by name: a blend takes what earlier blends left of each source.
        names: to make.
    Raises: UserError: an unknown recipe, blends that together take more than the whole of a source, or a
        store that is there by another recipe.
    """
    for name in names:
        for split in SPLITS:
            path = stores / name / split
            if not store_exists(path):
                _make(stores, recipes, name, split)
            elif open_store(path).metadata.get("recipe") != _recipe(recipes, name):
                raise UserError(f"{path} was made by another recipe: choose another --output, or remove it")


def _recipe(recipes: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """All of the recipes that a store depends on: of a blend, every blend."""
    if "blend" in recipes[name]:
        return {key: recipe for key, recipe in recipes.items() if "blend" in recipe}
    return {name: recipes[name]}


def _make(stores: Path, recipes: Mapping[str, Mapping[str, Any]], name: str, split: str) -> None:
    ((kind, what),) = recipes[name].items()
    if kind == "blend":
        documents = _blend(stores, recipes, name, split)
    elif kind in ("cut", "excerpts"):
        ((source, tokens),) = what.items()
        documents = _documents_of(open_store(stores / source / split))
        if split == "train":
            documents = _first(documents, tokens) if kind == "cut" else _excerpts(documents, tokens, name)
    elif kind == "shuffle":
        tokens = np.array(open_store(stores / what / split).tokens[:])
        documents = [_random(name, split).permutation(tokens)]
    else:
        raise UserError(f"stores.{name} has the recipe {kind!r}: it may be blend, cut, excerpts or shuffle")
    with MegatronWriter(stores / name / split, "uint16") as writer:
        writer.metadata = {
            "vocab_size": VOCAB_SIZE,
            "group": name,
            "split": split,
            "recipe": _recipe(recipes, name),
        }
        for document in documents:
            writer.add(document)


def _blend(stores: Path, recipes: Mapping[str, Mapping[str, Any]], name: str, split: str) -> list[np.ndarray]:
    """Whole documents of every source, each of which counts with as many tokens as the smallest has."""
    parts = {source: open_store(stores / source / split) for source in recipes[name]["blend"]}
    num_tokens, documents = min(part.num_tokens for part in parts.values()), []
    for source, share in recipes[name]["blend"].items():
        shares = {key: recipe["blend"].get(source, 0) for key, recipe in recipes.items() if "blend" in recipe}
        if sum(shares.values()) > 1 + 1e-9:
            raise UserError(f"the blends take more than the whole of {source}: lower their shares of it")
        before = sum(list(shares.values())[: list(shares).index(name)])
        shuffled = _documents_of(parts[source])
        shuffled = [shuffled[at] for at in _random(source, split).permutation(len(shuffled))]
        ends = np.cumsum([len(document) for document in shuffled])
        bounds = np.rint(np.array([before, before + share]) * num_tokens)
        first, last = np.searchsorted(ends, bounds, side="right")
        documents += shuffled[first:last]
    return [documents[at] for at in _random(name, split).permutation(len(documents))]


def _documents_of(store: TokenStore) -> list[np.ndarray]:
    offsets = store.document_offsets
    assert offsets is not None, store.path
    tokens = np.array(store.tokens[:])
    return np.split(tokens, offsets[1:-1])


def _first(documents: Sequence[np.ndarray], num_tokens: int) -> list[np.ndarray]:
    """The first so many tokens; the last document is cut."""
    kept, left = [], num_tokens
    for document in documents:
        if left > 0:
            kept.append(document[:left])
            left -= len(kept[-1])
    return kept


def _excerpts(documents: Sequence[np.ndarray], num_tokens: int, name: str) -> list[np.ndarray]:
    """So many tokens in excerpts of EXCERPT_TOKENS, each from anywhere in another document."""
    random = _random(name, "excerpts")
    long_enough = [document for document in documents if len(document) >= EXCERPT_TOKENS]
    chosen = random.permutation(len(long_enough))[: num_tokens // EXCERPT_TOKENS]
    starts = [random.integers(len(long_enough[at]) - EXCERPT_TOKENS + 1) for at in chosen]
    pairs = zip(chosen, starts, strict=True)
    return [long_enough[at][start : start + EXCERPT_TOKENS] for at, start in pairs]


def _random(*words: str) -> np.random.Generator:
    digest = blake2b("/".join(words).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
