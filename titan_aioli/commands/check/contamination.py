"""`titan-aioli check --contamination`: held-out documents that are trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titan_aioli.data.contamination import (
    Found,
    document,
    find_contamination,
    num_documents,
    passes,
)
from titan_aioli.data.group import Group
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.errors import UserError
from titan_aioli.stores.overlap import LARGEST_NGRAM, normalised
from titan_aioli.stores.tokenize.tokenizer import decoder, tokenizer_digest

if TYPE_CHECKING:
    from titan_aioli.config.build import Mixture

NUM_EXAMPLES = 3
SHOWN_TOKENS = 12
SHOWN_CHARACTERS = 60


class Options(NamedTuple):
    """What `check` was asked to look for."""

    is_wanted: bool
    ngram: int
    """0: only whole documents."""
    tokenizer: Path | None


class HeldOut(NamedTuple):
    """One held-out set of a run."""

    split: str
    """validation or test."""
    documents: HeldOutSet
    found: list[Found]

    @property
    def name(self) -> str:
        return f"{self.documents.name} {self.split}"


def read_options(contamination: bool, ngram: int | None, tokenizer: Path | None) -> Options:
    """The flags of the command, checked before anything is read.

    Raises: UserError: flags that do not go together, or an n-gram of no size.
    """
    if ngram is not None and not 1 <= ngram <= LARGEST_NGRAM:
        raise UserError(f"--contamination-ngrams is {ngram}: from 1 to {LARGEST_NGRAM} tokens; 13 is usual")
    if tokenizer is not None and not contamination and ngram is None:
        raise UserError("--tokenizer is read for --contamination only: add it, or leave out --tokenizer")
    return Options(contamination or ngram is not None, ngram or 0, tokenizer)


def look_for_contamination(mixture: "Mixture", options: Options) -> list[HeldOut]:
    """The held-out sets that the mixture is for (the groups' own, without targets), and who trains on them.

    Raises: UserError: a store was made with another tokenizer than the given one.
    """
    from tqdm import tqdm

    splits = (mixture.validation, mixture.test) if mixture.targets is None else mixture.targets[1:]
    sets = [
        (split, held)
        for split, of_split in zip(("validation", "test"), splits, strict=True)
        for held in of_split
    ]
    held_out = [held for _, held in sets]
    _refuse_other_tokenizers([*mixture.train, *held_out], options.tokenizer)
    decode = decoder(options.tokenizer) if options.tokenizer else None
    total = sum(group.num_tokens for group in mixture.train) * passes(options.ngram)
    with tqdm(total=total, desc="contamination", unit=" tokens", unit_scale=True, disable=None) as bar:
        found = find_contamination(held_out, mixture.train, options.ngram, decode, bar.update)
    return [HeldOut(split, held, of_set) for (split, held), of_set in zip(sets, found, strict=True)]


def contamination_lines(
    held_out: Sequence[HeldOut], train: Sequence[Group], options: Options
) -> Iterator[str]:
    """A line for each set and group that trains on it, with examples; a line for each set that is clean."""
    decode = decoder(options.tokenizer) if options.tokenizer else None
    for held in held_out:
        total = num_documents(held.documents)
        if not held.found:
            yield f"{held.name}: 0 of {total:,} documents are in the train stores"
        for found in held.found:
            yield _sentence(held, found)
            for number, share in list(zip(found.documents, found.shares, strict=True))[:NUM_EXAMPLES]:
                tokens = document(held.documents, int(number))[: SHOWN_TOKENS * (8 if decode else 1)].tolist()
                shown = _cut(normalised(decode([tokens])[0])) if decode else str(tokens)
                how = f" ({share:.0%} of its n-grams)" if share < 1 else ""
                yield f"  document {number:,}{how}: {shown}"
    for path in _not_compared(held_out, train, options):
        yield f"not compared: {path} has no documents: add --contamination-ngrams 13"


def refuse_contamination(held_out: Sequence[HeldOut]) -> None:
    """Raises: UserError: a held-out document is trained on; names the first set and group."""
    for held in held_out:
        for found in held.found:
            raise UserError(
                f"{_sentence(held, found)}, the first is document {found.documents[0]:,}: take them out of "
                'one of the two, or set mixing.objective.contamination to "warn"'
            )


def _sentence(held: HeldOut, found: Found) -> str:
    count, total = len(found.documents), num_documents(held.documents)
    return f"{held.name}: {count:,} of {total:,} documents are in the train stores of {found.group}"


def _not_compared(held_out: Sequence[HeldOut], train: Sequence[Group], options: Options) -> list[str]:
    """Paths of stores without documents, where only whole documents are compared."""
    if options.ngram:
        return []
    groups = [*train, *(held.documents for held in held_out)]
    stores = [store for group in groups for store in group.stores]
    return list(dict.fromkeys(store.path for store in stores if store.document_offsets is None))


def _refuse_other_tokenizers(groups: Sequence[HeldOutSet], path: Path | None) -> None:
    """Refuse to compare the ids of different tokenizers: nothing would be found.

    Raises: UserError: the metadata of a store name another tokenizer than the given one or another store.
    """
    expected = None if path is None else (tokenizer_digest(path), str(path))
    for store in (store for group in groups for store in group.stores):
        digest = store.metadata.get("tokenizer")
        if digest is not None:
            expected = expected or (digest, store.path)
            if digest != expected[0]:
                raise UserError(
                    f"{store.path} was made with another tokenizer than {expected[1]}: tokenize all with "
                    "one tokenizer, and give that one"
                )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
