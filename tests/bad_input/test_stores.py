"""Damaged and foreign token stores: training refuses each in one line that says what, where and why."""

import pytest

from tests.bad_input.cases import STORES
from tests.bad_input.faults import every_rank_refuses


@pytest.mark.parametrize("name", STORES)
def test_a_fault_is_one_line_that_says_what_to_do(name, tmp_path, stores, capfd):
    STORES[name].refuse(tmp_path, stores, capfd)


@pytest.mark.xdist_group("ranks")
def test_a_fault_ends_every_rank(tmp_path, stores):
    every_rank_refuses(STORES["data cut short"], tmp_path, stores)
