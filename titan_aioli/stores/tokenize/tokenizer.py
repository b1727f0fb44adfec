"""The tokenizer on disk: a tokenizer.json of the `tokenizers` library, or a folder that holds one."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from titan_aioli.errors import UserError
from titan_aioli.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KNOWN_ENDS = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<eos>",
    "<|endofdocument|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",  # DeepSeek's, in its own bars and underscores
    "[EOS]",
)
"""Names of the end-of-document token in the usual tokenizers."""


Decode = Callable[[list[list[int]]], list[str]]
"""The texts of documents, given their token ids."""


class TokenizerInfo(NamedTuple):
    """What a store records of its tokenizer."""

    digest: str
    """Digest of tokenizer.json."""
    vocab_size: int
    """Largest token id + 1."""
    end_of_document: int
    """Token id."""
    end_of_document_token: str


OTHER_FORMS = ("*.model", "*.tiktoken", "vocab.json", "merges.txt", "vocab.txt")
"""Names of files that models bring in place of a tokenizer.json, or beside it, as patterns."""
CONVERTERS = "transformers sentencepiece protobuf tiktoken"
"""Packages that together convert every usual form of a tokenizer."""


def tokenizer_file(path: str | Path) -> Path:
    """The tokenizer.json at a path.

    Raises: FileNotFoundError: neither a file nor a folder with a tokenizer.json; says how to make one of the
        other forms that tokenizers come in.
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    folder = file.parent
    other = sorted(path.name for form in OTHER_FORMS for path in folder.glob(form) if path.is_file())
    if other and (not file.is_file() or file.name in other):
        raise FileNotFoundError(
            f"{folder} holds a tokenizer in another form ({', '.join(other)}): convert it with `pip install "
            f'{CONVERTERS}` and `python -c "from transformers import AutoTokenizer; '
            f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('tokenizer')\"`, which writes "
            "tokenizer/tokenizer.json (the model's config.json or tokenizer_config.json must lie beside it)"
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"no tokenizer at {file}: give --tokenizer a tokenizer.json, or a folder that holds one (such as "
            "torchtitan's scripts/download_hf_assets.py makes)"
        )
    return file


def load_tokenizer(path: str | Path) -> "Tokenizer":
    """The tokenizer, set to encode special tokens that occur in a text like any other characters.

    A page that contains the characters <|endoftext|> must not end a document. Truncation, padding and
    random choices (dropout) that a tokenizer.json may have been saved with are off.

    Raises: ValueError: not a tokenizer.json.
    """
    from tokenizers import Tokenizer

    file = tokenizer_file(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{file}: not a tokenizer.json of the `tokenizers` library: {error}") from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for setting in ("dropout", "alpha", "nbest_size"):  # BPE's and Unigram's random choice of tokens
        if getattr(tokenizer.model, setting, None) is not None:
            setattr(tokenizer.model, setting, None)
    return tokenizer


def decoder(path: str | Path) -> Decode:
    """What turns token ids back into texts, special tokens left out.

    It raises: UserError: an id is negative.
    """
    tokenizer = load_tokenizer(path)

    def decode(documents: list[list[int]]) -> list[str]:
        try:
            return tokenizer.decode_batch(documents, skip_special_tokens=True)
        except OverflowError:
            raise UserError(f"a store holds negative token ids, which {path} cannot decode") from None

    return decode


def tokenizer_info(path: str | Path, end_of_document: str | None) -> TokenizerInfo:
    """Digest, vocabulary and end-of-document token of a tokenizer.

    Args:
        path: tokenizer.json or its folder.
        end_of_document: the token, or None to infer it.
    Raises: ValueError: the token is not in the vocabulary, or cannot be inferred.
    """
    file = tokenizer_file(path)
    vocabulary = load_tokenizer(file).get_vocab(with_added_tokens=True)
    token = end_of_document if end_of_document is not None else _infer_end(file, vocabulary)
    if token not in vocabulary:
        raise ValueError(f"{file}: the vocabulary has no token {token!r}: choose another --end-of-document")
    return TokenizerInfo(tokenizer_digest(file), max(vocabulary.values()) + 1, vocabulary[token], token)


def tokenizer_digest(path: str | Path) -> str:
    """Digest of a tokenizer.json or of the one in a folder, as the metadata of stores hold it."""
    return blake2b(tokenizer_file(path).read_bytes(), digest_size=16).hexdigest()


def _infer_end(file: Path, vocabulary: dict[str, int]) -> str:
    """`eos_token` of the tokenizer_config.json beside the file; else the only name of KNOWN_ENDS there."""
    config = file.with_name("tokenizer_config.json")
    if config.is_file():
        settings = read_json(config, "the settings of a tokenizer")
        if not isinstance(settings, dict):
            raise ValueError(f"{config} is not the settings of a tokenizer: it must hold an object {{...}}")
        token: Any = settings.get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in vocabulary:
            return token
    found = [token for token in KNOWN_ENDS if token in vocabulary]
    if len(found) == 1:
        return found[0]
    reason = f"it has {' and '.join(found)}" if found else f"it has none of {', '.join(KNOWN_ENDS)}"
    raise ValueError(
        f"{file}: cannot tell which token ends a document: {reason}. Set --end-of-document TOKEN"
    )
