"""Held-out documents that are trained on: found where they are, and nowhere else."""

import numpy as np
import pytest

from titan_aioli.data import contamination
from titan_aioli.data.answers import Answers
from titan_aioli.data.contamination import document, find_contamination, spans
from titan_aioli.data.group import Group
from titan_aioli.stores.overlap import hash_ngrams, normalised
from titan_aioli.stores.split import Split, split_store
from titan_aioli.stores.tokens import ChunkedTokens, TokenStore

END = 0


def store(documents, end=END, metadata=True, dtype=np.uint16, prompts=None):
    documents = [[*document, *([] if end is None else [end])] for document in documents]
    offsets = np.cumsum([0, *map(len, documents)])
    known = {"end_of_document": end} if metadata and end is not None else {}
    tokens = np.concatenate([np.array(document, dtype) for document in documents])
    return TokenStore("memory", tokens, offsets, known, prompts)


def group(name, *stores):
    return Group(name, stores, seq_len=4)


def texts(count, size, seed):
    return np.random.default_rng(seed).integers(1, 50_000, (count, size)).tolist()


def found(held_out, train, **options):
    """{group: {document: share}} of one held-out set."""
    (of_set,) = find_contamination([held_out], train, **options)
    return {one.group: dict(zip(one.documents.tolist(), one.shares.tolist(), strict=True)) for one in of_set}


OTHERS = texts(20, 30, seed=1)
HELD = texts(6, 30, seed=2)


@pytest.mark.parametrize("ngram", [0, 13])
def test_copies_are_found_in_the_group_that_has_them(ngram):
    train = [
        group("a", store(OTHERS[:10]), store([*OTHERS[10:], HELD[4], HELD[1]])),
        group("b", store(OTHERS)),
    ]
    assert found(group("t", store(HELD)), train, ngram=ngram) == {"a": {1: 1, 4: 1}}


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("end", [None, 7])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_end_of_a_document_and_the_type_of_the_tokens_do_not_matter(metadata, end, dtype):
    held = group("t", store(HELD, end, metadata, dtype))
    assert found(held, [group("a", store([*OTHERS, HELD[2]]))]) == {"a": {2: 1}}


def test_a_document_that_differs_in_its_last_token_is_no_copy():
    almost = [*HELD[0][:-1], HELD[0][-1] + 1]
    assert found(group("t", store(HELD)), [group("a", store([*OTHERS, almost]))]) == {}
    assert found(group("t", store(HELD)), [group("a", store([*OTHERS, almost]))], ngram=13) == {
        "a": {0: pytest.approx(17 / 18)}
    }


def test_the_share_of_ngrams_by_hand():
    """30 tokens have 18 n-grams of 13; 21 copied tokens have 9 of them, 20 have 8: below half."""
    inside = [OTHERS[0] + HELD[0][:21] + OTHERS[1], OTHERS[2] + HELD[1][5:25]]
    train = [group("a", store(inside))]
    assert found(group("t", store(HELD)), train, ngram=13) == {"a": {0: 0.5}}
    assert found(group("t", store(HELD)), train) == {}


def test_a_document_shorter_than_the_ngram_is_found_whole_only():
    held = group("t", store([[5, 6, 7], [8, 9, 10]]))
    assert found(held, [group("a", store([[5, 6, 7], [1, 8, 9, 10]]))], ngram=13) == {"a": {0: 1}}


def test_empty_documents_are_equal_to_nothing():
    held = group("t", store([[], *HELD]))
    assert found(held, [group("a", store([[], *OTHERS]))], ngram=13) == {}


def test_documents_are_numbered_over_the_stores_of_each_set():
    sets = [group("t", store(HELD[:2]), store(HELD[2:])), group("u", store(OTHERS)), group("v", store(HELD))]
    of_sets = find_contamination(sets, [group("a", store([HELD[3], HELD[5]]))])
    assert [[one.documents.tolist() for one in of_set] for of_set in of_sets] == [[[3, 5]], [], [[3, 5]]]
    np.testing.assert_array_equal(document(sets[0], 3), HELD[3])


def test_prompts_and_answers_are_compared_as_one_document():
    held = Answers("t", [store(HELD, prompts=np.full(6, 20))], seq_len=40)
    train = [group("a", store([*OTHERS, HELD[5], HELD[0][:20]]))]
    assert found(held, train) == {"a": {5: 1}}


@pytest.mark.parametrize("ngram", [0, 13])
def test_the_parts_of_a_store_are_not_themselves_but_repeated_documents_are_found(ngram):
    parts = split_store(store(texts(40, 30, seed=3)), Split(0.5, 0.25, 0.25))
    train = [group("a", parts["train"])]
    assert found(group("t", parts["validation"]), train, ngram=ngram) == {}
    repeated = texts(40, 30, seed=3)
    repeated[22] = repeated[4]
    parts = split_store(store(repeated), Split(0.5, 0.25, 0.25))
    assert found(group("t", parts["validation"]), [group("a", parts["train"])], ngram=ngram) == {"a": {2: 1}}


def test_stores_without_documents_are_compared_by_ngrams():
    flat = TokenStore("flat", np.array([*OTHERS[0], *HELD[3], *OTHERS[1]]))
    assert found(group("t", store(HELD)), [group("a", flat)]) == {}
    assert found(group("t", store(HELD)), [group("a", flat)], ngram=13) == {"a": {3: 1}}
    held = Group("t", [flat], seq_len=30)
    assert found(held, [group("a", store(HELD))], ngram=13) == {"a": {1: 1}}
    assert contamination.num_documents(held) == len(spans(flat, 30)) == 3


@pytest.mark.parametrize("ngram", [0, 13])
def test_nothing_depends_on_the_pieces_that_are_read(ngram, monkeypatch):
    flat = np.concatenate([store([*OTHERS, HELD[2]]).tokens, store(OTHERS).tokens])
    offsets = np.arange(42) * 31
    train = [group("a", TokenStore("chunks", ChunkedTokens(np.array_split(flat, 5)), offsets))]
    held, expected = group("t", store(HELD)), {"a": {2: 1}}
    for size in (1, 14, 37, 1 << 22):
        monkeypatch.setattr(contamination, "TOKENS_AT_ONCE", size)
        counted = []
        assert found(held, train, ngram=ngram, progress=counted.append) == expected
        assert 0 < sum(counted) <= len(flat) * contamination.passes(ngram)


def test_texts_are_compared_whatever_their_case_and_white_space():
    words = {1: "Ab ", 2: "aB\n", 3: "\ufb01n", 4: "fin", 5: " "}
    decode = lambda documents: ["".join(words[token] for token in one) for one in documents]  # noqa: E731
    held = group("t", store([[1, 3], [1, 1], [5]]))
    train = [group("a", store([[2, 5, 4], [5, 5], [4, 4]]))]
    assert found(held, train) == {}
    assert found(held, train, decode=decode) == {"a": {0: 1}}
    assert normalised("  Stra\u00dfe\u00a0 X\u00b2 ") == "stra\u00dfe x2"


def test_the_hash_of_an_ngram_is_that_of_its_tokens_in_their_order():
    tokens = np.array([3, 1, 2, 3, 1, 2, 1, 3], np.uint16)
    hashes = hash_ngrams(tokens, 3)
    same = [[int(a == b) for b in hashes] for a in hashes]
    windows = [tokens[at : at + 3].tolist() for at in range(6)]
    assert same == [[int(a == b) for b in windows] for a in windows]
    assert len(hash_ngrams(tokens, 9)) == 0
