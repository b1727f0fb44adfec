"""Documents to tokens, in parallel: the inputs are cut into shards, and each becomes one file.

A shard is some megabytes of consecutive documents. A worker encodes it and writes its tokens into one
.npz, renamed into place when whole: arrays GROUP/SPLIT/tokens, GROUP/SPLIT/sizes and GROUP/SPLIT/bytes.
Which documents make up which shard depends on the inputs alone, so it does not matter who encodes a
shard, in which order, or in which run.
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
from titan_aioli.stores.tokenize.documents import Document
from titan_aioli.stores.tokenize.splits import split_of
from titan_aioli.stores.tokenize.tokenizer import TokenizerInfo, load_tokenizer

MOST_DOCUMENTS = 100_000
"""In one shard, however short they are."""
ENCODED_AT_ONCE = 64
"""Documents. The tokenizer's own results take over 100 bytes a token."""
THREADS = "TOKENIZERS_PARALLELISM"
"""The switch of the tokenizer's own threads: the processes are what is parallel."""


class Encoding(NamedTuple):
    """How a document becomes tokens: all that a worker needs to know."""

    tokenizer: str
    """Path of tokenizer.json."""
    info: TokenizerInfo
    val_share: float
    test_share: float

    @property
    def dtype(self) -> np.dtype:
        """The smallest of the usual dtypes that holds every token id."""
        return np.dtype("uint16" if self.info.vocab_size <= 65536 else "int32")


class Counts(NamedTuple):
    """What a shard holds."""

    documents: int
    tokens: int


def batches(documents: Iterator[Document], characters: int) -> Iterator[list[Document]]:
    """Consecutive documents of at least so many characters together; the last batch may have fewer."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters or len(batch) >= MOST_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_shard(encoding: Encoding, path: Path, documents: list[Document]) -> Counts:
    """Write one shard: every document's tokens and an end-of-document token. Empty texts are left out."""
    documents = [document for document in documents if document.text]
    found: dict[str, list[np.ndarray]] = {}
    text_bytes: dict[str, int] = {}
    for document, ids in zip(documents, _encode(encoding, documents), strict=True):
        text = document.text.encode()
        key = f"{document.group}/{split_of(text, encoding.val_share, encoding.test_share)}"
        found.setdefault(key, []).append(ids)
        text_bytes[key] = text_bytes.get(key, 0) + len(text)
    arrays = {}
    for key, parts in found.items():
        arrays[f"{key}/tokens"] = np.concatenate(parts)
        arrays[f"{key}/sizes"] = np.array([part.size for part in parts])
        arrays[f"{key}/bytes"] = np.array(text_bytes[key])
    with replacing(path) as file:
        np.savez(file, **arrays)
    return Counts(len(documents), sum(part.size for parts in found.values() for part in parts))


def _encode(encoding: Encoding, documents: list[Document]) -> Iterator[np.ndarray]:
    tokenizer = _tokenizer(encoding.tokenizer, encoding.info.digest)
    for first in range(0, len(documents), ENCODED_AT_ONCE):
        texts = [document.text for document in documents[first : first + ENCODED_AT_ONCE]]
        for tokens in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield np.array([*tokens.ids, encoding.info.end_of_document], dtype=encoding.dtype)


@lru_cache(maxsize=1)
def _tokenizer(path: str, digest: str):
    del digest  # part of the key: the same path may hold another tokenizer later in this process
    return load_tokenizer(path)


Submit = Callable[[Path, list[Document]], None]


@contextmanager
def encoders(encoding: Encoding, processes: int, report: Callable[[Counts], None]) -> Iterator[Submit]:
    """A function that has shards encoded; all of them are written when the block ends.

    Args:
        processes: 1 encodes in this process. More: in so many others, at most two shards waiting for each.
        report: called here with the counts of each shard that is written.
    Raises: ValueError: a worker died.
    """
    if processes == 1:
        threads = os.environ.get(THREADS, "true")
        os.environ[THREADS] = "false"
        try:
            yield lambda path, documents: report(encode_shard(encoding, path, documents))
        finally:
            os.environ[THREADS] = threads
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

    # spawn: a forked child may inherit locks held by threads of the parent (Arrow has some)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield submit
        collect(0)
    except BrokenProcessPool:
        raise ValueError(
            f"one of the {processes} worker processes was killed, most likely for want of memory: run the "
            "same command with fewer --processes; what is finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread a worker; leave Ctrl-C to the parent; die with the parent, even if that is killed."""
    os.environ[THREADS] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
