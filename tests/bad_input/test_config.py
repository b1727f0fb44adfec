"""Bad configs, flags and the files they name: each is refused in one line that says what, where and why.

In process, through the same entry as `python -m titan_aioli.train`; one also on two ranks (seconds; the limit
allows for a busy machine).
"""

import re

import pytest

from tests.bad_input.cases import CONFIG
from tests.bad_input.faults import refusal_of_ranks


@pytest.mark.parametrize("name", CONFIG)
def test_a_fault_is_one_line_that_says_what_to_do(name, tmp_path, stores, capfd):
    case = CONFIG[name]
    assert re.search(case.message, case.refusal(tmp_path, stores, capfd))


def test_a_fault_ends_every_rank(tmp_path, stores):
    case = CONFIG["a batch that cannot be split"]
    assert re.search(case.message, refusal_of_ranks(case, tmp_path, stores))
