"""The command `titan-aioli tokenize`: text to token stores.

One process reads, any number encode. The result does not depend on their number, on the file format, or on
how often the run was killed and started again. While it runs it needs twice the size of the stores on disk.
"""

import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import tyro

from titan_aioli.stores.overlap import LARGEST_NGRAM
from titan_aioli.stores.tokenize import contamination
from titan_aioli.stores.tokenize import documents as documents_of
from titan_aioli.stores.tokenize.documents import Fields, Spellings, read_documents
from titan_aioli.stores.tokenize.held_out import HeldOut, find_held_out, read_held_out
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.stores.tokenize.left_out import LeftOut, OnBadLine
from titan_aioli.stores.tokenize.merge import Describe, StoreCounts
from titan_aioli.stores.tokenize.shards import Counts, Encoding, batches, encoders
from titan_aioli.stores.tokenize.sources import Source
from titan_aioli.stores.tokenize.splits import SPLITS, check_shares, shares_of_target
from titan_aioli.stores.tokenize.tokenizer import tokenizer_file, tokenizer_info
from titan_aioli.stores.tokenize.work_folder import WorkFolder

PLAN_VERSION = 2
"""Version of the result: raised when the same settings and inputs would give other bytes."""
OnContamination = Literal["warn", "refuse", "leave-out"]


def tokenize(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    tokenizer: Path,
    output: Path,
    group: str | None = None,
    group_by: str | None = None,
    text_field: str = "text",
    role: Literal["group", "target"] = "group",
    prompt_field: str | None = None,
    val_share: float = 0.02,
    test_share: float = 0.02,
    end_of_document: str | None = None,
    processes: int | None = None,
    shard_megabytes: float = 8.0,
    group_name: tuple[str, ...] = (),
    on_bad_line: OnBadLine = "refuse",
    max_bad_lines: int = 1000,
    held_out: tuple[str, ...] = (),
    on_contamination: OnContamination = "warn",
    contamination_ngrams: int | None = None,
    restart: bool = False,
) -> None:
    """Make token stores out of text.

    Writes OUTPUT/GROUP/{train,validation,test}.{bin,idx,json}: Megatron indexed datasets, each with a file
    that describes it. Every document ends with an end-of-document token. Killed and run again, the same
    command continues where it stopped. One group from files, or many from one dataset:
      titan-aioli tokenize books/ --group books --tokenizer assets/tokenizer --output stores
      titan-aioli tokenize slimpajama/*.jsonl.zst --group-by meta.redpajama_set_name
          --tokenizer assets/tokenizer --output stores --processes 16

    Args:
        inputs: JSONL (.jsonl, .ndjson, .json; plain, .gz, .zst, .bz2), .parquet, text files (one document per
            file), folders of these, a Hugging Face dataset saved to disk, or one of the hub, streamed:
            hf:OWNER/NAME, hf:OWNER/NAME:CONFIG, hf:OWNER/NAME:CONFIG:SPLIT.
        tokenizer: tokenizer.json, or the folder that holds it.
        output: folder of the stores; may hold those of other groups.
        group: name of the one group that all inputs belong to.
        group_by: field with the name of a document's group, dotted where nested; also inside of a column that
            holds JSON texts or maps.
        text_field: field with the text of a document, dotted where nested. Empty texts are left out, and
            counted.
        role: group: to train on. target: a held-out set that the mixture is for: it has no train store, and
            val_share and test_share are what its documents are divided by.
        prompt_field: field of a prompt, which stands before the text and does not count: a benchmark of
            questions and answers as a target.
        val_share: share of the documents for validation, in [0, 1). Chosen by a hash of the text alone, so a
            document is always in the same split.
        test_share: share of the documents for test, in [0, 1).
        end_of_document: the token after every document. Default: eos_token of tokenizer_config.json, or the
            one usual name in the vocabulary (<|endoftext|>, </s>, <|end_of_text|>, ...).
        processes: processes that encode. Default: one per core.
        shard_megabytes: millions of characters encoded at a time: the most work that a kill can lose.
        group_name: FOUND=NAME: a name for a group whose own is no folder's, such as en/web=web; several.
        on_bad_line: what a line means that is no JSON object, or has no text or group, a file that is no
            UTF-8, or one that breaks off: the end of the command, or (skip) one line less, counted and named.
        max_bad_lines: with skip, bad lines after which the command ends all the same.
        held_out: documents that must not be trained on: stores of this tokenizer (OUTPUT/NAME of a target or
            a group: its validation and test), or inputs of text. A document to train on is one of them if it
            has the same text, whatever case and white space.
        on_contamination: what a held-out document among those to train on means. They are always counted, and
            the first ones named. warn: nothing else; refuse: the end of the command, before it makes stores;
            leave-out: one document less.
        contamination_ngrams: tokens of an n-gram, such as 13: a document is also a held-out one if it has at
            least half of the n-grams of that.
        restart: start over, and replace the stores of an earlier run of this group or field.
    """
    name = _check(
        inputs, group, group_by, val_share, test_share, processes, shard_megabytes, role, prompt_field
    )
    _check_lines(group, group_name, max_bad_lines)
    _check_held_out(held_out, on_contamination, contamination_ngrams, role)
    renamed, left_out_documents = _renamed(group_name), LeftOut(on_bad_line, max_bad_lines)
    sources, left_out = find_inputs(list(inputs), skip_foreign=on_bad_line == "skip")
    for line in left_out:
        print(line)
    info = tokenizer_info(tokenizer, end_of_document)
    if role == "target":
        val_share, test_share = shares_of_target(val_share, test_share)
    encoding = Encoding(str(tokenizer_file(tokenizer)), info, val_share, test_share, prompt_field is not None)
    plan = {
        "version": PLAN_VERSION,
        "inputs": [source.identity() for source in sources],
        "text_field": text_field,
        "group": group,
        "group_by": group_by,
        "val_share": val_share,
        "test_share": test_share,
        "tokenizer": info.digest,
        "end_of_document": info.end_of_document_token,
        "shard_megabytes": shard_megabytes,
    }
    plan |= {"on_bad_line": on_bad_line} if on_bad_line != "refuse" else {}
    plan |= {"role": role, "prompt_field": prompt_field} if role == "target" else {}
    plan |= {"group_name": renamed} if renamed else {}
    looked_for, ngram = find_held_out(held_out, info.digest), contamination_ngrams or 0
    if looked_for:
        plan |= {
            "held_out": [held.identity() for held in looked_for],
            "on_contamination": on_contamination,
            "contamination_ngrams": ngram,
        }
    work, found = WorkFolder(output, name, plan), []
    with work.locked():
        counts = work.begin(restart)
        if counts is not None:
            print(f"{output}: made already, with the same settings from the same inputs ({work.record})")
        else:
            if group is not None:
                work.refuse_taken(group)
            fields = Fields(text_field, group_by, group, prompt_field, renamed)
            characters = int(shard_megabytes * 1e6)
            if looked_for:
                encoding = _with_held_out(encoding, work, looked_for, text_field, ngram)
            encode(work, sources, fields, left_out_documents, encoding, characters, processes or _cores())
            counts, found = _publish(
                work, inputs, len(sources), encoding, role, left_out_documents, on_contamination
            )
    show(counts, val_share, test_share, has_train=role == "group")
    told = contamination.lines(found, on_contamination == "leave-out")
    for line in (*left_out_documents.lines(), *told, *_unused(renamed, counts)):
        print(line)


