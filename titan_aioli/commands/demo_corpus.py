"""`titan-aioli demo-corpus`: real text that every installation has, the files of the packages we depend on.

Six groups that differ in kind, up to 3 MB each: Python code, C++ headers, prose (docstrings and package
descriptions), type stubs, tables of numbers, licences. Beside them a target that is no group, 1 MB at most:
CUDA code (`.cuh`, `.cu`). Deduplicated over all of them; the same packages give the same documents on every
machine. With it comes a byte-level BPE tokenizer of 4,096 entries, trained on equal shares of the groups.
Takes about 15 seconds on two cores.

    titan-aioli demo-corpus outputs/demo --tokenize

writes outputs/demo/corpus/GROUP.jsonl.gz, outputs/demo/tokenizer/tokenizer.json and, with --tokenize,
outputs/demo/stores/NAME/{train,validation,test}.{bin,idx,json}, no train for the target. Your own
text goes the same way: see `titan-aioli tokenize --help`.
"""

import ast
import gzip
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from titan_aioli.commands.tokenize import tokenize as make_stores
from titan_aioli.files import refuse_unwritable, replacing
from titan_aioli.stores.tokenize.bpe import pieces, save_tokenizer, train_bpe
from titan_aioli.stores.tokenize.splits import split_of

PACKAGES = """
    datasets fonttools fsspec grpcio huggingface_hub jinja2 matplotlib mpmath networkx numpy packaging pandas
    pillow pyarrow pyyaml requests rich scipy setuptools sympy tensorboard tokenizers torch torchdata
    torchtitan tqdm triton tyro
""".split()  # noqa: SIM905
"""Packages that `pip install titan_aioli` brings, not what happens to be installed beside it."""

GROUPS = ("cpp", "licenses", "prose", "python", "stubs", "tables")
TARGET = "cuda"
SUFFIXES = {
    **dict.fromkeys((".h", ".hpp", ".cpp", ".cc"), "cpp"),
    **dict.fromkeys((".cuh", ".cu"), TARGET),
    **dict.fromkeys((".csv", ".dat", ".afm", ".txt"), "tables"),
    **dict.fromkeys((".md", ".rst"), "prose"),
    ".pyi": "stubs",
}
LICENSE_NAME = re.compile(r"licen[sc]e|notice|copying", re.IGNORECASE)

GROUP_BYTES, TARGET_BYTES = 3_000_000, 1_000_000
SHORTEST, LONGEST = 300, 10_000
"""Bounds of a document, in characters. A longer file becomes several documents, cut where a line ends."""
SAMPLE_BYTES = 1_000_000
"""Number of bytes of each group that the tokenizer is trained on."""
VOCAB_SIZE = 4096
VAL_SHARE, TEST_SHARE = 0.1, 0.05
TARGET_VAL_SHARE, TARGET_TEST_SHARE = 0.5, 0.4  # the rest is left out: docs/study.md has numbers on these
END_OF_DOCUMENT = "<|endoftext|>"


def demo_corpus(output: Annotated[Path, tyro.conf.Positional], tokenize: bool = False) -> None:
    """Make a corpus of real text in six groups and a target, and its tokenizer, from the installed packages.

    Writes OUTPUT/corpus/GROUP.jsonl.gz, OUTPUT/tokenizer/ and, with --tokenize, OUTPUT/stores/GROUP:

        titan-aioli demo-corpus outputs/demo --tokenize

    Args:
        output: folder to write into: corpus/, tokenizer/ and stores/.
        tokenize: also make the token stores, as `titan-aioli tokenize` does.
    """
    refuse_unwritable(output, f"--output {output}")
    corpus = collect()
    write_corpus(corpus, output / "corpus")
    train_tokenizer(corpus, output / "tokenizer")
    table = Table("group", "documents", "bytes of text", "first file")
    for group, documents in corpus.items():
        size = sum(len(document["text"].encode()) for document in documents)
        table.add_row(group, f"{len(documents):,}", f"{size:,}", documents[0]["source"] if documents else "")
    Console(markup=False, emoji=False).print(table)
    print(f"{output / 'corpus'} and a tokenizer of {VOCAB_SIZE} entries, {output / 'tokenizer'}")
    if tokenize:
        _make_stores(output, GROUPS, VAL_SHARE, TEST_SHARE, group_by="group")
        _make_stores(output, [TARGET], TARGET_VAL_SHARE, TARGET_TEST_SHARE, group=TARGET, role="target")


