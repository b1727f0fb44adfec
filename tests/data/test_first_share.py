"""The first share of a group: whole documents, in order, so that epochs match at every mixture."""

import numpy as np
import pytest

from titan_aioli.config import Mixing
from titan_aioli.config.build import build_mixture
from titan_aioli.data.first_share import first_share
from titan_aioli.errors import UserError
from titan_aioli.stores.tokens import TokenStore


def store(sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return TokenStore("s", np.arange(offsets[-1]), offsets)


@pytest.mark.parametrize(
    ("share", "documents"), [(1.0, 4), (0.51, 3), (0.5, 2), (0.3, 2), (0.1, 1), (0.001, 1)]
)
def test_whole_documents_nearest_to_the_share(share, documents):
    # ends at 10, 40, 60 and 100
    (part,) = first_share([store([10, 30, 20, 40])], share)
    assert part.num_documents == documents
    np.testing.assert_array_equal(part.tokens, np.arange([0, 10, 40, 60, 100][documents]))


def test_a_store_without_documents_is_cut_at_a_token():
    (part,) = first_share([TokenStore("s", np.arange(100))], 0.123)
    np.testing.assert_array_equal(part.tokens, np.arange(12))


def test_stores_of_a_group_keep_their_relative_sizes():
    parts = first_share([store([1] * 100), store([1] * 300)], 0.1)
    assert [part.num_tokens for part in parts] == [10, 30]


def mixing_of(stores, share):
    return Mixing(method="static", stores=str(stores), groups={"a": {}, "b": {}, "c": {}}, train_share=share)


def test_training_shrinks_and_held_out_data_do_not(stores):
    whole, part = (build_mixture(mixing_of(stores, share), 16, None) for share in (1.0, 0.25))
    for one, other in zip(whole.train, part.train, strict=True):
        assert other.num_tokens == one.num_tokens / 4
        np.testing.assert_array_equal(other.stores[0].tokens[:], one.stores[0].tokens[: other.num_tokens])
    sizes = [[group.num_tokens for group in (*m.validation, *m.test)] for m in (whole, part)]
    assert sizes[0] == sizes[1] and whole.fingerprint() != part.fingerprint()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_shares_that_cannot_be_are_refused(stores, share):
    with pytest.raises(UserError, match=r"mixing.train_share is .*: above 0, at most 1"):
        build_mixture(mixing_of(stores, share), 16, None)


def test_an_empty_store_stays_empty():
    (documents, tokens) = first_share([store([]), TokenStore("s", np.arange(0))], 0.5)
    assert documents.num_tokens == tokens.num_tokens == 0
