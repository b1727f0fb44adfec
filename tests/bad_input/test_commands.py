"""Bad input of the command `titan-aioli`: refused in one line that says what, where and what to do."""

import re

import pytest

from tests.bad_input.cases import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_is_one_line_that_says_what_to_do(name, tmp_path, stores, capfd):
    case = COMMANDS[name]
    assert re.search(case.message, case.refusal(tmp_path, stores, capfd))