def _publish(
    work: WorkFolder,
    inputs: tuple[str, ...],
    num_sources: int,
    encoding: Encoding,
    role: str,
    left_out: LeftOut,
    on_contamination: OnContamination,
) -> tuple[list[StoreCounts], list[contamination.Contamination]]:
    """Make stores of the shards; their sizes, and which held-out documents were found.

    Raises: ValueError: held-out documents are refused, or there is nothing to train on.
    """
    found = work.contamination(num_sources)
    if on_contamination == "refuse":
        contamination.refuse(found)
    leave_out = on_contamination == "leave-out"
    counts = work.merge(num_sources, encoding.dtype, _describe(encoding, role), leave_out)
    if not any(row.split == "train" or role == "target" for row in counts):
        work.discard()
        reason = left_out.reason() or contamination.reason(found) or "see --text-field"
        raise ValueError(f"{' '.join(inputs)}: no document with any text to train on: {reason}")
    work.publish(counts, left_out.counts(), found)
    return counts, found


def _with_held_out(
    encoding: Encoding, work: WorkFolder, held_out: Sequence[HeldOut], text_field: str, ngram: int
) -> Encoding:
    """What workers need to look for held-out documents: the path of their index, which is written once."""
    if not work.held_out.is_file():
        read_held_out(held_out, text_field, encoding.tokenizer, ngram).save(work.held_out)
    digest = blake2b(work.held_out.read_bytes(), digest_size=16).hexdigest()
    return encoding._replace(held_out=str(work.held_out), held_out_digest=digest)


