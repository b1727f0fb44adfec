"""`titan-aioli tokenize`: everything in the inputs is read as what it is, refused, or named as left out."""

import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile

import pytest
from tokenizers import Tokenizer

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.documents import Document
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.stores.tokenize.shards import batches
from titan_aioli.stores.tokenize.sources import JsonLines, TextFiles
from titan_aioli.testing.text import TRAIN_ONLY, save_tokenizer

LINES = b'{"text": "one two"}\n{"text": "three"}\n'
TOKENS = [2, 3, 0, 4, 0]
"""Tokens of LINES, with an end after each document."""


def read(folder, *given, **options):
    """The tokens of a store made of files or folders below FOLDER."""
    if not (folder / "tokenizer").exists():
        save_tokenizer(folder / "tokenizer")
    own = {"group": "web", "tokenizer": folder / "tokenizer", "output": folder / "out", "restart": True}
    tokenize(tuple(str(folder / name) for name in given), **own, **TRAIN_ONLY, **options)
    return open_store(folder / "out/web/train").tokens[:].tolist()


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_texts_that_follow_each_other_are_one_source(tmp_path):
    put(tmp_path, a_txt=b"one", b_txt=b"two", c_jsonl=LINES, folder__d_txt=b"three", folder__e_txt=b"nine")
    put(tmp_path, f_txt=b"one")
    given = ("a.txt", "b.txt", "c.jsonl", "folder", "f.txt")
    sources, _ = find_inputs([str(tmp_path / name) for name in given])
    names = [[name for name, _ in source.files] for source in sources if isinstance(source, TextFiles)]
    assert names == [["a.txt", "b.txt"], ["d.txt", "e.txt", "f.txt"]]
    assert isinstance(sources[1], JsonLines) and len(sources) == 3


@pytest.mark.parametrize("given", [("a.jsonl", "a.jsonl"), ("a.jsonl", "link.jsonl"), ("", "a.jsonl")])
def test_an_input_that_is_there_twice_is_refused(tmp_path, given):
    put(tmp_path, a_jsonl=LINES)
    if "link.jsonl" in given:
        (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    with pytest.raises(ValueError, match=rf"input .*{given[1]} was given before.*give it once"):
        find_inputs([str(tmp_path / name) for name in given])


def test_a_tokenizer_saved_with_truncation_and_padding_cuts_nothing(tmp_path):
    file = save_tokenizer(tmp_path / "tokenizer") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(file))
    put(tmp_path, a_jsonl=b'{"text": "one two three nine"}\n{"text": "one"}\n')
    assert read(tmp_path, "a.jsonl") == [2, 3, 4, 9, 0, 2, 0]


def test_a_tokenizer_saved_with_dropout_is_not_random(tmp_path):
    from tokenizers import models

    from titan_aioli.stores.tokenize.tokenizer import load_tokenizer

    merges = [("a", "b"), ("ab", "c")]
    vocabulary = {token: index for index, token in enumerate(["a", "b", "c", "ab", "abc"])}
    Tokenizer(models.BPE(vocabulary, merges, dropout=0.9)).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert all(tokenizer.encode("abc").ids == [4] for _ in range(50))


@pytest.mark.parametrize("name", ["a.json", "A.JSONL", "a.Json.GZ", "a.jsonl"])
def test_json_lines_are_read_whatever_the_suffix_and_its_case(tmp_path, name, capsys):
    compressed = name in ("a.Json.GZ", "a.jsonl")  # the second without the suffix of its compression
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / name).write_bytes(gzip.compress(LINES) if compressed else LINES)
    assert read(tmp_path, "docs") == TOKENS
    assert read(tmp_path, f"docs/{name}") == TOKENS
    assert "left out" not in capsys.readouterr().out


def test_what_is_left_out_of_a_folder_is_named_with_counts(tmp_path, capsys):
    put(tmp_path, docs__a_jsonl=LINES, docs__b_txt=b"four", docs__deep__c_TXT=b"five", docs__README=b"x")
    put(tmp_path, docs__d_json=b'{\n "name": "settings"\n}\n', docs__e_json=b'{"text": "nine"}\n')
    assert read(tmp_path, "docs") == [*TOKENS, 9, 0]
    line = f"{tmp_path}/docs: left out 4 files of other kinds (2 .txt, 1 without suffix, 1 .json)"
    assert line in capsys.readouterr().out.splitlines()


