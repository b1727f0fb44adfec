"""The command `titan-aioli inspect`: what a token store holds, and whether index and metadata are right."""

from pathlib import Path
from typing import Any

import numpy as np
import tyro

from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.tokenizer import load_tokenizer, tokenizer_info
from titan_aioli.stores.tokens import TokenStore

TOKENS_AT_ONCE = 1 << 24
SHOWN_CHARACTERS = 400


def inspect(
    store: tyro.conf.Positional[str],
    *,
    tokenizer: Path | None = None,
    documents: int = 2,
    dtype: str | None = None,
) -> None:
    """Show a token store, and check its index against its data.

    Reads every token once. Exit status 1, and the reason, if the store is not sound:
      titan-aioli inspect stores/books/train --tokenizer assets/tokenizer

    Args:
        store: prefix of a .bin and .idx, a .npy file, a raw .bin, or a Hugging Face dataset on disk
            (FOLDER or FOLDER:COLUMN).
        tokenizer: tokenizer.json or its folder; shows the sample as text, and checks that the store was made
            with it.
        documents: number of documents to show, evenly spaced over the store.
        dtype: integer dtype of a raw .bin, such as uint16.
    """
    try:
        opened = open_store(store, dtype)
    except ValueError as error:
        raise SystemExit(f"titan-aioli: not sound: {error}") from None
    reason = find_fault(opened, tokenizer)
    _show(opened)
    for line in sample(opened, documents, tokenizer):
        print(line)
    if reason is not None:
        raise SystemExit(f"titan-aioli: not sound: {store}: {reason}")
    print(f"{store}: sound")


def find_fault(store: TokenStore, tokenizer: Path | None = None) -> str | None:
    """Why a store is not sound; None if it is.

    Opening has checked the index; this checks the tokens, and the metadata against them.
    """
    if store.num_tokens == 0:
        return "it holds no tokens"
    metadata = store.metadata
    smallest, largest, position = _extremes(store)
    if smallest < 0:
        return f"a token id is negative: {smallest}"
    vocab_size = metadata.get("vocab_size")
    if vocab_size is not None and largest >= vocab_size:
        return f"token {position} is {largest}, and the vocabulary ends at {vocab_size - 1}"
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
        if largest >= info.vocab_size:
            return f"token {position} is {largest}, and {tokenizer} ends at {info.vocab_size - 1}"
    return None


def _extremes(store: TokenStore) -> tuple[int, int, int]:
    """(smallest id, largest id, position of the largest)."""
    smallest, largest, position = np.iinfo(np.int64).max, -1, -1
    for start in range(0, store.num_tokens, TOKENS_AT_ONCE):
        tokens = store.tokens[start : start + TOKENS_AT_ONCE]
        smallest = min(smallest, int(tokens.min()))
        if int(tokens.max()) > largest:
            largest, position = int(tokens.max()), start + int(tokens.argmax())
    return smallest, largest, position


def sample(store: TokenStore, documents: int, tokenizer: Path | None) -> list[str]:
    """Lines that show some documents, evenly spaced (pieces of 256 tokens if the format has no documents)."""
    offsets = store.document_offsets
    if offsets is None:
        offsets = np.append(np.arange(0, store.num_tokens, 256), store.num_tokens)
    model = load_tokenizer(tokenizer) if tokenizer is not None else None
    lines = []
    for index in np.unique(np.linspace(0, max(0, len(offsets) - 2), documents, dtype=np.int64)):
        ids = store.tokens[offsets[index] : offsets[index + 1]].tolist()
        text: Any = model.decode(ids, skip_special_tokens=False) if model is not None else ids
        kind = "document" if store.document_offsets is not None else "tokens from 256 x"
        shown = str(text) if len(str(text)) <= SHOWN_CHARACTERS else f"{str(text)[:SHOWN_CHARACTERS]}..."
        lines.append(f"{kind} {index}, {len(ids)} tokens: {shown!r}")
    return lines


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
    Console().print(table)
