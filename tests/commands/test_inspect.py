"""`titan-aioli inspect`: shows a store, and says why one is not sound."""

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.testing.text import TRAIN_ONLY, save_jsonl, save_tokenizer


@pytest.fixture
def store(tmp_path):
    docs = save_jsonl(tmp_path / "docs.jsonl", [{"text": "one two"}, {"text": "three"}])
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    tokenize((docs,), group="web", tokenizer=tokenizer, output=tmp_path, **TRAIN_ONLY)
    return tmp_path / "web/train"


def inspect(*words) -> None:
    main(["inspect", *map(str, words)])


def test_a_sound_store_is_shown(store, tmp_path, capsys):
    inspect(store, "--tokenizer", tmp_path / "tokenizer")
    out = capsys.readouterr().out
    assert "document 0, 3 tokens: 'one two <|endoftext|>'" in out
    assert out.endswith("train: sound\n")


FAULTS = {
    "id beyond the vocabulary": ([2, 3, 0, 99, 0], "token 3 is 99, and the vocabulary ends at 9"),
    "no end of document": ([2, 3, 1, 4, 0], "document 0 ends with token 1, not with end-of-document, 0"),
    "data cut short": ([2, 3, 0, 4], "holds 8 bytes, expected 10"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_is_not_sound_exits_with_1_and_the_reason(store, fault):
    tokens, reason = FAULTS[fault]
    np.array(tokens, dtype="uint16").tofile(f"{store}.bin")
    with pytest.raises(SystemExit, match=f"not sound: .*{reason}"):
        inspect(store)


def test_another_tokenizer_is_noticed(store, tmp_path):
    other = save_tokenizer(tmp_path / "other", ["<|endoftext|>", "one", "[UNK]"])
    with pytest.raises(SystemExit, match=r"made with another tokenizer than .*other"):
        inspect(store, "--tokenizer", other)


def test_a_negative_id_is_not_sound(tmp_path):
    np.save(tmp_path / "web.npy", np.array([1, -1], dtype=np.int32))
    with pytest.raises(SystemExit, match="a token id is negative: -1"):
        inspect(tmp_path / "web.npy")


def test_a_missing_store_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect(tmp_path / "web")
    assert stop.value.code == 2
    assert "titan-aioli tokenize" in capsys.readouterr().err
