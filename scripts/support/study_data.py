"""Tokenizer and token stores of the studies, from a folder of GROUP.jsonl.gz files."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from titan_aioli.commands.demo_corpus import train_tokenizer
from titan_aioli.commands.tokenize import tokenize

VOCAB_SIZE = 1024  # of flavor mixing_small


def prepare(corpus: Path, output: Path, groups: Sequence[str]) -> None:
    """One tokenizer over all groups, and the stores of each; skipped where they are."""
    tokenizer = output / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        texts = {}
        for group in groups:
            with gzip.open(corpus / f"{group}.jsonl.gz", "rt", encoding="utf-8") as file:
                texts[group] = [json.loads(line) for line in file]
        train_tokenizer(texts, tokenizer, VOCAB_SIZE)
    for group in groups:
        source = (str(corpus / f"{group}.jsonl.gz"),)
        tokenize(source, tokenizer=tokenizer, output=output / "stores", group=group,
                 val_share=0.05, test_share=0.1)  # fmt: skip
