"""The demo corpus: real text, groups that differ in kind, the same bytes every time."""

import gzip
import json
import random
from collections import Counter

import pytest

from titan_aioli.commands import demo_corpus
from titan_aioli.commands.demo_corpus import collect, docstrings, train_tokenizer, write_corpus
from titan_aioli.commands.init.found import find_groups
from titan_aioli.stores.store import open_store
from titan_aioli.stores.tokenize.bpe import pieces
from titan_aioli.stores.tokenize.splits import split_of

SMALL = 150_000


@pytest.fixture(scope="module")
def small():
    """A corpus of 150 KB per group, which takes a twentieth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_corpus, "GROUP_BYTES", SMALL)
        yield collect()


def test_six_groups_of_real_text_and_a_target(small):
    assert set(small) == {"cpp", "licenses", "prose", "python", "stubs", "tables", "cuda"}
    for group, documents in small.items():
        assert sum(len(document["text"].encode()) for document in documents) >= SMALL, group
        lengths = [len(document["text"]) for document in documents]
        assert min(lengths) >= 300 and max(lengths) <= 60_000, group


def test_the_target_is_in_no_group_and_not_in_what_the_tokenizer_is_trained_on(small):
    sources = {name: {document["source"] for document in found} for name, found in small.items()}
    target = sources.pop("cuda")
    assert not target & set.union(*sources.values())
    assert all(source.endswith((".cu", ".cuh")) for source in target)
    sample = set(demo_corpus._sample(small))
    assert sample and not sample & {document["text"] for document in small["cuda"]}
    assert sample & {document["text"] for document in small["python"]}


def test_no_text_is_there_twice(small):
    texts = [
        " ".join(document["text"].lower().split()) for documents in small.values() for document in documents
    ]
    assert len(set(texts)) == len(texts)


def test_where_packages_are_installed_and_listed_makes_no_difference(small, tmp_path, monkeypatch):
    listed = demo_corpus.distribution

    class Shuffled:
        def __init__(self, package):
            self.files = list(listed(package).files or [])
            random.Random(0).shuffle(self.files)

    monkeypatch.setattr(demo_corpus, "distribution", Shuffled)
    monkeypatch.setattr(demo_corpus, "PACKAGES", demo_corpus.PACKAGES[::-1])
    monkeypatch.setattr(demo_corpus, "GROUP_BYTES", SMALL)
    again = collect()
    for name, corpus in ("first", small), ("second", again):
        write_corpus(corpus, tmp_path / name)
    for group in small:
        file = f"{group}.jsonl.gz"
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
        for line in gzip.decompress((tmp_path / "first" / file).read_bytes()).splitlines():
            assert "site-packages" not in json.loads(line)["source"]


def test_long_texts_are_cut_where_a_line_ends():
    text = "".join(f"line {number}\n" for number in range(5000))
    cut = list(pieces(text, demo_corpus.LONGEST))
    assert "".join(cut) == text and len(cut) > 1
    assert all(len(piece) <= demo_corpus.LONGEST and piece.endswith("\n") for piece in cut)


def test_docstrings_of_modules_classes_and_functions():
    code = '"""Module."""\nclass A:\n    """Class.\n\n    More."""\n    def f(self):\n        """Method."""\n'
    assert docstrings(code) == ["Module.", "Class.\n\nMore.", "Method."]
    assert docstrings("not python {") == []


def test_torchtitan_loads_the_tokenizer(small, tmp_path):
    from torchtitan.components.tokenizer import HuggingFaceTokenizer

    train_tokenizer(small, tmp_path)
    tokenizer = HuggingFaceTokenizer(tokenizer_path=str(tmp_path))
    assert tokenizer.get_vocab_size() == 4096
    assert tokenizer.eos_id == tokenizer.token_to_id("<|endoftext|>") == 0
    text = "def f(x):\n\treturn \u00e9 + 17"
    ids = tokenizer.encode(text, add_bos=False, add_eos=False)
    assert tokenizer.decode(ids) == text and len(ids) < len(text)
    train_tokenizer(small, tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_the_command_makes_corpus_tokenizer_and_stores(small, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "collect", lambda: small)
    monkeypatch.setattr(demo_corpus, "VAL_SHARE", 0.3)
    monkeypatch.setattr(demo_corpus, "TEST_SHARE", 0.3)
    demo_corpus.demo_corpus(tmp_path, tokenize=True)
    for group in small:
        for split in ("validation", "test") if group == "cuda" else ("train", "validation", "test"):
            store = open_store(tmp_path / "stores" / group / split)
            assert store.metadata["vocab_size"] == 4096 and store.num_documents
    found = find_groups(tmp_path / "stores")
    assert "cuda" not in found.groups and len(found.groups) == 6
    assert "to make it a target" in found.left_out[0]


def test_an_output_that_is_a_file_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "collect", lambda: pytest.fail("collected"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output .*file cannot be written"):
        demo_corpus.demo_corpus(tmp_path / "file")


def test_the_target_is_split_as_when_a_tenth_of_it_was_a_train_store(small, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "collect", lambda: small)
    demo_corpus.demo_corpus(tmp_path, tokenize=True)
    expected = Counter(split_of(document["text"].encode(), 0.5, 0.4) for document in small["cuda"])
    assert set(expected) == {"validation", "test"}
    for split, num_documents in expected.items():
        assert open_store(tmp_path / "stores/cuda" / split).num_documents == num_documents
