"""Damaged and foreign token stores: training refuses each in one line that says what, where and why."""

import re

import pytest

from tests.bad_input.cases import STORES
from tests.bad_input.faults import refusal_of_ranks


@pytest.mark.parametrize("name", STORES)
def test_a_fault_is_one_line_that_says_what_to_do(name, tmp_path, stores, capfd):
    case = STORES[name]
    assert re.search(case.message, case.refusal(tmp_path, stores, capfd))


def test_a_fault_ends_every_rank(tmp_path, stores):
    case = STORES["data cut short"]
    assert re.search(case.message, refusal_of_ranks(case, tmp_path, stores))
