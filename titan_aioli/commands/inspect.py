"""The command `titan-aioli inspect`: what a token store holds, and whether index and metadata are right."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tyro

from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.tokenizer import load_tokenizer, tokenizer_info
from titan_aioli.stores.tokens import TokenStore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENS_AT_ONCE = 1 << 24
SHOWN_CHARACTERS = 400
FIRST_TOKENS = 1 << 9
"""Number of tokens of a document that are decoded first; doubled while their text is too short to show."""
MOST_TOKENS = 1 << 16
"""Largest number of tokens of a document that are decoded, whatever they decode to."""


def inspect(
    store: tyro.conf.Positional[str],
    *,
    tokenizer: Path | None = None,
    vocab_size: int | None = None,
    documents: int = 2,
    dtype: str | None = None,
) -> None:
    """Show a token store, and check its index against its data.

    Reads every token once. Exit status 1, and the reason, if the store is not sound:
      titan-aioli inspect stores/books/train --tokenizer assets/tokenizer

    Args:
        store: prefix of a .bin and .idx, a .npy file, a raw .bin, a .ds file of datatrove or a folder of
            them, or a Hugging Face dataset on disk (FOLDER or FOLDER:COLUMN).
        tokenizer: tokenizer.json or its folder; shows the sample as text, and checks that the store was made
            with it.
        vocab_size: of the model that will train on it; every id must be below it.
        documents: number of documents to show, evenly spaced over the store.
        dtype: integer dtype of a raw .bin, or of a .npy without a header, such as uint16.
    """
    if documents < 0:
        raise ValueError(f"--documents is {documents}: it must be at least 0")
    try:
        opened = open_store(store, dtype)
    except ValueError as error:
        raise SystemExit(f"titan-aioli: not sound: {error}") from None
    reason = find_fault(opened, tokenizer, vocab_size)
    _show(opened)
    for line in sample(opened, documents, tokenizer):
        print(line)
    if reason is not None:
        raise SystemExit(f"titan-aioli: not sound: {store}: {reason}")
    print(f"{store}: sound")


def find_fault(store: TokenStore, tokenizer: Path | None = None, vocab_size: int | None = None) -> str | None:
    """Why a store is not sound; None if it is.

    Opening has checked the index; this checks the tokens, and the metadata against them.

    Args:
        store: the store.
        tokenizer: tokenizer.json or its folder, which the store must be made with.
        vocab_size: of a model, above every id.
    """
    if store.num_tokens == 0:
        return "it holds no tokens"
    metadata = store.metadata
    smallest, largest = _extremes(store)
    if smallest.id < 0:
        return f"a token id is negative: {smallest.id}, token {smallest.position}"
    for name, size in (
        ("the vocabulary", metadata.get("vocab_size")),
        ("the vocabulary of --vocab-size", vocab_size),
    ):
        if size is not None and largest.id >= size:
            return f"token {largest.position} is {largest.id}, and {name} ends at {size - 1}"
    end = metadata.get("end_of_document")
    if end is not None and store.document_offsets is not None:
        last = store.tokens[store.document_offsets[1:] - 1]
        wrong = np.flatnonzero(last != end)
        if wrong.size:
            return f"document {wrong[0]} ends with token {last[wrong[0]]}, not with end-of-document, {end}"
    if tokenizer is not None:
        info = tokenizer_info(tokenizer, metadata.get("end_of_document_token"))
        if metadata.get("tokenizer", info.digest) != info.digest:
            return f"it was made with another tokenizer than {tokenizer}"
        if largest.id >= info.vocab_size:
            return f"token {largest.position} is {largest.id}, and {tokenizer} ends at {info.vocab_size - 1}"
    return None


class _Token(NamedTuple):
    """A token and its place in the store."""

    id: int
    position: int


def _extremes(store: TokenStore) -> tuple[_Token, _Token]:
    """The first tokens with the smallest and the largest id; reads every token."""
    from tqdm import tqdm

    smallest = largest = _Token(int(store.tokens[:1][0]), 0)
    with tqdm(total=store.num_tokens, desc="inspect", unit=" tokens", unit_scale=True, disable=None) as bar:
        for start in range(0, store.num_tokens, TOKENS_AT_ONCE):
            tokens = store.tokens[start : start + TOKENS_AT_ONCE]
            if int(tokens.min()) < smallest.id:
                smallest = _Token(int(tokens.min()), start + int(tokens.argmin()))
            if int(tokens.max()) > largest.id:
                largest = _Token(int(tokens.max()), start + int(tokens.argmax()))
            bar.update(len(tokens))
    return smallest, largest


def sample(store: TokenStore, documents: int, tokenizer: Path | None) -> list[str]:
    """Lines that show some documents, evenly spaced (pieces of 256 tokens if the format has no documents)."""
    offsets = store.document_offsets
    if offsets is None:
        offsets = np.append(np.arange(0, store.num_tokens, 256), store.num_tokens)
    model = load_tokenizer(tokenizer) if tokenizer is not None else None
    kind = "document" if store.document_offsets is not None else "tokens from 256 x"
    lines, last = [], len(offsets) - 2
    for index in np.unique(np.linspace(0, last, documents if last >= 0 else 0, dtype=np.int64)):
        start, end = int(offsets[index]), int(offsets[index + 1])
        lines.append(f"{kind} {index}, {end - start} tokens: {_beginning(store, start, end, model)!r}")
    return lines


def _beginning(store: TokenStore, start: int, end: int, model: "Tokenizer | None") -> str:
    """The first characters of the text of tokens, or of their ids; decodes few of the tokens."""
    count, shown = FIRST_TOKENS, ""
    while True:
        ids = store.tokens[start : min(end, start + count)].tolist()
        shown = model.decode(ids, skip_special_tokens=False) if model is not None else str(ids)
        if len(shown) > SHOWN_CHARACTERS + 4 or len(ids) == end - start or count >= MOST_TOKENS:
            break  # four characters more: the last one may lack bytes
        count *= 2
    is_cut = len(shown) > SHOWN_CHARACTERS or len(ids) < end - start
    return f"{shown[:SHOWN_CHARACTERS]}..." if is_cut else shown


def _show(store: TokenStore) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    size = store.num_tokens * store.tokens.dtype.itemsize
    rows = {"store": store.path, "tokens": f"{store.num_tokens:,}", "dtype": store.tokens.dtype.name}
    rows["bytes"] = f"{size:,}"
    if store.num_documents is not None:
        rows["documents"] = f"{store.num_documents:,}"
        sizes = np.diff(store.document_offsets) if store.document_offsets is not None else np.zeros(1)
        if sizes.size:
            rows["tokens per document"] = (
                f"{sizes.min():,} to {sizes.max():,}, median {np.median(sizes):,.0f}"
            )
    rows["fingerprint"] = store.fingerprint()
    for key, value in {
        **rows,
        **{key: store.metadata[key] for key in store.metadata if key not in rows},
    }.items():
        table.add_row(key, str(value))
    Console(markup=False, emoji=False).print(table)
