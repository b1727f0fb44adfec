"""Stores of groups: cut into parts, left out where nothing is measured, and shared ones noticed."""

import numpy as np
import pytest

from titan_aioli.config import Group, Mixing, Target, groups
from titan_aioli.config.build import build_mixture, describe_splits
from titan_aioli.config.groups import split_of
from titan_aioli.errors import UserError
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.split import PARTS, Split, parse_split, split_store
from titan_aioli.stores.tokens import ChunkedTokens, TokenStore


@pytest.fixture
def store(tmp_path):
    """Ten documents of 20 tokens; those of document k are k."""
    with MegatronWriter(tmp_path / "law", "uint16") as writer:
        for document in range(10):
            writer.add(np.full(20, document, np.uint16))
    return str(tmp_path / "law")


def tokens(groups):
    return set(np.concatenate([store.tokens[:] for group in groups for store in group.stores]).tolist())


@pytest.mark.parametrize("split", [[0.6, 0.2, 0.2], "6,2,2", "600/200/200", [3, 1, 1]])
def test_a_store_is_cut_by_documents_in_their_order(store, split):
    mixture = build_mixture(Mixing(groups={"law": Group(train=[store], split=split)}), 4, None)
    assert tokens(mixture.train) == set(range(6))
    assert tokens(mixture.validation) == {6, 7} and tokens(mixture.test) == {8, 9}
    assert mixture.shared_stores() == []
    assert describe_splits(mixture.splits) == "law 0.6/0.2/0.2"


def test_the_parts_never_overlap_and_leave_nothing_out():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ends = np.cumsum(rng.integers(1, 9, rng.integers(1, 30)))
        whole = TokenStore("x", np.arange(ends[-1]), np.array([0, *ends]))
        parts = split_store(whole, parse_split(rng.uniform(0, 1, 3).tolist()))
        assert list(parts) == list(PARTS)
        joined = np.concatenate([part.tokens for part in parts.values()])
        np.testing.assert_array_equal(joined, whole.tokens)
        for part in parts.values():
            assert part.document_offsets[0] == 0 and part.document_offsets[-1] == part.num_tokens


def test_a_store_without_documents_is_cut_at_tokens_and_chunks_are_not_copied():
    chunks = [np.arange(6), np.arange(6, 10)]
    parts = split_store(TokenStore("x", ChunkedTokens(chunks)), Split(0.7, 0.2, 0.1))
    assert [part.tokens[:].tolist() for part in parts.values()] == [list(range(7)), [7, 8], [9]]
    assert np.shares_memory(parts["validation"].tokens[:], chunks[1])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("a,b", "split is 'a,b'"),
        ([0.0, 1.0], "leaves nothing to train on"),
        ([0.5, -0.1, 0.6], "each at least 0"),
        ([1, 1, 1, 1], "up to three"),
        ([0.98, 0.01, 0.01], "leaves nothing for validation of 10 documents"),
    ],
)
def test_shares_that_cannot_be_are_refused(store, split, words):
    with pytest.raises(UserError, match=words):
        build_mixture(Mixing(groups={"law": Group(train=[store], split=split)}), 4, None)


def test_a_split_beside_other_stores_is_refused(store):
    table = Group(train=[store], validation=[store], split=[8, 1, 1])
    with pytest.raises(UserError, match="both split and validation"):
        split_of(Mixing(groups={"law": table}), "law")


def test_the_end_of_a_document_without_a_split_is_refused(store):
    table = Group(train=[store], end_of_document=0)
    with pytest.raises(UserError, match=r"law.end_of_document is 0, but there is no split .* set split, or"):
        split_of(Mixing(groups={"law": table}), "law")


def test_groups_need_no_held_out_stores_where_nothing_is_measured(store):
    mixing = Mixing(method="static", groups={"law": Group(train=[store])})
    with pytest.raises(UserError, match="no validation stores"):
        build_mixture(mixing, 4, None)
    mixing.evaluation.validation = mixing.evaluation.test = False
    mixture = build_mixture(mixing, 4, None)
    assert mixture.validation == mixture.test == []
    mixing.method = "aioli"
    with pytest.raises(UserError, match="method aioli needs held-out losses"):
        build_mixture(mixing, 4, None)


