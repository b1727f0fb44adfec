"""`titan-aioli tokenize --role target`: held-out sets, and prompts with answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.config import Group, Mixing, ObjectiveTable, Target
from titan_aioli.config.build import build_mixture
from titan_aioli.data.answers import Answers
from titan_aioli.errors import UserError
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.splits import split_of
from titan_aioli.stores.tokenize.tokenizer import load_tokenizer
from titan_aioli.testing.text import numbered, save_jsonl, save_tokenizer, stores_in


@pytest.fixture
def options(tmp_path):
    return {"tokenizer": save_tokenizer(tmp_path / "tokenizer"), "output": tmp_path / "out", "processes": 1}


@pytest.fixture
def questions(tmp_path):
    records = [{"q": f"what is {n}?\n", "a": f"it is {n * n}", "id": n} for n in range(200)]
    return save_jsonl(tmp_path / "qa.jsonl", records)


QA = {
    "group": "qa",
    "role": "target",
    "prompt_field": "q",
    "text_field": "a",
    "val_share": 0.3,
    "test_share": 0.3,
}


def test_a_target_has_no_train_store(tmp_path, options):
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(200))
    tokenize((docs,), group="exam", role="target", val_share=0.3, test_share=0.1, **options)
    validation, test = (open_store(tmp_path / f"out/exam/{split}") for split in ("validation", "test"))
    assert validation.num_documents + test.num_documents == 200 and 20 < test.num_documents < 80
    assert not (tmp_path / "out/exam/train.bin").exists() and validation.prompts is None


def test_prompts_and_answers_are_known_apart(tmp_path, options, questions):
    tokenize((questions,), **QA, **options)
    store = open_store(tmp_path / "out/qa/validation")
    assert store.metadata["role"] == "target" and len(store.prompts) == store.num_documents > 50
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    expected = []
    for line in Path(questions).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if split_of((record["q"] + record["a"]).encode(), 0.5, 0.5) == "validation":
            expected.append([tokenizer.encode(record[name]).ids for name in ("q", "a")])
    end = store.metadata["end_of_document"]
    assert store.tokens[:].tolist() == [t for q, a in expected for t in (*q, *a, end)]
    assert store.prompts.tolist() == [len(q) for q, _ in expected]


def test_the_result_does_not_depend_on_the_workers(tmp_path, options, questions):
    tokenize((questions,), **QA, **options)
    tokenize(
        (questions,),
        **QA,
        **{**options, "output": tmp_path / "two", "processes": 2, "shard_megabytes": 0.001},
    )
    assert stores_in(tmp_path / "out") == stores_in(tmp_path / "two")
    prompts = [np.load(tmp_path / name / "qa/test.prompts.npy") for name in ("out", "two")]
    np.testing.assert_array_equal(*prompts)


def test_answers_are_evaluated_in_bits_per_byte_and_never_trained_on(tmp_path, options, questions):
    tokenize((questions,), **QA, **options)
    docs = save_jsonl(tmp_path / "docs.jsonl", numbered(300))
    tokenize((docs,), group="web", val_share=0.2, test_share=0.2, **options)
    mixing = Mixing(stores=str(tmp_path / "out"), groups={"web": Group()}, targets={"qa": Target()})
    mixing.objective = ObjectiveTable(unit="bits_per_byte")
    mixture = build_mixture(mixing, 32, None)
    (answers,) = mixture.targets.validation
    assert isinstance(answers, Answers)
    store = open_store(tmp_path / "out/qa/validation")
    expected = answers.num_tokens / store.metadata["text_bytes"] / np.log(2)
    assert mixture.objective.scales == [pytest.approx(expected)]
    trained = Mixing(
        stores=str(tmp_path / "out"), groups={"web": Group(train=[str(tmp_path / "out/qa/test")])}
    )
    with pytest.raises(UserError, match="holds prompts and answers, which are a target"):
        build_mixture(trained, 8, None)
    with pytest.raises(UserError, match=r"has an answer of .* tokens, and a row has 2"):
        build_mixture(mixing, 2, None)


def test_lengths_that_are_not_of_the_store_are_refused(tmp_path, options, questions):
    tokenize((questions,), **QA, **options)
    path = tmp_path / "out/qa/test.prompts.npy"
    for damage in (lambda: np.save(path, np.load(path)[1:]), lambda: path.write_bytes(b"x"), path.unlink):
        damage()
        with pytest.raises(ValueError, match=r"test\.prompts\.npy: "):
            open_store(tmp_path / "out/qa/test")


def test_options_that_do_not_fit_are_refused(tmp_path, options, questions):
    with pytest.raises(ValueError, match="--prompt-field needs --role target"):
        tokenize((questions,), **{**QA, "role": "group"}, **options)
    with pytest.raises(ValueError, match="a target needs documents"):
        tokenize((questions,), **{**QA, "val_share": 0.0, "test_share": 0.0}, **options)
    (tmp_path / "bad.jsonl").write_text(json.dumps({"a": "x"}))
    with pytest.raises(ValueError, match="no field 'q'"):
        tokenize((str(tmp_path / "bad.jsonl"),), **QA, **options)