def test_json_that_is_not_in_lines_is_no_text(tmp_path):
    array = json.dumps([{"text": "one"}], indent=1).encode()
    put(tmp_path, docs__a_json=array)
    with pytest.raises(ValueError, match=r"a\.json: not one JSON object per line"):
        read(tmp_path, "docs")
    with pytest.raises(ValueError, match=r"a\.json, line 1: not JSON"):
        read(tmp_path, "docs/a.json")


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "one")
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
FOREIGN = {
    "tar": ("a.tar", tar(), "a tar archive: unpack it"),
    "tar in gzip": ("a.tgz", gzip.compress(tar()), "a tar archive"),
    "zip": ("a.zip", zipped(), "a zip archive"),
    "xz": ("a.jsonl.xz", lzma.compress(LINES), "compressed by xz"),
    "pointer": ("a.txt", POINTER, "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "pointer as lines": ("a.jsonl", POINTER, "a Git LFS pointer"),
    "pointer as .json": ("a.json", POINTER, "a Git LFS pointer"),
    "pointer as Parquet": ("a.parquet", POINTER, "a Git LFS pointer"),
    "image": ("a.png", b"\x89PNG\r\n\x1a\n", r"an image \(PNG\): remove it"),
    "binary": ("a.dat", b"one\0two", "a binary file"),
    "late NUL": ("a.txt", b"one " * 5000 + b"\0", "a binary file"),
    "UTF-16": ("a.txt", "one".encode("utf-16"), "not a text in UTF-8"),
}


@pytest.mark.parametrize("where", ["docs", "docs/{name}"])
@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path, case, where):
    name, content, message = FOREIGN[case]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.* {message}"):
        read(tmp_path, where.format(name=name))


@pytest.mark.parametrize(
    "line", [b"\0" * 5000, b'{"text": "one", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_a_line_that_cannot_be_parsed_is_named(tmp_path, line):
    put(tmp_path, a_jsonl=LINES * 200 + line + b"\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 401: not JSON"):
        read(tmp_path, "a.jsonl")


def test_a_link_to_nowhere_is_refused(tmp_path):
    put(tmp_path, docs__a_jsonl=LINES)
    (tmp_path / "docs/b.jsonl").symlink_to("/nowhere/b.jsonl")
    for given in ("docs", "docs/b.jsonl"):
        with pytest.raises(
            ValueError, match=r"b\.jsonl is a link to /nowhere/b\.jsonl, which does not exist"
        ):
            read(tmp_path, given)


def test_linked_folders_are_read_once_and_without_loops(tmp_path):
    put(tmp_path, elsewhere__a_jsonl=LINES)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one").symlink_to("../elsewhere")
    (tmp_path / "docs/two").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/up").symlink_to("../docs")
    assert read(tmp_path, "docs") == TOKENS


def test_an_entry_that_is_no_file_is_refused(tmp_path):
    put(tmp_path, docs__a_jsonl=LINES)
    os.mkfifo(tmp_path / "docs/pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder"):
        read(tmp_path, "docs")


def test_a_file_whose_name_is_not_in_utf8_is_read(tmp_path):
    put(tmp_path, docs__b_txt=b"three")
    (tmp_path / "docs" / os.fsdecode(b"a\xe9.txt")).write_bytes(b"one two")
    assert read(tmp_path, "docs") == TOKENS


def test_prompts_count_in_the_size_of_a_batch():
    documents = [Document(text="x", group="g", prompt="y" * 999) for _ in range(10)]
    assert [len(batch) for batch in batches(iter(documents), 2000)] == [2] * 5


def test_a_byte_order_mark_is_no_text(tmp_path):
    put(tmp_path, docs__a_txt=b"\xef\xbb\xbfone two", docs__b_txt=b"\xef\xbb\xbfthree")
    assert read(tmp_path, "docs") == TOKENS
    put(tmp_path, a_jsonl=b"\xef\xbb\xbf" + LINES, b__b_json=b"\xef\xbb\xbf" + LINES)
    assert read(tmp_path, "a.jsonl") == read(tmp_path, "b") == TOKENS
