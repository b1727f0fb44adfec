"""`titan-aioli inspect`: shows a store, and says why one is not sound."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.inspect import TOKENS_AT_ONCE, _beginning, sample
from titan_aioli.commands.tokenize import tokenize
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.tokens import TokenStore
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
    with pytest.raises(SystemExit, match="a token id is negative: -1, token 1"):
        inspect(tmp_path / "web.npy")


@pytest.mark.parametrize("name", ["web.npy", "web"])
def test_a_store_without_tokens_is_not_sound(name, tmp_path):
    np.save(tmp_path / "web.npy", np.zeros(0, dtype=np.uint16))
    with MegatronWriter(tmp_path / "web", "uint16"):
        pass
    with pytest.raises(SystemExit, match=r"not sound: .*web.*: it holds no tokens"):
        inspect(tmp_path / name)


def test_a_negative_number_of_documents_is_a_usage_error(store, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect(store, "--documents", -1)
    assert stop.value.code == 2
    assert "--documents is -1: it must be at least 0" in capsys.readouterr().err


def test_an_id_beyond_the_given_vocabulary_is_named_wherever_it_is(tmp_path, capsys):
    tokens = np.full(TOKENS_AT_ONCE + 5, 7, dtype=np.uint16)
    tokens[TOKENS_AT_ONCE + 2] = 4096
    np.save(tmp_path / "web.npy", tokens)
    inspect(tmp_path / "web.npy", "--vocab-size", 4097)
    with pytest.raises(
        SystemExit,
        match=f"token {TOKENS_AT_ONCE + 2} is 4096, and the vocabulary of --vocab-size ends at 4095",
    ):
        inspect(tmp_path / "web.npy", "--vocab-size", 4096)


class CountingTokenizer:
    """Decodes an id to one letter, and remembers how many it was given."""

    most = 0

    def decode(self, ids, skip_special_tokens):
        self.most = max(self.most, len(ids))
        return "".join("a" if id else "" for id in ids)


@pytest.mark.parametrize("id", [0, 1])
def test_few_tokens_of_a_long_document_are_decoded(id, tmp_path, monkeypatch):
    tokens = np.full(1_000_000, id, dtype=np.uint16)
    store, model = TokenStore("web", tokens, np.array([0, len(tokens)])), CountingTokenizer()
    monkeypatch.setattr("titan_aioli.commands.inspect.load_tokenizer", lambda _: model)
    assert sample(store, 2, tmp_path) == [f"document 0, 1000000 tokens: {'a' * 400 * id + '...'!r}"]
    assert model.most <= 1 << 16


@pytest.mark.parametrize("text", ["\u2603" * 399, "\u2603" * 400, "\u2603" * 500])
def test_the_beginning_is_that_of_the_whole_text(text, tmp_path):
    """Every character is four tokens, so that 512 tokens are too few and end inside of no character."""
    store = TokenStore("web", np.zeros(4 * len(text), dtype=np.uint16), np.array([0, 4 * len(text)]))
    model: Any = SimpleNamespace(decode=lambda ids, skip_special_tokens: text[: len(ids) // 4])
    expected = text if len(text) <= 400 else f"{text[:400]}..."
    assert _beginning(store, 0, store.num_tokens, model) == expected


def test_a_missing_store_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect(tmp_path / "web")
    assert stop.value.code == 2
    assert "titan-aioli tokenize" in capsys.readouterr().err
