"""Toy texts and a tokenizer whose ids can be read off, for the tests of `titan-aioli tokenize`."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<|endoftext|>", "zero", "one", "two", "three", "<", "|", ">", "endoftext", "[UNK]"]
TRAIN_ONLY = {"val_share": 0.0, "test_share": 0.0}


def save_tokenizer(folder: Path, words=WORDS) -> Path:
    """A word is a token, and its id its place in the list."""
    model = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    model.add_special_tokens([word for word in words if word.startswith("<|")])
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    return folder


def save_jsonl(path, records) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def numbered(count):
    """Texts that all differ, with 1 to 9 words each."""
    return [{"text": f"{index} " + "one two three " * (index % 3) + "\u00e9"} for index in range(count)]


def stores_in(folder) -> dict[str, bytes]:
    """Every file of the stores, by name; not the record of the run, which names the inputs."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob("*/*"))}
