"""`titan-aioli tokenize --held-out`: documents that must not be trained on are found, refused or left out."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize import bpe
from titan_aioli.stores.tokenize.copies import Finder, build_index
from titan_aioli.stores.tokenize.tokenizer import decoder
from titan_aioli.testing.text import TRAIN_ONLY, save_jsonl, save_tokenizer, stores_in

WORDS = ["law", "code", "math", "river", "stone", "light", "table", "seven", "green", "paper", "cloud"]


def text(seed: int, num_words: int = 40) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


HELD = [text(seed) for seed in range(3)]
OTHERS = [text(seed) for seed in range(100, 140)]


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    """One token for each word of WORDS."""
    model = bpe.train_bpe([" ".join(WORDS)] * 3, 400, ["<|endoftext|>"])
    bpe.save_tokenizer(model, tmp_path / "tokenizer", "<|endoftext|>")
    return tmp_path / "tokenizer"


@pytest.fixture
def options(tmp_path, tokenizer):
    return {"tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1, **TRAIN_ONLY}


def corpus(folder: Path, *texts: str, name: str = "docs") -> str:
    return save_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in texts])


def texts_of(store: Path, tokenizer: Path) -> list[str]:
    opened = open_store(store)
    offsets = opened.document_offsets
    return decoder(tokenizer)([opened.tokens[a : b - 1].tolist() for a, b in pairwise(offsets)])


@pytest.fixture
def target(tmp_path, options) -> str:
    """The folder of a target's stores; HELD are its documents."""
    inputs = (corpus(tmp_path, *HELD, name="exam"),)
    tokenize(inputs, group="exam", role="target", **{**options, "val_share": 0.4, "test_share": 0.4})
    return str(tmp_path / "out/exam")


COPY = f"  {HELD[1].upper()}\n"
"""The same text, in other case and with other white space."""
TRAINED = [*OTHERS[:20], COPY, *OTHERS[20:], HELD[2]]


def test_copies_are_left_out_whatever_their_case_and_white_space(tmp_path, options, target, capsys):
    docs = corpus(tmp_path, *TRAINED)
    tokenize((docs,), group="web", held_out=(target,), on_contamination="leave-out", **options)
    assert texts_of(tmp_path / "out/web/train", options["tokenizer"]) == OTHERS
    clean = {**options, "output": tmp_path / "clean"}
    tokenize((corpus(tmp_path, *OTHERS, name="clean"),), group="web", **clean)
    assert stores_in(tmp_path / "clean")["web/train.bin"] == (tmp_path / "out/web/train.bin").read_bytes()
    assert (tmp_path / "out/web/train.json").read_text() == (tmp_path / "clean/web/train.json").read_text()
    out = capsys.readouterr().out
    done = json.loads((tmp_path / "out/web.done.json").read_text())["contamination"]
    assert sum(found["documents"] for found in done) == 2
    examples = [example.split(" (")[0] for found in done for example in found["examples"]]
    assert sorted(examples) == [f"{docs}, line {number}" for number in (21, 42)]
    for found in done:
        assert f"left out: group 'web': {found['documents']} document" in out and found["held_out"] in out
        assert f"  {found['examples'][0]}\n" in out


def test_by_default_it_warns_and_changes_nothing(tmp_path, options, target, capsys):
    docs = corpus(tmp_path, *TRAINED)
    tokenize((docs,), group="web", **{**options, "output": tmp_path / "plain"})
    assert "warning" not in capsys.readouterr().out
    tokenize((docs,), group="web", held_out=(target,), **{**options, "output": tmp_path / "warned"})
    assert "warning: group 'web': " in capsys.readouterr().out
    assert stores_in(tmp_path / "plain") == stores_in(tmp_path / "warned")


def test_refused_with_count_and_examples_and_continued_with_leave_out(tmp_path, options, capsys):
    docs, held = corpus(tmp_path, *TRAINED), corpus(tmp_path, *HELD, name="exam")
    clean = corpus(tmp_path, text(50), text(51), name="clean")
    command = {"group": "web", "held_out": (clean, held), **options}
    message = (
        r"group 'web': 2 documents to train on are also in .*exam.jsonl: .*docs.jsonl, line 21 "
        r"\(document 1\); .*docs.jsonl, line 42 \(document 2\): take them out.*leave-out or warn"
    )
    with pytest.raises(ValueError, match=message):
        tokenize((docs,), on_contamination="refuse", **command)
    assert not (tmp_path / "out/web").exists()
    (shard,) = (tmp_path / "out/web.partial").glob("shard-*")
    before = shard.stat().st_ino
    with pytest.raises(ValueError, match="2 documents to train on"):
        tokenize((docs,), on_contamination="refuse", **command)
    assert shard.stat().st_ino == before
    tokenize((docs,), on_contamination="leave-out", **command)
    assert texts_of(tmp_path / "out/web/train", options["tokenizer"]) == OTHERS
    with pytest.raises(ValueError, match=r"other --on-contamination \(leave-out there, warn now\)"):
        tokenize((docs,), on_contamination="warn", **command)