def _make_stores(
    output: Path,
    names: Sequence[str],
    val_share: float,
    test_share: float,
    group: str | None = None,
    group_by: str | None = None,
    role: Literal["group", "target"] = "group",
) -> None:
    """OUTPUT/stores/NAME, as `titan-aioli tokenize` makes them."""
    make_stores(
        tuple(str(output / "corpus" / f"{name}.jsonl.gz") for name in names),
        group=group,
        group_by=group_by,
        tokenizer=output / "tokenizer",
        output=output / "stores",
        role=role,
        val_share=val_share,
        test_share=test_share,
        restart=True,
    )


def installed_files() -> list[PackagePath]:
    """The files of PACKAGES, in an order that mixes the packages and depends on the names alone."""
    files = {}
    for package in PACKAGES:
        try:
            listed = distribution(package).files or []
        except PackageNotFoundError:  # for example triton, which only Linux has
            continue
        files.update({name.as_posix(): name for name in listed if ".." not in name.parts})
    return [files[name] for name in sorted(files, key=_digest)]


def group_of(file: PackagePath) -> str | None:
    """The group that a file belongs to, or the target; None for a file of no use."""
    if file.suffix == ".py":
        # a module gives either its code or its docstrings, so that no text is in two groups
        return "prose" if _digest(file.as_posix()) < "8" else "python"
    if file.suffix in SUFFIXES and not LICENSE_NAME.search(file.name):
        return SUFFIXES[file.suffix]
    if file.name == "METADATA":
        return "prose"
    return (
        "licenses" if LICENSE_NAME.search(file.name) and file.suffix in ("", ".txt", ".md", ".rst") else None
    )


def documents_of(file: PackagePath, group: str) -> Iterator[str]:
    """The documents in a file, each of SHORTEST to LONGEST characters."""
    try:
        text = Path(str(file.locate())).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    texts: Iterable[str] = [text]
    if file.name == "METADATA":
        texts = [text.partition("\n\n")[2]]  # the headers end with an empty line, the description follows
    elif group == "prose" and file.suffix == ".py":
        texts = docstrings(text)
    elif group == "tables" and sum(map(text.count, "0123456789")) < 0.2 * len(text):
        return
    for whole in texts:
        yield from (piece for piece in pieces(whole.strip(), LONGEST) if len(piece) >= SHORTEST)


def docstrings(code: str) -> list[str]:
    """The docstrings of a module, of its classes and functions, without their indentation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in nodes if isinstance(node, owners)]


def collect() -> dict[str, list[dict[str, str]]]:
    """Documents of groups and target, {"group", "source", "text"}, in the order of their content's hash."""
    corpus: dict[str, list[dict[str, str]]] = {name: [] for name in (*GROUPS, TARGET)}
    left = {**dict.fromkeys(GROUPS, GROUP_BYTES), TARGET: TARGET_BYTES}
    seen: set[str] = set()
    for file in installed_files():
        group = group_of(file)
        if group is None or left[group] <= 0:
            continue
        for text in documents_of(file, group):
            key = _digest(" ".join(text.lower().split()))
            if key not in seen and left[group] > 0:
                seen.add(key)
                left[group] -= len(text.encode())
                corpus[group].append({"group": group, "source": file.as_posix(), "text": text})
    corpus[TARGET] = [document for document in corpus[TARGET] if _is_held_out(document["text"])]
    return {group: sorted(found, key=lambda each: _digest(each["text"])) for group, found in corpus.items()}


def _is_held_out(text: str) -> bool:
    """Whether a document of the target is evaluated: a target has no other documents."""
    return split_of(text.encode(), TARGET_VAL_SHARE, TARGET_TEST_SHARE) != "train"


def write_corpus(corpus: dict[str, list[dict[str, str]]], folder: Path) -> None:
    """FOLDER/GROUP.jsonl.gz, the same bytes for the same documents."""
    folder.mkdir(parents=True, exist_ok=True)
    for group, documents in corpus.items():
        with (
            replacing(folder / f"{group}.jsonl.gz") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as compressed,
        ):
            for document in documents:
                compressed.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")


def train_tokenizer(
    corpus: dict[str, list[dict[str, str]]], folder: Path, vocab_size: int = VOCAB_SIZE
) -> None:
    """A byte-level BPE of `vocab_size` entries, in FOLDER/tokenizer.json, as torchtitan loads it."""
    save_tokenizer(train_bpe(_sample(corpus), vocab_size, [END_OF_DOCUMENT]), folder, END_OF_DOCUMENT)


def _sample(corpus: dict[str, list[dict[str, str]]]) -> Iterator[str]:
    """Documents of each group; none of the target, which a tokenizer does not see either."""
    for documents in (documents for name, documents in corpus.items() if name != TARGET):
        taken = 0
        for document in documents:
            if taken < SAMPLE_BYTES:
                taken += len(document["text"].encode())
                yield document["text"]


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
