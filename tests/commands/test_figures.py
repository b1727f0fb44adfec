"""What figures and tables of several commands share."""

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.figures import MAX_DRAWN, first_and_last, largest, trained


def test_of_many_rows_the_first_and_the_last_are_kept():
    assert first_and_last(range(4), 4) == [0, 1, 2, 3]
    assert first_and_last(range(9), 4) == [0, 1, 7, 8]


def test_of_many_groups_those_with_the_largest_shares_are_drawn():
    shares = np.arange(MAX_DRAWN + 3.0)
    assert largest(shares).tolist() == list(range(3, MAX_DRAWN + 3))
    assert largest(shares[::-1]).tolist() == list(range(MAX_DRAWN))
    assert largest(np.array([0.5, 0.5])).tolist() == [0, 1]


@pytest.mark.parametrize(
    "words",
    [
        ["report", "nowhere", "--output"],
        ["replay", "nowhere", "--output"],
        ["simulate", "nothing", "--output"],
        ["plan", "nowhere.csv", "--figure"],
    ],
)
@pytest.mark.parametrize(("file", "what"), [("rep", "no suffix"), ("x.foo", "the suffix .foo")])
def test_a_figure_of_no_known_format_is_refused_before_the_work(words, file, what, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*words, file])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"error: {words[-1]} {file} has {what}" in error and ".png" in error


def test_measuring_is_not_training():
    assert trained(["measure", "prior", "learn_params", "train"]) == [1, 3]
