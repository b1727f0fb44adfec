"""`titan-aioli train-tokenizer`: bounded text, the same bytes every time, whole or not at all."""

import gzip
import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from titan_aioli.cli import main
from titan_aioli.commands.train_tokenizer import Text
from titan_aioli.files import replacing
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize import bpe
from titan_aioli.stores.tokenize.inputs import find_inputs
from titan_aioli.testing.text import numbered, save_jsonl


@pytest.fixture
def inputs(tmp_path):
    """A JSONL file, and a folder with two text files."""
    save_jsonl(tmp_path / "law.jsonl", numbered(200))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("def first(x):\n    return x + 1\n" * 50)
    (tmp_path / "code/b.py").write_text("def second(y):\n    return y * 2\n" * 10)
    return [str(tmp_path / "law.jsonl"), str(tmp_path / "code")]


def train(inputs, folder, *options):
    main(["train-tokenizer", *inputs, "--output", str(folder), *options])
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train-tokenizer", *map(str, words)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("titan-aioli: error: ")


def test_its_stores_say_what_the_text_said(inputs, tmp_path):
    """An end of a document that no usual tokenizer has is found again, and its id is 0."""
    tokenizer = train(
        inputs,
        tmp_path / "tok",
        "--vocab-size",
        "300",
        "--end-of-document",
        "<end>",
        "--special-tokens",
        "<a>",
    )
    assert (tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<a>")) == (0, 1)
    words = ["tokenize", inputs[0], "--group", "law", "--tokenizer", str(tmp_path / "tok")]
    main([*words, "--output", str(tmp_path / "stores"), "--processes", "1"])
    store = open_store(tmp_path / "stores/law/train")
    assert store.metadata["vocab_size"] == tokenizer.get_vocab_size() <= 300
    first = np.array(store.tokens[: np.flatnonzero(store.tokens == 0)[0]])
    assert tokenizer.decode(first.tolist()) in [record["text"] for record in numbered(200)]


def test_the_same_text_gives_the_same_bytes_in_any_order_and_form(inputs, tmp_path):
    train(inputs, tmp_path / "first", "--vocab-size", "320")
    (tmp_path / "law.jsonl.gz").write_bytes(gzip.compress((tmp_path / "law.jsonl").read_bytes()))
    train([inputs[1], str(tmp_path / "law.jsonl.gz")], tmp_path / "second", "--vocab-size", "320")
    for name in "tokenizer.json", "tokenizer_config.json":
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_output_says_what_was_read(inputs, tmp_path, capsys):
    train(inputs, tmp_path / "all", "--vocab-size", "5000")
    out = capsys.readouterr().out
    size = sum(len(record["text"].encode()) for record in numbered(200)) + 50 * 31 + 10 * 32
    assert f"read {size:,} bytes of 202 documents (all there is)" in out
    assert "entries, not 5,000: the text holds no more pairs" in out
    train(inputs, tmp_path / "some", "--vocab-size", "257", "--max-bytes", "1000")
    assert "read 1,000 bytes of" in capsys.readouterr().out


def test_every_input_gives_an_equal_share_and_leaves_what_it_does_not_need(inputs):
    """900 bytes: 450 from the folder (225 a file, both are longer), 450 from the JSONL."""
    text = Text([find_inputs([given]).sources for given in inputs], "text", 900)
    read = "".join(text)
    assert text.is_cut and text.num_bytes == 900 == len(read.encode()) + 1  # half a character is dropped
    assert len(read[: read.index("def first")].encode()) == 225
    assert 445 <= len(read[read.index("0 \u00e9") :].encode()) <= 450
    generous = Text([find_inputs([given]).sources for given in inputs], "text", 5000)
    assert "def second(y):\n    return y * 2\n" * 10 in "".join(generous)  # 320 bytes, all there is


def test_a_text_is_never_cut_inside_of_a_character(tmp_path):
    path = save_jsonl(tmp_path / "a.jsonl", [{"text": "\u00e9" * 10}])
    text = Text([find_inputs([path]).sources], "text", 5)
    assert list(text) == ["\u00e9\u00e9"] and text.is_cut


def test_pieces_are_the_text():
    text = "one\ntwo\n\nthree" + "x" * 50
    for longest in 1, 4, 7, 100:
        cut = list(bpe.pieces(text, longest))
        assert "".join(cut) == text and max(map(len, cut)) <= longest
    assert list(bpe.pieces("one\ntwo\nsix", 9)) == ["one\ntwo\n", "six"]


def test_a_tokenizer_that_is_there_is_kept(inputs, tmp_path, capsys):
    train(inputs, tmp_path / "tok", "--vocab-size", "300")
    before = (tmp_path / "tok/tokenizer.json").read_bytes()
    capsys.readouterr()
    assert "or replace it with --restart" in refused([*inputs, "--output", tmp_path / "tok"], capsys)
    assert (tmp_path / "tok/tokenizer.json").read_bytes() == before
    train(inputs, tmp_path / "tok", "--vocab-size", "280", "--restart")
    assert (tmp_path / "tok/tokenizer.json").read_bytes() != before


def test_a_run_that_dies_while_it_writes_leaves_the_old_one(inputs, tmp_path, monkeypatch, capsys):
    train(inputs, tmp_path / "tok", "--vocab-size", "300")
    before = (tmp_path / "tok/tokenizer.json").read_bytes()
    capsys.readouterr()

    def full(path):
        if path.name == "tokenizer.json":
            raise OSError("no space left on device")
        return replacing(path)

    monkeypatch.setattr(bpe, "replacing", full)
    words = [*inputs, "--output", tmp_path / "tok", "--vocab-size", "280", "--restart"]
    assert "cannot be written: no space left" in refused(words, capsys)
    assert (tmp_path / "tok/tokenizer.json").read_bytes() == before


FAULTS = {
    "vocabulary": (["--vocab-size", "257", "--special-tokens", "<a>"], "--vocab-size is 257: at least 258"),
    "twice": (["--special-tokens", "<a>", "<a>"], "each must be there once"),
    "empty": (["--end-of-document", ""], "each must be there once, none empty"),
    "no bytes": (["--max-bytes", "0"], "--max-bytes is 0"),
    "field": (["--text-field", "body"], "no field 'body'; found text"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(case, inputs, tmp_path, capsys):
    options, message = FAULTS[case]
    assert message in refused([*inputs, "--output", tmp_path / "new/tok", *options], capsys)
    assert not (tmp_path / "new").exists()


def test_no_input_no_text_no_folder(tmp_path, capsys):
    output = ["--output", tmp_path / "tok"]
    assert "no inputs" in refused(output, capsys)
    (tmp_path / "empty.jsonl").write_text(json.dumps({"text": ""}) + "\n")
    assert "no document with any text" in refused([tmp_path / "empty.jsonl", *output], capsys)
    assert "no input at" in refused([tmp_path / "nowhere", *output], capsys)
    words = [tmp_path / "empty.jsonl", "--output", tmp_path / "empty.jsonl/tok"]
    assert "cannot be written" in refused(words, capsys)
    assert not (tmp_path / "tok").exists()