def test_nothing_depends_on_the_workers_or_the_shards(tmp_path, options, target):
    docs = corpus(tmp_path, *TRAINED)
    command = {"group": "web", "held_out": (target,), "contamination_ngrams": 13}
    records = []
    for name, processes, size in (("one", 1, 8.0), ("two", 2, 0.0005), ("three", 3, 0.001)):
        settings = {**options, "output": tmp_path / name, "processes": processes, "shard_megabytes": size}
        tokenize((docs,), on_contamination="leave-out", **command, **settings)
        records.append(json.loads((tmp_path / f"{name}/web.done.json").read_text())["contamination"])
    assert stores_in(tmp_path / "one") == stores_in(tmp_path / "two") == stores_in(tmp_path / "three")
    assert records[0] == records[1] == records[2]


def test_half_of_the_ngrams_by_hand(tmp_path, options):
    """40 words have 28 n-grams of 13: 26 of the words have 14, 25 have 13; no sum over documents counts."""
    words = HELD[0].split()
    half, less, rest = " ".join(words[:26]), " ".join(words[:25]), " ".join(words[25:])
    texts = [f"{OTHERS[0]} {half} {OTHERS[1]}", f"{OTHERS[2]} {less} {OTHERS[3]}", rest, OTHERS[4]]
    docs, held = corpus(tmp_path, *texts), corpus(tmp_path, *(f" {text}" for text in HELD), name="exam")
    command = {"group": "web", "held_out": (held,), "on_contamination": "leave-out"}
    tokenize((docs,), contamination_ngrams=13, **command, **options)
    assert texts_of(tmp_path / "out/web/train", options["tokenizer"]) == texts[1:]
    tokenize((docs,), **command, **{**options, "output": tmp_path / "whole"})
    assert texts_of(tmp_path / "whole/web/train", options["tokenizer"]) == texts


def test_an_ngram_ends_with_its_document():
    """The end of a document may be an ordinary token, such as 9."""
    index = build_index(["exam"], [[("exam", np.array([1, 2, 9, 3, 4]))]], 4)
    texts, tokens = ["a", "b"], np.array([1, 2, 9, 3, 4, 9])
    assert Finder(index).find(texts, tokens, np.array([3, 3])).tolist() == [-1, -1]
    assert Finder(index).find(texts[:1], tokens, np.array([6])).tolist() == [0]


def test_only_what_is_trained_on_is_left_out_and_by_group(tmp_path, options, capsys):
    records = [{"text": text, "set": "ab"[number % 2]} for number, text in enumerate([*OTHERS, *HELD])]
    docs, held = (
        save_jsonl(tmp_path / "docs.jsonl", records),
        corpus(tmp_path, *HELD, *OTHERS[:9], name="exam"),
    )
    shares = {"val_share": 0.3, "test_share": 0.3}
    tokenize((docs,), group_by="set", **{**options, **shares, "output": tmp_path / "plain"})
    command = {"group_by": "set", "held_out": (held,), "on_contamination": "leave-out"}
    tokenize((docs,), **command, **{**options, **shares})
    out = capsys.readouterr().out
    assert "left out: group 'a': " in out and "left out: group 'b': " in out
    for group in "ab":
        for split in ("validation", "test"):
            expected = texts_of(tmp_path / f"plain/{group}/{split}", options["tokenizer"])
            assert texts_of(tmp_path / f"out/{group}/{split}", options["tokenizer"]) == expected
        kept = texts_of(tmp_path / f"out/{group}/train", options["tokenizer"])
        trained = texts_of(tmp_path / f"plain/{group}/train", options["tokenizer"])
        assert kept == [text for text in trained if text not in {*HELD, *OTHERS[:9]}] != trained