def encode(
    work: WorkFolder,
    sources: list[Source],
    fields: Fields,
    left_out: LeftOut,
    encoding: Encoding,
    characters: int,
    processes: int,
) -> None:
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

        with encoders(encoding, processes, report) as submit:
            for index, source in enumerate(sources):
                if work.is_encoded(index):
                    left_out.add(work.left_out(index))
                    spellings |= work.spellings(index)
                    continue
                number, here = 0, left_out.of_next_input()
                documents = read_documents(source, fields, here, spellings)
                for number, batch in enumerate(batches(documents, characters), 1):
                    if not work.shard(index, number).is_file():
                        submit(work.shard(index, number), batch)
                work.end_source(index, number, here.counts(), spellings)
                left_out.add(here.counts())


def show(counts: list[StoreCounts], val_share: float, test_share: float, has_train: bool = True) -> None:
    """Print one line per store, the total, and the splits that are missing."""
    from rich.console import Console
    from rich.table import Table

    table = Table("group", "split")
    for heading in "documents", "tokens", "bytes of text":
        table.add_column(heading, justify="right")
    for row in counts:
        table.add_row(row.group, row.split, *(f"{count:,}" for count in row[2:]))
    table.add_section()
    totals = [sum(row[column] for row in counts) for column in (2, 3, 4)]  # type: ignore[misc]
    table.add_row("all", "", *(f"{total:,}" for total in totals))
    console = Console(markup=False, emoji=False)
    console.print(table)
    made = {(row.group, row.split) for row in counts}
    shares = {"train": float(has_train), "validation": val_share, "test": test_share}
    for group in dict.fromkeys(row.group for row in counts):
        for split in SPLITS:
            if shares[split] > 0 and (group, split) not in made:
                console.print(f"group {group!r} has no {split} document: add documents or raise the share")


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


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _renamed(names: tuple[str, ...]) -> dict[str, str]:
    """Group names by what the field says. Raises: ValueError: one is not FOUND=NAME."""
    renamed = {}
    for given in names:
        found, equals, name = given.partition("=")
        if not equals or not found:
            raise ValueError(f"--group-name is {given!r}: expected FOUND=NAME, such as en/web=web")
        if name in renamed.values():
            raise ValueError(f"--group-name gives two groups the name {name!r}")
        renamed[found] = documents_of.group_name(name, f"--group-name {given}: the name")
    return renamed


def _unused(renamed: dict[str, str], counts: list[StoreCounts]) -> list[str]:
    """A warning for each name of --group-name that no group got."""
    made = {row.group for row in counts}
    return [
        f"warning: --group-name {found}={name}: no document with any text is of a group {found!r}"
        for found, name in renamed.items()
        if name not in made
    ]


def _check_lines(group: str | None, group_name: tuple[str, ...], max_bad_lines: int) -> None:
    """Raises: ValueError: an option about groups or lines is not possible."""
    if group_name and group is not None:
        raise ValueError(
            f"--group-name {group_name[0]} needs --group-by FIELD: --group makes one group of all inputs"
        )
    if max_bad_lines < 0:
        raise ValueError(f"--max-bad-lines is {max_bad_lines}: it must be at least 0")


def _check_held_out(
    held_out: tuple[str, ...], on_contamination: OnContamination, ngram: int | None, role: str
) -> None:
    """Raises: ValueError: options that do not go together, or an n-gram of no size."""
    if held_out and role == "target":
        raise ValueError("--held-out needs --role group: of a target nothing is trained on")
    if not held_out and (on_contamination != "warn" or ngram is not None):
        option = "--contamination-ngrams" if ngram is not None else f"--on-contamination {on_contamination}"
        raise ValueError(f"{option} needs --held-out PATH: the documents that must not be trained on")
    if ngram is not None and not 1 <= ngram <= LARGEST_NGRAM:
        raise ValueError(f"--contamination-ngrams is {ngram}: from 1 to {LARGEST_NGRAM} tokens; 13 is usual")


def _check(
    inputs, group, group_by, val_share, test_share, processes, shard_megabytes, role, prompt_field
) -> str:
    """The name of the run, its group or by-FIELD. Raises: ValueError: an option is not possible."""
    if not inputs:
        raise ValueError("no inputs: give files, folders or hf:OWNER/NAME")
    if (group is None) == (group_by is None):
        raise ValueError(
            "give either --group NAME (the inputs are one group) or --group-by FIELD (they hold many)"
        )
    check_shares(val_share, test_share)
    if prompt_field is not None and role != "target":
        raise ValueError("--prompt-field needs --role target: prompts are never trained on")
    if processes is not None and processes < 1:
        raise ValueError(f"--processes is {processes}: it must be at least 1")
    if not shard_megabytes > 0:
        raise ValueError(f"--shard-megabytes is {shard_megabytes}: it must be above 0")
    return f"by-{group_by}" if group is None else documents_of.group_name(group, "--group")
