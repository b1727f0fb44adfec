"""Documents to tokens, in parallel: the inputs are cut into shards, and each becomes one file.

A shard is a few megabytes of consecutive documents. A worker encodes it and writes its tokens into one
.npz, renamed into place when complete: arrays GROUP/SPLIT/tokens, GROUP/SPLIT/sizes and GROUP/SPLIT/bytes,
and which documents to train on are held-out ones, where these are looked for.
The inputs alone decide which documents form a shard, so the result does not depend on which worker encodes
it, in which order, or in which run.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from titan_aioli.files import replacing
from titan_aioli.stores.tokenize.copies import FOUND, PLACES, Finder, Index
from titan_aioli.stores.tokenize.documents import Document
from titan_aioli.stores.tokenize.splits import split_of
from titan_aioli.stores.tokenize.tokenizer import TokenizerInfo, load_tokenizer

MOST_DOCUMENTS = 100_000
"""Number of documents per shard, at most."""
ENCODED_AT_ONCE = 64
"""Number of documents per call of the tokenizer: its results take over 100 bytes per token."""
THREADS = "TOKENIZERS_PARALLELISM"
"""Environment variable of the tokenizer's own threads, which are off: the processes run in parallel."""


class Encoding(NamedTuple):
    """How a document becomes tokens: everything that a worker needs."""

    tokenizer: str
    """Path of tokenizer.json."""
    info: TokenizerInfo
    val_share: float
    test_share: float
    has_prompts: bool = False
    """Whether documents are prompts and answers."""
    held_out: str | None = None
    """Path of the index of documents that are looked for; None: none are."""
    held_out_digest: str = ""

    @property
    def dtype(self) -> np.dtype:
        """The smaller of uint16 and int32 that holds every token id."""
        return np.dtype("uint16" if self.info.vocab_size <= 65536 else "int32")


class Counts(NamedTuple):
    """The size of a shard."""

    documents: int
    tokens: int


def batches(documents: Iterator[Document], characters: int) -> Iterator[list[Document]]:
    """Batches of consecutive documents: each ends at `characters` characters or MOST_DOCUMENTS documents."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) + len(document.prompt or "")
        if size >= characters or len(batch) >= MOST_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_shard(encoding: Encoding, path: Path, documents: list[Document]) -> Counts:
    """Write one shard: the tokens of every document, then an end-of-document token. Skips empty texts."""
    documents = [document for document in documents if document.text]
    parts: dict[str, _Part] = {}
    encoded = zip(documents, _prompts(encoding, documents), _encode(encoding, documents), strict=True)
    for document, prompt, ids in encoded:
        text = document.text.encode()
        decides = text if document.prompt is None else document.prompt.encode() + text
        key = f"{document.group}/{split_of(decides, encoding.val_share, encoding.test_share)}"
        part = parts.setdefault(key, _Part([], [], [], []))
        part.documents.append(document)
        part.tokens.append(np.concatenate([prompt, ids]))
        part.text_bytes.append(len(text))
        part.prompts.append(prompt.size)
    arrays = {}
    for key, part in parts.items():
        arrays[f"{key}/tokens"] = np.concatenate(part.tokens)
        arrays[f"{key}/sizes"] = np.array([tokens.size for tokens in part.tokens])
        arrays[f"{key}/bytes"] = np.array(sum(part.text_bytes))
        if encoding.has_prompts:
            arrays[f"{key}/prompts"] = np.array(part.prompts)
        if encoding.held_out is not None and key.endswith("/train"):
            finder = _finder(encoding.held_out, encoding.held_out_digest)
            for kind, array in part.held_out(finder, arrays[f"{key}/tokens"], arrays[f"{key}/sizes"]).items():
                arrays[f"{key}/{kind}"] = array
    with replacing(path) as file:
        np.savez(file, **arrays)
    return Counts(len(documents), sum(tokens.size for part in parts.values() for tokens in part.tokens))


class _Part(NamedTuple):
    """The documents of one store in a shard, in order."""

    documents: list[Document]
    tokens: list[np.ndarray]
    text_bytes: list[int]
    prompts: list[int]
    """Lengths of the prompts."""

    def held_out(self, finder: Finder, tokens: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Which of the documents are held-out ones; {} if none is."""
        of = finder.find([document.text for document in self.documents], tokens, sizes)
        at = np.flatnonzero(of >= 0)
        if not at.size:
            return {}
        text_bytes = np.array(self.text_bytes)[at]
        places = np.array([self.documents[number].place for number in at])
        return {FOUND: np.stack([at, text_bytes, of[at]], axis=1), PLACES: places}


@lru_cache(maxsize=1)
def _finder(path: str, digest: str) -> Finder:
    del digest  # only part of the cache's key, as in _tokenizer
    return Finder(Index.load(path))


def _prompts(encoding: Encoding, documents: list[Document]) -> Iterator[np.ndarray]:
    """The tokens of each prompt, encoded by itself, so that the answer begins with a token of its own."""
    if not encoding.has_prompts:
        yield from [np.empty(0, dtype=encoding.dtype)] * len(documents)
        return
    tokenizer = _tokenizer(encoding.tokenizer, encoding.info.digest)
    for first in range(0, len(documents), ENCODED_AT_ONCE):
        texts = [document.prompt or "" for document in documents[first : first + ENCODED_AT_ONCE]]
        for tokens in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield np.array(tokens.ids, dtype=encoding.dtype)


def _encode(encoding: Encoding, documents: list[Document]) -> Iterator[np.ndarray]:
    tokenizer = _tokenizer(encoding.tokenizer, encoding.info.digest)
    for first in range(0, len(documents), ENCODED_AT_ONCE):
        texts = [document.text for document in documents[first : first + ENCODED_AT_ONCE]]
        for tokens in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield np.array([*tokens.ids, encoding.info.end_of_document], dtype=encoding.dtype)


@lru_cache(maxsize=1)
def _tokenizer(path: str, digest: str):
    del digest  # only part of the cache's key: the file at this path may change during the process
    return load_tokenizer(path)


Submit = Callable[[Path, list[Document]], None]


@contextmanager
def encoders(encoding: Encoding, processes: int, report: Callable[[Counts], None]) -> Iterator[Submit]:
    """A function that submits shards to be encoded; all of them are written when the block ends.

    Args:
        processes: 1 encodes in this process. Above 1: number of workers, with at most two shards queued each.
        report: called in this process with the counts of each shard that is written.
    Raises: ValueError: a worker was killed.
    """
    if processes == 1:
        with _without_threads():
            yield lambda path, documents: report(encode_shard(encoding, path, documents))
        return
    pending: set[Future[Counts]] = set()

    def collect(most: int) -> None:
        nonlocal pending
        while len(pending) > most:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                report(future.result())

    def submit(path: Path, documents: list[Document]) -> None:
        collect(2 * processes - 1)
        pending.add(pool.submit(encode_shard, encoding, path, documents))

    # spawn: a forked child could inherit a lock that a thread of the parent holds (Arrow has threads)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield submit
        collect(0)
    except BrokenProcessPool:
        raise ValueError(
            f"one of the {processes} worker processes was killed, most likely for lack of memory: run the "
            "same command with fewer --processes; finished shards are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_threads() -> Iterator[None]:
    threads = os.environ.get(THREADS, "true")
    os.environ[THREADS] = "false"
    try:
        yield
    finally:
        os.environ[THREADS] = threads


def _start_worker() -> None:
    """Set up a worker: one thread, Ctrl-C ignored (the parent handles it), exit when the parent dies."""
    os.environ[THREADS] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
