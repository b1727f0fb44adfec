"""The command `titan-aioli train-tokenizer`: a byte-level BPE of the user's own text.

The text is read as `titan-aioli tokenize` reads it, up to --max-bytes: what is learned hardly changes after
the first gigabyte, and memory holds the different words of what was read. Every input gives an equal
share of the bytes, and in it every file, so that no group is left out because another comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from titan_aioli.commands.settings import at_least_one
from titan_aioli.files import refuse_unwritable
from titan_aioli.stores.tokenize.bpe import NUM_BYTES, pieces, save_tokenizer, train_bpe
from titan_aioli.stores.tokenize.documents import Fields, read_documents
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.stores.tokenize.left_out import LeftOut
from titan_aioli.stores.tokenize.sources import JsonLines, Source, TextFiles
from titan_aioli.stores.tokenize.tables import Parquet, SavedDataset

LONGEST = 100_000
"""Number of characters that the library is given at a time: a long document needs no more memory."""


def train_tokenizer(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, at_least_one("INPUT")],
    *,
    output: Path,
    vocab_size: int = 32000,
    special_tokens: tuple[str, ...] = (),
    end_of_document: str = "<|endoftext|>",
    text_field: str = "text",
    max_bytes: int = 1_000_000_000,
    restart: bool = False,
) -> None:
    """Train a byte-level BPE tokenizer on your own text.

    Writes OUTPUT/tokenizer.json and tokenizer_config.json, for `titan-aioli tokenize --tokenizer OUTPUT` and
    for torchtitan (model.hf_assets_path). The same text gives the same bytes. Train it once, on all groups
    together, before any of them is tokenized:
      titan-aioli train-tokenizer law.jsonl.zst code/ --output tokenizer
      titan-aioli tokenize law.jsonl.zst --group law --tokenizer tokenizer --output stores

    Args:
        inputs: as of `titan-aioli tokenize`: JSONL, .parquet, text files, folders of these, a Hugging Face
            dataset saved to disk, or hf:OWNER/NAME[:CONFIG[:SPLIT]]. Each gives an equal share of the text.
        output: folder of the tokenizer.
        vocab_size: entries, the 256 bytes and special tokens included. More entries, fewer tokens for a text
            and a larger embedding in the model: 4096 for a toy, 32000 to 50304 for a language model.
        special_tokens: further tokens that no text is encoded to, such as "<|im_start|>" "<|im_end|>".
        end_of_document: the token that `titan-aioli tokenize` writes after every document.
        text_field: field with the text of a document, dotted where nested.
        max_bytes: most bytes of text to read, in UTF-8: it bounds time and memory.
        restart: replace a tokenizer that is there. Stores made with the old one do not fit the new one.
    """
    tokens = _check(inputs, vocab_size, special_tokens, end_of_document, max_bytes)
    _check_output(output, restart)
    sources = []
    for given in inputs:
        found, left_out = find_inputs([given])
        sources.append(found)
        for line in left_out:
            print(line)
    text = Text(sources, text_field, max_bytes)
    tokenizer = train_bpe(_with_progress(text, max_bytes), vocab_size, tokens)
    if not text.num_bytes:
        raise ValueError(f"{' '.join(inputs)}: no document with any text: see --text-field")
    try:
        save_tokenizer(tokenizer, output, end_of_document)
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error}") from None
    show(output, text, tokenizer.get_vocab_size(), vocab_size, max_bytes)


@dataclass
class Text:
    """The text to train on, in pieces: read once, and counted while it is read."""

    inputs: Sequence[Sequence[Source]]
    """The sources of each input."""
    text_field: str
    max_bytes: int
    num_bytes: int = 0
    """Bytes read so far, in UTF-8."""
    num_documents: int = 0
    """Documents read so far, the last of a source perhaps in part."""
    is_cut: bool = False
    """Whether there is more text than was read."""

    def __iter__(self) -> Iterator[str]:
        # the smallest first: what they leave of their share, the larger ones get
        inputs = [sorted(_by_file(sources), key=_size) for sources in self.inputs]
        inputs.sort(key=lambda sources: sum(map(_size, sources)))
        for number, sources in enumerate(inputs):
            end = self.num_bytes + (self.max_bytes - self.num_bytes) // (len(inputs) - number)
            for place, source in enumerate(sources):
                yield from self._read(
                    source, self.num_bytes + (end - self.num_bytes) // (len(sources) - place)
                )

    def _read(self, source: Source, stop: int) -> Iterator[str]:
        """The text of a source, until `stop` bytes have been read in all."""
        for document in read_documents(source, Fields(self.text_field, None, ""), LeftOut("refuse", 0)):
            if document.text and self.num_bytes >= stop:
                self.is_cut = True
                return
            self.num_documents += bool(document.text)
            for piece in pieces(document.text, LONGEST):
                data = piece.encode()
                kept = data[: stop - self.num_bytes]
                self.num_bytes += len(kept)
                yield piece if kept is data else kept.decode(errors="ignore")
                if len(kept) < len(data):
                    self.is_cut = True
                    return


def _by_file(sources: Sequence[Source]) -> list[Source]:
    """The sources, each text file on its own."""
    return [
        each
        for source in sources
        for each in (
            [TextFiles((file,)) for file in source.files] if isinstance(source, TextFiles) else [source]
        )
    ]


def _size(source: Source) -> float:
    """Bytes on disk, which only decide the order; infinite for a dataset of the hub."""
    if isinstance(source, JsonLines | Parquet):
        return source.path.stat().st_size
    if isinstance(source, TextFiles):
        return sum(path.stat().st_size for _, path in source.files)
    if isinstance(source, SavedDataset):
        return sum(path.stat().st_size for path in source.folder.glob("*.arrow"))
    return float("inf")


def _with_progress(text: Text, max_bytes: int) -> Iterator[str]:
    """The text, with a bar of the bytes read; merging comes after the last of them."""
    from tqdm import tqdm

    with tqdm(desc="read", unit="B", unit_scale=True, disable=None, total=max_bytes) as bar:
        for piece in text:
            yield piece
            bar.update(text.num_bytes - bar.n)
        bar.total = text.num_bytes
        bar.set_description("merge")  # seconds to minutes, inside of the library
        bar.refresh()


def show(output: Path, text: Text, num_entries: int, asked: int, max_bytes: int) -> None:
    """Print what was read and made, and what comes next."""
    more = f" (--max-bytes {max_bytes}: there is more)" if text.is_cut else " (all there is)"
    print(f"read {text.num_bytes:,} bytes of {text.num_documents:,} documents{more}")
    fewer = f", not {asked:,}: the text holds no more pairs to merge" if num_entries < asked else ""
    print(f"{output / 'tokenizer.json'}: {num_entries:,} entries{fewer}")
    print(f"next: titan-aioli tokenize INPUTS... --group NAME --tokenizer {output} --output stores")


def _check(inputs, vocab_size, special_tokens, end_of_document, max_bytes) -> list[str]:
    """All special tokens, the end of a document first. Raises: ValueError: an option is not possible."""
    if not inputs:
        raise ValueError("no inputs: give files, folders or hf:OWNER/NAME")
    tokens = [end_of_document, *(token for token in special_tokens if token != end_of_document)]
    if not all(tokens) or len(set(tokens)) < len(tokens):
        raise ValueError(
            f"special tokens are {', '.join(map(repr, tokens))}: each must be there once, none empty"
        )
    if vocab_size < NUM_BYTES + len(tokens):
        raise ValueError(
            f"--vocab-size is {vocab_size}: at least {NUM_BYTES + len(tokens)}, for {NUM_BYTES} bytes and "
            f"{len(tokens)} special token{'s' * (len(tokens) > 1)}"
        )
    if max_bytes < 1:
        raise ValueError(f"--max-bytes is {max_bytes}: it must be at least 1")
    return tokens


def _check_output(output: Path, restart: bool) -> None:
    """Refuse, before anything is read, a folder that holds a tokenizer or cannot be written."""
    for name in "tokenizer.json", "tokenizer_config.json":
        if (output / name).exists() and not restart:
            raise ValueError(
                f"{output / name} is there: choose another --output, or replace it with --restart"
            )
    refuse_unwritable(output, f"--output {output}")
