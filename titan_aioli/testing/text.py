"""Toy texts and a tokenizer whose ids can be read off, for the tests of `titan-aioli tokenize`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<|endoftext|>", "zero", "one", "two", "three", "<", "|", ">", "endoftext", "[UNK]"]
"""Vocabulary of the toy tokenizer; an id is a place in this list."""
TRAIN_ONLY = {"val_share": 0.0, "test_share": 0.0}
"""Options of `tokenize` that keep every document for training."""


def save_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """A folder, made here, with a tokenizer.json: a word is a token, and its id is its place in the list."""
    model = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    model.add_special_tokens([word for word in words if word.startswith("<|")])
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    return folder


def save_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> str:
    """The path as text, of a file with one record per line; its folder is made."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def numbered(count: int) -> list[dict[str, str]]:
    """Records with texts that all differ, of 2 to 8 words each."""
    return [{"text": f"{index} " + "one two three " * (index % 3) + "\u00e9"} for index in range(count)]


def stores_in(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of the stores, by name; not the record of the run, which names the inputs."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob("*/*"))}
