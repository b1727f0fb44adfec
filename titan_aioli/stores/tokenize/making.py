"""The stores of one dataset: shards encoded by any number of processes, then merged and published.

One process reads, any number encode. The result does not depend on their number, on the file format, or on
how often the run was killed and started again.
"""

import time
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from titan_aioli.stores.tokenize import contamination
from titan_aioli.stores.tokenize.documents import Fields, Spellings, read_documents
from titan_aioli.stores.tokenize.held_out import HeldOut, read_held_out
from titan_aioli.stores.tokenize.left_out import LeftOut
from titan_aioli.stores.tokenize.merge import Describe, StoreCounts
from titan_aioli.stores.tokenize.shards import Counts, Encoding, batches, encoders
from titan_aioli.stores.tokenize.sources import Source
from titan_aioli.stores.tokenize.work_folder import WorkFolder

OnContamination = Literal["warn", "refuse", "leave-out"]


class Making(NamedTuple):
    """What stores are made from, and how; the options of `titan-aioli tokenize`."""

    inputs: tuple[str, ...]
    """As the user named them."""
    sources: list[Source]
    """The inputs' files."""
    fields: Fields
    encoding: Encoding
    role: str
    """group, or target: no train store."""
    held_out: list[HeldOut]
    """Documents that are looked for among those to train on."""
    ngram: int
    """Tokens of an n-gram of theirs; 0: whole documents alone."""
    on_contamination: OnContamination
    characters: int
    """Encoded at a time."""
    processes: int


def make_stores(
    making: Making, work: WorkFolder, left_out: LeftOut
) -> tuple[list[StoreCounts], list[contamination.Contamination]]:
    """The sizes of the stores, and which held-out documents were found.

    Args:
        work: locked, and begun. What an earlier run has done is not done again.
        left_out: gets what is left out.
    Raises: ValueError: held-out documents are refused, or there is nothing to train on.
    """
    if making.held_out:
        making = making._replace(encoding=_with_held_out(making, work))
    _encode(making, work, left_out)
    return _publish(making, work, left_out)


def _with_held_out(making: Making, work: WorkFolder) -> Encoding:
    """What workers need to look for held-out documents: the path of their index, which is written once."""
    encoding = making.encoding
    if not work.held_out.is_file():
        index = read_held_out(making.held_out, making.fields.text, encoding.tokenizer, making.ngram)
        index.save(work.held_out)
    digest = blake2b(work.held_out.read_bytes(), digest_size=16).hexdigest()
    return encoding._replace(held_out=str(work.held_out), held_out_digest=digest)


def _encode(making: Making, work: WorkFolder, left_out: LeftOut) -> None:
    """Write every shard that is not written yet."""
    from tqdm import tqdm

    start, tokens = time.monotonic(), 0
    spellings: Spellings = {}
    with tqdm(desc="tokenize", unit=" documents", unit_scale=True, disable=None) as bar:

        def report(counts: Counts) -> None:
            nonlocal tokens
            tokens += counts.tokens
            rate = tokens / (time.monotonic() - start)
            bar.set_postfix_str(f"{tokens / 1e6:.1f} M tokens, {rate / 1e6:.2f} M tokens/s", refresh=False)
            bar.update(counts.documents)

        with encoders(making.encoding, making.processes, report) as submit:
            for index, source in enumerate(making.sources):
                if work.is_encoded(index):
                    left_out.add(work.left_out(index))
                    spellings |= work.spellings(index)
                    continue
                number, here = 0, left_out.of_next_input()
                documents = read_documents(source, making.fields, here, spellings)
                for number, batch in enumerate(batches(documents, making.characters), 1):
                    if not work.shard(index, number).is_file():
                        submit(work.shard(index, number), batch)
                work.end_source(index, number, here.counts(), spellings)
                left_out.add(here.counts())


def _publish(
    making: Making, work: WorkFolder, left_out: LeftOut
) -> tuple[list[StoreCounts], list[contamination.Contamination]]:
    """Make stores of the shards; see `make_stores`."""
    num_sources, encoding = len(making.sources), making.encoding
    found = work.contamination(num_sources)
    if making.on_contamination == "refuse":
        contamination.refuse(found)
    leave_out = making.on_contamination == "leave-out"
    counts = work.merge(num_sources, encoding.dtype, _describe(encoding, making.role), leave_out)
    if not any(row.split == "train" or making.role == "target" for row in counts):
        work.discard()
        reason = left_out.reason() or contamination.reason(found) or "see --text-field"
        raise ValueError(f"{' '.join(making.inputs)}: no document with any text to train on: {reason}")
    work.publish(counts, left_out.counts(), found)
    return counts, found


def _describe(encoding: Encoding, role: str) -> Describe:
    shares = {
        "train": 0.0 if role == "target" else 1.0 - encoding.val_share - encoding.test_share,
        "validation": encoding.val_share,
        "test": encoding.test_share,
    }

    def describe(group: str, split: str) -> dict[str, Any]:
        return {
            "group": group,
            "split": split,
            "shares": shares,
            "tokenizer": encoding.info.digest,
            "vocab_size": encoding.info.vocab_size,
            "end_of_document": encoding.info.end_of_document,
            "end_of_document_token": encoding.info.end_of_document_token,
            **({"role": "target"} if encoding.has_prompts else {}),
        }

    return describe