def test_copies_are_found_where_the_tokenizer_loses_text(tmp_path):
    """The toy tokenizer has no word for `four`: the store's text differs, its ids are equal."""
    tokenizer = save_tokenizer(tmp_path / "toy")
    options = {"tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1}
    held = corpus(tmp_path, "one two four", name="exam")
    tokenize((held,), group="exam", role="target", val_share=0.5, **options)
    docs = corpus(tmp_path, "one two four", "two two one")
    command = {"group": "web", "held_out": (str(tmp_path / "out/exam"),), "on_contamination": "leave-out"}
    tokenize((docs,), **command, **options, **TRAIN_ONLY)
    assert texts_of(tmp_path / "out/web/train", tokenizer) == ["two two one"]


def test_a_prompt_with_its_answer_is_one_document(tmp_path, options):
    qa = save_jsonl(tmp_path / "qa.jsonl", [{"q": f"{text} ", "a": "seven"} for text in HELD])
    target = {"role": "target", "prompt_field": "q", "text_field": "a", "val_share": 0.9, "test_share": 0.0}
    tokenize((qa,), group="exam", **{**options, **target})
    docs = corpus(tmp_path, *OTHERS, f"{HELD[0]} Seven", HELD[1])
    command = {"group": "web", "held_out": (str(tmp_path / "out/exam"),), "on_contamination": "leave-out"}
    tokenize((docs,), **command, **options)
    assert texts_of(tmp_path / "out/web/train", options["tokenizer"]) == [*OTHERS, HELD[1]]


def test_a_group_of_held_out_documents_alone_says_so(tmp_path, options):
    docs = corpus(tmp_path, *HELD)
    command = {"group": "web", "held_out": (docs,), "on_contamination": "leave-out"}
    with pytest.raises(
        ValueError, match=r"no document with any text to train on: .*3 documents to train on are"
    ):
        tokenize((docs,), **command, **options)
    assert not (tmp_path / "out/web").exists()


def other_tokenizer(folder: Path) -> str:
    tokenizer = save_tokenizer(folder / "other")
    inputs = (corpus(folder, *HELD, name="exam"),)
    tokenize(inputs, group="exam", role="target", tokenizer=tokenizer, output=folder / "stores", processes=1)
    return str(folder / "stores/exam")


def train_alone(folder: Path) -> str:
    with MegatronWriter(folder / "law/train", "uint16") as writer:
        writer.add(np.arange(9, dtype=np.uint16))
    return str(folder / "law")


def flat(folder: Path) -> str:
    np.save(folder / "flat.npy", np.arange(9, dtype=np.uint16))
    return str(folder / "flat.npy")


BAD = {
    "nothing there": (lambda folder: "nowhere.jsonl", "--held-out nowhere.jsonl: no input at nowhere.jsonl"),
    "another tokenizer": (other_tokenizer, "stores/exam/.*: the store was made with another tokenizer"),
    "a train store": (train_alone, "law holds a train store alone"),
    "no documents": (flat, "flat.npy: the store does not say where documents begin"),
    "no text field": (
        lambda folder: save_jsonl(folder / "qa.jsonl", [{"question": "why"}]),
        "--held-out .*qa.jsonl: .*qa.jsonl, line 1: no field 'text'; found question",
    ),
    "empty texts": (
        lambda folder: corpus(folder, "", " ", name="exam"),
        "exam.jsonl: no document with any text",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_held_out(case, tmp_path, options):
    make, message = BAD[case]
    docs, held = corpus(tmp_path, *OTHERS), make(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        tokenize((docs,), group="web", held_out=(held,), **options)
    assert not (tmp_path / "out/web").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on-contamination", "refuse"], "--on-contamination refuse needs --held-out PATH"),
        (["--contamination-ngrams", "13"], "--contamination-ngrams needs --held-out PATH"),
        (
            ["--held-out", "exam", "--contamination-ngrams", "0"],
            "--contamination-ngrams is 0: from 1 to 1024",
        ),
        (["--held-out", "exam", "--role", "target"], "--held-out needs --role group"),
        (["--held-out", "exam", "--on-contamination", "deny"], "deny"),
    ],
)
def test_options_that_do_not_go_together(words, message, tmp_path, options, capfd):
    docs, output = corpus(tmp_path, *OTHERS), tmp_path / "out"
    named = ["--group", "web", "--tokenizer", str(options["tokenizer"]), "--output", str(output)]
    with pytest.raises(SystemExit) as stopped:
        main(["tokenize", docs, *named, *words])
    assert stopped.value.code == 2 and not output.exists()
    printed = capfd.readouterr()
    assert message in " ".join((printed.out + printed.err).replace("│", " ").split())


def test_other_held_out_documents_start_over_only_by_name(tmp_path, options):
    docs, held = corpus(tmp_path, *TRAINED), corpus(tmp_path, *HELD, name="exam")
    command = {"group": "web", "on_contamination": "leave-out", **options}
    tokenize((docs,), held_out=(held,), **command)
    corpus(tmp_path, *HELD[:2], name="exam")
    with pytest.raises(ValueError, match=r"web.done.json: made with other --held-out: run with"):
        tokenize((docs,), held_out=(held,), **command)
    tokenize((docs,), held_out=(held,), restart=True, **command)
    assert texts_of(tmp_path / "out/web/train", options["tokenizer"]) == [*OTHERS, HELD[2]]
