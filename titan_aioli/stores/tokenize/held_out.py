"""What `--held-out` names: documents that a group must not train on, read once into an index of their hashes.

Each document has a text and token ids: those of a store are decoded, a text is encoded.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.stores.arrow import is_dataset_folder
from titan_aioli.stores.overlap import document_spans
from titan_aioli.stores.store import open_store, store_exists
from titan_aioli.stores.tokenize.copies import Index, build_index
from titan_aioli.stores.tokenize.documents import Fields, read_documents
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.stores.tokenize.left_out import LeftOut
from titan_aioli.stores.tokenize.sources import Source
from titan_aioli.stores.tokenize.splits import HELD_OUT_SPLITS
from titan_aioli.stores.tokenize.tokenizer import decoder, load_tokenizer
from titan_aioli.stores.tokens import TokenStore

READ_AT_ONCE = 64
"""Number of documents per call of the tokenizer."""

Content = tuple[str, np.ndarray]
"""The text of a document and its token ids, without the end of the document."""


class HeldOut(NamedTuple):
    """The documents of one store, or of one input of text."""

    name: str
    """As the command gave it; with the split, where it gave the folder of a target."""
    store: TokenStore | None
    sources: Sequence[Source] = ()

    def identity(self) -> list[Any]:
        """JSON values that change when the content does."""
        if self.store is not None:
            return [self.name, self.store.fingerprint()]
        return [self.name, [source.identity() for source in self.sources]]


def find_held_out(given: Sequence[str], tokenizer_digest: str) -> list[HeldOut]:
    """What `--held-out` names; nothing is read yet.

    Args:
        given: each a store, the folder of a target's or a group's stores, or an input of text.
        tokenizer_digest: of the tokenizer, which must be that of the stores.
    Raises:
        FileNotFoundError: there is no such store or input.
        ValueError: a store of another tokenizer or without documents, or a folder without held-out stores.
    """
    return [held for path in given for held in _of_path(path, tokenizer_digest)]


def _of_path(path: str, tokenizer_digest: str) -> list[HeldOut]:
    there = [str(Path(path, split)) for split in HELD_OUT_SPLITS if store_exists(Path(path, f"{split}.idx"))]
    if not there and Path(path, "train.idx").is_file():
        raise ValueError(
            f"--held-out {path} holds a train store alone: give a folder with validation or test"
        )
    if there or (store_exists(path) and not is_dataset_folder(path)):
        return [HeldOut(name, _opened(name, tokenizer_digest)) for name in there or [path]]
    try:
        return [HeldOut(path, None, find_inputs([path]).sources)]
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"--held-out {path}: {error}") from None


def _opened(path: str, tokenizer_digest: str) -> TokenStore:
    store = open_store(path)
    if store.metadata.get("tokenizer", tokenizer_digest) != tokenizer_digest:
        raise ValueError(
            f"--held-out {path}: the store was made with another tokenizer: make it again with this one, or "
            "give its text"
        )
    if store.document_offsets is None:
        raise ValueError(
            f"--held-out {path}: the store does not say where documents begin: give its text, or a store "
            "that `titan-aioli tokenize` has made of it"
        )
    return store


def read_held_out(held_out: Sequence[HeldOut], text_field: str, tokenizer: str, ngram: int) -> Index:
    """The hashes of all held-out documents, in their order.

    Args:
        text_field: field with the text, where the input is one of records.
        tokenizer: path of tokenizer.json.
        ngram: tokens of an n-gram; 0: only whole documents are compared.
    Raises: ValueError: a record without a text, or a store or input without any document.
    """
    names, contents = [held.name for held in held_out], []
    for held in held_out:
        contents.append(
            _of_texts(held, text_field, tokenizer) if held.store is None else _of_store(held.store, tokenizer)
        )
    return build_index(names, contents, ngram)


def _of_store(store: TokenStore, tokenizer: str) -> Iterator[Content]:
    decode, spans = decoder(tokenizer), document_spans(store)
    for first in range(0, len(spans), READ_AT_ONCE):
        tokens = [store.tokens[start:end] for start, end in spans[first : first + READ_AT_ONCE]]
        yield from zip(decode([ids.tolist() for ids in tokens]), tokens, strict=True)


def _of_texts(held: HeldOut, text_field: str, tokenizer: str) -> Iterator[Content]:
    encode = load_tokenizer(tokenizer).encode_batch_fast
    fields = Fields(text_field, None, held.name)
    try:
        documents = (
            one for source in held.sources for one in read_documents(source, fields, LeftOut("refuse", 0))
        )
        while texts := [document.text for document in islice(documents, READ_AT_ONCE)]:
            for text, encoded in zip(texts, encode(texts, add_special_tokens=False), strict=True):
                yield text, np.array(encoded.ids, np.int64)
    except ValueError as error:
        raise ValueError(f"--held-out {held.name}: {error}") from None
