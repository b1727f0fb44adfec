"""A byte-level BPE tokenizer trained on texts with the `tokenizers` library, and its two files.

Byte-level: every text can be encoded and comes back as it was. The same texts give the same bytes.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titan_aioli.files import replacing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NUM_BYTES = 256
"""Number of entries that a byte-level vocabulary has before the first merge: one per byte."""


def train_bpe(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str]) -> "Tokenizer":
    """A byte-level BPE; smaller than asked for where the texts hold too few pairs to merge.

    The library keeps the different words of the texts in memory, not the texts.

    Args:
        texts: read once; their order does not matter.
        vocab_size: entries, special tokens and the 256 bytes included.
        special_tokens: they get the ids 0, 1, ... in this order.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: "Tokenizer", folder: Path, end_of_document: str) -> None:
    """FOLDER/tokenizer.json, and tokenizer_config.json as torchtitan loads it; each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"eos_token": end_of_document, "tokenizer_class": "PreTrainedTokenizerFast"}
    for name, content in (
        ("tokenizer_config.json", json.dumps(config)),
        ("tokenizer.json", tokenizer.to_str()),  # the last: where it is, the other one is too
    ):
        with replacing(folder / name) as file:
            file.write(content.encode())


def pieces(text: str, longest: int) -> Iterator[str]:
    """The text in pieces of at most `longest` characters, cut after the last line that fits."""
    start = 0
    while len(text) - start > longest:
        cut = text.rfind("\n", start, start + longest) + 1 or start + longest
        yield text[start:cut]
        start = cut
    yield text[start:]
