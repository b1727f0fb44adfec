"""The command `titan-aioli tokenize`: text to token stores (how: stores/tokenize/making.py).

While it runs it needs twice the size of the stores on disk.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from titan_aioli.commands.settings import at_least_one
from titan_aioli.commands.tokenize.options import check, check_held_out, check_lines, renamed_groups
from titan_aioli.files import refuse_unwritable
from titan_aioli.stores.tokenize import contamination
from titan_aioli.stores.tokenize.documents import Fields
from titan_aioli.stores.tokenize.held_out import find_held_out
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.stores.tokenize.left_out import LeftOut, OnBadLine
from titan_aioli.stores.tokenize.making import Making, OnContamination, make_stores
from titan_aioli.stores.tokenize.merge import StoreCounts
from titan_aioli.stores.tokenize.shards import Encoding
from titan_aioli.stores.tokenize.splits import SPLITS, shares_of_target
from titan_aioli.stores.tokenize.tokenizer import tokenizer_file, tokenizer_info
from titan_aioli.stores.tokenize.work_folder import WorkFolder

PLAN_VERSION = 2
"""Version of the result: raised when the same settings and inputs would give other bytes."""


def tokenize(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, at_least_one("INPUT")],
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
    name = check(
        inputs, group, group_by, val_share, test_share, processes, shard_megabytes, role, prompt_field
    )
    check_lines(group, group_name, max_bad_lines)
    check_held_out(held_out, on_contamination, contamination_ngrams, role)
    refuse_unwritable(output, f"--output {output}")
    renamed, left_out = renamed_groups(group_name), LeftOut(on_bad_line, max_bad_lines)
    sources, passed_over = find_inputs(list(inputs), skip_foreign=on_bad_line == "skip")
    for line in passed_over:
        print(line)
    info = tokenizer_info(tokenizer, end_of_document)
    if role == "target":
        val_share, test_share = shares_of_target(val_share, test_share)
    encoding = Encoding(str(tokenizer_file(tokenizer)), info, val_share, test_share, prompt_field is not None)
    making = Making(
        inputs,
        sources,
        Fields(text_field, group_by, group, prompt_field, renamed),
        encoding,
        role,
        find_held_out(held_out, info.digest),
        contamination_ngrams or 0,
        on_contamination,
        int(shard_megabytes * 1e6),
        processes or _cores(),
    )
    work, found = WorkFolder(output, name, _settings(making, shard_megabytes, on_bad_line)), []
    with work.locked():
        counts = work.begin(restart)
        if counts is not None:
            print(f"{output}: made already, with the same settings from the same inputs ({work.record})")
        else:
            if group is not None:
                work.refuse_taken(group)
            counts, found = make_stores(making, work, left_out)
    show(counts, val_share, test_share, has_train=role == "group")
    told = contamination.lines(found, on_contamination == "leave-out")
    for line in (*left_out.lines(), *told, *_unused(renamed, counts)):
        print(line)


def _settings(making: Making, shard_megabytes: float, on_bad_line: str) -> dict[str, Any]:
    """What the stores depend on: another run continues this one only where all of it is the same.

    An option that came later stands in it only where it is used, so that older stores still count.
    """
    encoding, fields = making.encoding, making.fields
    settings: dict[str, Any] = {
        "version": PLAN_VERSION,
        "inputs": [source.identity() for source in making.sources],
        "text_field": fields.text,
        "group": fields.group,
        "group_by": fields.group_by,
        "val_share": encoding.val_share,
        "test_share": encoding.test_share,
        "tokenizer": encoding.info.digest,
        "end_of_document": encoding.info.end_of_document_token,
        "shard_megabytes": shard_megabytes,
    }
    if on_bad_line != "refuse":
        settings["on_bad_line"] = on_bad_line
    if making.role == "target":
        settings |= {"role": making.role, "prompt_field": fields.prompt}
    if fields.renamed:
        settings["group_name"] = dict(fields.renamed)
    if making.held_out:
        settings |= {
            "held_out": [held.identity() for held in making.held_out],
            "on_contamination": making.on_contamination,
            "contamination_ngrams": making.ngram,
        }
    return settings


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


def _unused(renamed: dict[str, str], counts: list[StoreCounts]) -> list[str]:
    """A warning for each name of --group-name that no group got."""
    made = {row.group for row in counts}
    return [
        f"warning: --group-name {found}={name}: no document with any text is of a group {found!r}"
        for found, name in renamed.items()
        if name not in made
    ]


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
