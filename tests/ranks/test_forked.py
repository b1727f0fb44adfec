"""Forked ranks end as torchrun's do: all with the first that fails, and what they printed is kept."""

import subprocess

import pytest

from titan_aioli.testing.forked import fork_module

ENDING = "tests.ranks.trainers.ending"


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("0", "0"), 0, ""),
        (("waits", "7"), 7, "process 1 terminated with exit code 7"),
        (("waits", "killed"), -9, "process 1 terminated with signal SIGKILL"),
        (("waits", "raise"), 1, "ValueError: something is wrong"),
    ],
)
def test_all_ranks_end_with_the_first_that_fails(words, status, reason):
    done = fork_module(2, ENDING, *words)
    assert done.returncode == status
    assert reason in done.stderr
    assert f"rank 1 {words[1]}\n" in done.stdout


def test_ranks_that_take_too_long_are_killed():
    with pytest.raises(subprocess.TimeoutExpired) as expired:
        fork_module(1, ENDING, "waits", timeout=2)
    assert expired.value.stdout == "rank 0 waits\n"
