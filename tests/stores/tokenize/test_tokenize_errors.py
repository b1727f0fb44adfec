"""`titan-aioli tokenize`: an error names the file, the line and the reason."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from titan_aioli.cli import main
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.store import open_store
from titan_aioli.testing.text import TRAIN_ONLY, numbered, save_jsonl, save_tokenizer


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    return save_tokenizer(tmp_path / "tokenizer")


BAD_LINES = {
    "not JSON": (b'{"text": "one"', r"docs\.jsonl, line 2: not JSON"),
    "not UTF-8": (b'{"text": "\xff"}', r"docs\.jsonl, line 2: not JSON.*utf-8"),
    "no object": (b'["one"]', "line 2: a JSON list, expected one object per line"),
    "missing field": (b'{"content": "one"}', "line 2: no field 'text'; found content"),
    "number": (b'{"text": 17}', "line 2: field 'text' is 17, expected a text"),
    "null bytes": (b'{"text": "one"}' + 9 * b"\0", "line 2: not JSON: it contains NUL bytes"),
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_named_with_its_file(tmp_path, tokenizer, bad):
    line, message = BAD_LINES[bad]
    (tmp_path / "docs.jsonl").write_bytes(b'{"text": "one"}\n' + line + b"\n")
    with pytest.raises(ValueError, match=message):
        tokenize((str(tmp_path / "docs.jsonl"),), group="web", tokenizer=tokenizer, output=tmp_path / "out")


def test_a_truncated_file_is_an_error_not_a_short_store(tmp_path, tokenizer):
    text = "".join(json.dumps(record) + "\n" for record in numbered(500)).encode()
    for kind, whole in (
        ("gz", gzip.compress(text)),
        ("zst", zstandard.compress(text)),
        ("parquet", b"PAR1xx"),
    ):
        suffix = kind if kind == "parquet" else f"jsonl.{kind}"
        (tmp_path / f"docs.{suffix}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            ValueError, match=rf"docs\.{suffix}: (cannot be read beyond line|not a whole Parquet)"
        ):
            tokenize(
                (str(tmp_path / f"docs.{suffix}"),), group="web", tokenizer=tokenizer, output=tmp_path / "out"
            )


def test_half_characters_become_a_mark(tmp_path, tokenizer):
    (tmp_path / "docs.jsonl").write_text('{"text": "one \\ud800"}\n')
    given = (str(tmp_path / "docs.jsonl"),)
    tokenize(given, group="web", tokenizer=tokenizer, output=tmp_path / "out", **TRAIN_ONLY)
    assert open_store(tmp_path / "out/web/train").metadata["text_bytes"] == 7  # "one " and U+FFFD


BAD_OPTIONS = {
    "no group": ({"group": None}, "give either --group NAME"),
    "both": ({"group_by": "set"}, "give either --group NAME"),
    "group is a path": ({"group": "a/b"}, r'--group is "a/b", but a group'),
    "share": ({"val_share": 1.5}, "--val-share is 1.5: it must be 0 or more and below 1"),
    "nothing left": ({"val_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
    "endless shards": ({"shard_megabytes": float("inf")}, "--shard-megabytes is inf: it must be finite"),
    "processes": ({"processes": 0}, "--processes is 0"),
    "unknown end": ({"end_of_document": "<end>"}, "the vocabulary has no token '<end>'"),
    "wrong field": ({"text_field": "body"}, "line 1: no field 'body'; found text"),
}


@pytest.mark.parametrize("bad", BAD_OPTIONS)
def test_a_bad_option_is_named(tmp_path, tokenizer, bad):
    options, message = BAD_OPTIONS[bad]
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(3))
    with pytest.raises(ValueError, match=message):
        tokenize((docs,), **{"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out", **options})


def test_missing_things_are_named(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(3))
    with pytest.raises(FileNotFoundError, match=r"no input at .*nowhere"):
        tokenize((str(tmp_path / "nowhere"),), group="web", tokenizer=tokenizer, output=tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*nowhere"):
        tokenize((docs,), group="web", tokenizer=tmp_path / "nowhere", output=tmp_path / "out")
    empty = save_jsonl(tmp_path / "empty.jsonl", [{"text": ""}])
    with pytest.raises(ValueError, match=r"empty\.jsonl: no document with any text to train on"):
        tokenize((empty,), group="web", tokenizer=tokenizer, output=tmp_path / "out")


def test_an_output_that_cannot_be_written_is_named_before_anything_is_read(tmp_path, tokenizer):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(3))
    with pytest.raises(ValueError, match=r"--output .*docs\.jsonl cannot be written"):
        tokenize(("nowhere",), group="web", tokenizer=tokenizer, output=Path(docs))


def test_an_end_that_cannot_be_inferred_must_be_given(tmp_path):
    folder = save_tokenizer(tmp_path / "plain", ["one", "[UNK]", "</s>", "<|endoftext|>"])
    docs = save_jsonl(tmp_path / "docs.jsonl", [{"text": "one"}])
    options = {"group": "web", "tokenizer": folder, "output": tmp_path / "out", **TRAIN_ONLY}
    with pytest.raises(ValueError, match=r"it has <\|endoftext\|> and </s>. Set --end-of-document"):
        tokenize((docs,), **options)
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    tokenize((docs,), **options)
    assert open_store(tmp_path / "out/web/train").tokens.tolist() == [0, 2]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tokenize", "x.jsonl", "--group", "web", "--tokenizer", "t", "--output", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("titan-aioli: error: no input at x.jsonl") and error.count("\n") == 1


def long_window(data: bytes) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return compressor.compress(data) + compressor.flush()


REMEDIES = {
    "a JSON array": ("a.json", b'[\n {"text": "one"}\n]\n', r"line 1: not JSON.*jq -c '\.\[\]'"),
    "a JSON array in a line": ("a.json", b'[{"text": "one"}]\n', r"a JSON list.*jq -c '\.\[\]'"),
    "a long window": ("a.jsonl.zst", long_window(b'{"text": "one"}\n'), r"zstd -dc --long=31"),
    "bytes after gzip": (
        "a.jsonl.gz",
        gzip.compress(b'{"text": "one"}\n') + bytes(100),
        "other bytes follow its gzip data",
    ),
    "deeply nested": ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1: not JSON"),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_what_to_do_about_a_file_that_cannot_be_read(tmp_path, tokenizer, case):
    name, data, message = REMEDIES[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        tokenize((str(tmp_path / name),), group="web", tokenizer=tokenizer, output=tmp_path / "out")


@pytest.mark.parametrize("name", ["vocab.json", "qwen.tiktoken", "tokenizer.model", "sp_bpe.model"])
@pytest.mark.parametrize("as_file", [True, False])
def test_another_form_of_tokenizer_says_how_it_is_converted(tmp_path, name, as_file):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "docs.txt").write_text("one")
    given = tmp_path / "model" / name if as_file else tmp_path / "model"
    with pytest.raises(FileNotFoundError, match=rf"another form \({name}\): .* AutoTokenizer") as caught:
        tokenize((str(tmp_path / "docs.txt"),), group="a", tokenizer=given, output=tmp_path / "out")
    command = "pip install transformers sentencepiece protobuf tiktoken"
    assert f"`{command}`" in str(caught.value) and command in Path("docs/running.md").read_text()
    assert "config.json or tokenizer_config.json must lie beside it" in str(caught.value)
