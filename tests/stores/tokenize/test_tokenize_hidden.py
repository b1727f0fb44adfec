"""`titan-aioli tokenize`: hidden files are named; a store with lines left out is not one without."""

import pytest

from titan_aioli.commands.tokenize import tokenize
from titan_aioli.testing.text import numbered, save_jsonl, save_tokenizer


@pytest.fixture
def options(tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    return {"group": "web", "tokenizer": tokenizer, "output": tmp_path / "out", "processes": 1}


def test_hidden_files_are_named_as_left_out(tmp_path, options, capsys):
    (tmp_path / "docs/.git").mkdir(parents=True)
    save_jsonl(tmp_path / "docs/.shard.jsonl", numbered(3))
    with pytest.raises(ValueError, match=r"holds no files but hidden ones \(.git, .shard.jsonl\)"):
        tokenize((str(tmp_path / "docs"),), **options)
    save_jsonl(tmp_path / "docs/a.jsonl", numbered(30))
    tokenize((str(tmp_path / "docs"),), **options)
    assert "left out 2 hidden (.git, .shard.jsonl)" in capsys.readouterr().out


def test_a_store_with_bad_lines_left_out_is_not_taken_for_one_without(tmp_path, options):
    docs = save_jsonl(tmp_path / "a.jsonl", [*numbered(30), {"text": 17}])
    tokenize((docs,), **options, on_bad_line="skip")
    with pytest.raises(ValueError, match=r"other --on-bad-line \(skip there, refuse now\)"):
        tokenize((docs,), **options)