def test_a_store_that_is_trained_on_and_held_out_is_noticed_through_links(store, tmp_path):
    for suffix in (".bin", ".idx"):
        (tmp_path / f"link{suffix}").symlink_to(f"{store}{suffix}")
    link = str(tmp_path / "link")
    groups = {"law": Group(train=[store], validation=[link], test=[link])}
    (line,) = build_mixture(Mixing(groups=groups), 4, None).shared_stores()
    assert "held out as law and trained on as law" in line
    targets = {"exam": Target(validation=[link], test=[link])}
    mixing = Mixing(groups={"law": Group(train=[store], split=[8, 1, 1])}, targets=targets)
    with pytest.raises(
        UserError, match=r"a target must not be trained on: .* held out as exam and trained on as law"
    ):
        build_mixture(mixing, 4, None)


def test_a_target_may_be_the_held_out_part_of_a_store_that_is_cut(store):
    groups = {"law": Group(train=[store], split=[6, 2, 2]), "web": Group(train=[store], split=[6, 2, 2])}
    mixture = build_mixture(Mixing(groups=groups, targets={"law": Target()}), 4, None)
    assert mixture.targets is not None and tokens(mixture.targets.validation) == {6, 7}


def test_a_vocabulary_too_small_names_the_models_with_a_larger_one(store):
    mixing = Mixing(groups={"law": Group(train=[store], split=[8, 1, 1])})
    with pytest.raises(UserError, match=r"larger vocab_size \(8B 128256\)"):
        build_mixture(mixing, 4, 5, {"debug": 6, "8B": 128256})


def test_a_small_corpus_without_a_test_document_says_what_to_do(store, tmp_path):
    (tmp_path / "stores" / "law").mkdir(parents=True)
    for suffix in (".bin", ".idx"):
        (tmp_path / f"stores/law/train{suffix}").symlink_to(f"{store}{suffix}")
    mixing = Mixing(stores=str(tmp_path / "stores"), groups={"law": Group()})
    with pytest.raises(UserError, match=r"no validation store .*--val-share 0.1.*no-validation"):
        build_mixture(mixing, 4, None)


def test_documents_of_plain_arrays_are_found_by_their_separator_in_one_scan(tmp_path, monkeypatch):
    scanned, scan = [], groups.with_documents

    def counted(store, end_of_document):
        scanned.append(store.num_tokens)
        return scan(store, end_of_document)

    monkeypatch.setattr(groups, "with_documents", counted)
    tokens = np.array([*[5, 6, 0] * 6, 7, 7], np.uint16)
    tokens.tofile(tmp_path / "part-0.npy")
    table = Group(train=[str(tmp_path / "part-0.npy")], split="4,1,2", dtype="uint16", end_of_document=0)
    mixture = build_mixture(Mixing(groups={"law": table}), 1, None)
    found = [part[0].stores[0].tokens.tolist() for part in (mixture.train, mixture.validation, mixture.test)]
    assert found == [[5, 6, 0] * 4, [5, 6, 0], [5, 6, 0, 7, 7]]
    assert scanned == [20]
    table.end_of_document = None
    mixture = build_mixture(Mixing(groups={"law": table}), 1, None)
    assert mixture.train[0].num_tokens == 11  # cut at tokens


def test_every_group_that_trains_on_a_held_out_part_is_named(store):
    whole, cut = Group(train=[store], validation=[store], test=[store]), Group(train=[store], split=[8, 1, 1])
    for groups_ in ({"whole": whole, "cut": cut}, {"cut": cut, "whole": whole}):
        found = build_mixture(Mixing(groups=groups_), 4, None).shared_stores()
        pairs = sorted(sentence.split(" is held out as ")[1].split(":")[0] for sentence in found)
        whose = [("cut", "whole"), ("whole", "cut"), ("whole", "whole")]
        assert pairs == [f"{held_out} and trained on as {trained}" for held_out, trained in whose]
