"""A run read back from its folder: what its records say, without the names of their fields."""

import json

import numpy as np
import pytest

from tests.runs.small_run import write_run
from titan_aioli.runs.run import read_run

RECORD = {"step": 6, "first_row": 24, "proportions": [0.6, 0.4], "phase": "learn_params", "round": 1}


def add_record(folder, **fields):
    with open(folder / "ledger.jsonl", "a") as file:
        file.write(json.dumps({**RECORD, "observation": [3.5, 2.5], **fields}) + "\n")


def test_a_run_counts_its_steps_and_its_rounds(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    assert run.groups == ["law", "code"] and run.last_step == 6
    assert [record["step"] for record in run.trained_rounds()] == [2]
    assert read_run(write_run(tmp_path / "early", results=False)).last_step == 2


def test_the_law_of_a_round_is_checked_when_the_next_begins(tmp_path):
    folder = write_run(tmp_path / "aioli")
    assert read_run(folder).checks() == {}
    add_record(folder, predicted_drop=[0.25, 0.5], measured_drop=[0.5, 0.25])
    (number, check), *more = read_run(folder).checks().items()
    assert number == 0 and not more
    assert check.predicted.tolist() == [0.25, 0.5] and check.measured.tolist() == [0.5, 0.25]


def test_estimates_are_column_sums_with_their_errors(tmp_path):
    folder = write_run(tmp_path / "aioli")
    np.testing.assert_array_equal(read_run(folder).last_matrix(), [[0.4, 0.1], [0.2, 0.3]])
    assert read_run(folder).estimates() == []  # an old run has no errors
    add_record(folder, normalized_A=[[0.5, 0.25], [0.25, 0.0]], stderr=[0.125, float("nan")])
    (found,) = read_run(folder).estimates()
    assert found.round == 1 and found.column_sums.tolist() == [0.75, 0.25]
    np.testing.assert_array_equal(found.stderr, [0.125, np.nan])


def test_a_folder_without_a_ledger_is_no_run(tmp_path):
    (tmp_path / "mixture.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no ledger\.jsonl"):
        read_run(tmp_path)


def test_a_broken_line_of_losses_is_refused(tmp_path):
    folder = write_run(tmp_path / "aioli")
    (folder / "losses.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"losses\.jsonl holds a line that is not JSON"):
        read_run(folder)
