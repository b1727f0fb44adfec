"""Ids that the model does not know are found where they are read, and named."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.group import Group
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import UserError
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.stores.tokens import TokenStore


def ledger_of(proportions):
    return Ledger([LedgerEntry(0, 0, np.array(proportions), "train", 0)])


def group_with(bad_id, dtype=np.int32, seq_len=4):
    """Two stores; token 3 of sequence 5 of the second is bad."""
    first, second = np.arange(9).astype(dtype), np.arange(41).astype(dtype)
    second[5 * seq_len + 3] = bad_id
    return Group("law", [TokenStore("one", first), TokenStore("two", second)], seq_len, vocab_size=50)


@pytest.mark.parametrize("read_ahead", [0, 4])
@pytest.mark.parametrize("bad_id", [-1, 50, 2**31 - 1])
def test_training_stops_before_the_row_is_used(bad_id, read_ahead):
    group = group_with(bad_id)
    ledger = ledger_of([1.0])
    loader = MixtureLoader([group], ledger, batch_size=2, local_batch_size=2, read_ahead=read_ahead)
    loader.start_phase(6)
    with pytest.raises(UserError, match=f"group 'law': token 23 of two is {bad_id}, and .* 0 to 49"):
        list(loader)


def test_good_ids_are_read_as_before():
    group = group_with(49)
    batches = []
    for each in (group, replace(group, vocab_size=None)):
        loader = MixtureLoader([each], ledger_of([1.0]), batch_size=2, local_batch_size=2)
        loader.start_phase(6)
        batches.append(np.concatenate([labels for _, labels in islice(loader, 6)]))
    np.testing.assert_array_equal(*batches)


def test_held_out_rows_are_checked_too():
    with pytest.raises(UserError, match="token 23 of two is 99"):
        read_rows([group_with(99)], [(0, 7)], 1)
