"""A run read back from its folder: what its records say, without the names of their fields."""

import json

import numpy as np
import pytest

from tests.runs.small_run import write_run
from titan_aioli.cli import main
from titan_aioli.errors import UserError
from titan_aioli.runs.read import read_run

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


LINE = '{"step": 2, "validation_loss": [3.8, 2.8]}\n'


@pytest.mark.parametrize("unfinished", ['{"step": 4, "valid', '{"step": 4, "valid\n', "\0" * 9])
def test_an_unfinished_last_line_of_losses_is_left_out(tmp_path, unfinished):
    folder = write_run(tmp_path / "aioli")
    (folder / "losses.jsonl").write_text(LINE + unfinished)
    assert [record["step"] for record in read_run(folder).losses] == [2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'{LINE}{{"step": 4\n{LINE}'.encode(), r"losses\.jsonl, line 2: not JSON"),
        (LINE.encode() + b"\xff\xfe\n", r"losses\.jsonl, line 2: not what a run writes .*utf-8"),
        (b"[]\n", r"losses\.jsonl, line 1: .*must be an object with a step"),
        (
            b'{"step": 2, "validation_loss": 3}\n',
            r"line 1: .*validation_loss is 3: it must be a list of numbers",
        ),
        (b'{"validation_loss": [1, 2]}\n', r"losses\.jsonl, line 1: .*must be an object with a step"),
    ],
)
def test_another_bad_line_of_losses_is_refused(tmp_path, content, message):
    folder = write_run(tmp_path / "aioli")
    (folder / "losses.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mixture.json", "[]", r"mixture\.json .* must hold an object"),
        ("mixture.json", "{}", r"mixture\.json .* has no 'method'"),
        ("mixture.json", '{"method": "aioli", "groups": 3}', r"groups is 3: it must be a list of texts"),
        ("results.json", "[]", r"results\.json .* must hold an object"),
        ("results.json", "{}", r"results\.json .* has no 'step'"),
    ],
)
def test_a_file_that_no_run_writes_is_refused(tmp_path, name, content, message):
    folder = write_run(tmp_path / "aioli")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("groups", ["law"], r"its groups \['law'\] are not those of num_sequences"),
        ("groups", ["law", "web"], "are not those of num_sequences and stores"),
        ("groups", [], "are not those of"),
        ("num_sequences", [10, 0], r"num_sequences is \[10, 0\]: at least 1"),
        ("num_sequences", [], "are not those of"),
        ("num_sequences", None, "num_sequences is None: it must be a list of whole numbers"),
        ("num_sequences", 749, "num_sequences is 749: it must be a list of whole numbers"),
        ("seq_len", 0, "seq_len is 0: at least 1"),
        ("seq_len", "16", "seq_len is '16': it must be a whole number"),
        ("seed", "0", "seed is '0': it must be a whole number"),
        ("stores", {"law": ["x"]}, "are not those of num_sequences and stores"),
        ("hyperparameters", [], r"hyperparameters is \[\]: it must be a table of values"),
        ("objective", "nats", "objective is 'nats': it must be a table of values"),
        ("objective", {"weights": 3}, "objective.weights is 3: it must be a list of numbers"),
        ("objective", {"unit": "feet"}, "objective.unit is 'feet': choose nats or"),
        ("weighted_stores", {"law": {"weights": [1.0]}}, "weighted_stores of 'law' are"),
        ("method", 5, "method is 5: it must be a text"),
    ],
)
def test_a_mixture_that_was_edited_by_hand_is_refused(tmp_path, key, value, message):
    folder = write_run(tmp_path / "aioli")
    mixture = json.loads((folder / "mixture.json").read_text())
    (folder / "mixture.json").write_text(json.dumps({**mixture, key: value}))
    with pytest.raises(ValueError, match=rf"mixture\.json is not what a run writes: .*{message}"):
        read_run(folder)


@pytest.mark.parametrize("words", [["rows"], ["rows", "--check"], ["replay"], ["report"]])
def test_a_run_that_has_not_begun_is_refused_by_every_command(tmp_path, capsys, words):
    folder = write_run(tmp_path / "aioli")
    (folder / "ledger.jsonl").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main([words[0], str(folder), *words[1:]])
    assert stopped.value.code == 2
    assert "ledger.jsonl is empty: the run has not begun" in capsys.readouterr().err


def test_half_a_last_line_of_the_ledger_is_left_out_while_a_run_is_not_finished(tmp_path):
    folder = write_run(tmp_path / "aioli", results=False)
    with open(folder / "ledger.jsonl", "a") as file:
        file.write('{"step": 6, "first')
    assert len(read_run(folder).records) == 4
    (folder / "results.json").write_text('{"step": 6}')
    with pytest.raises(ValueError, match=r"ledger\.jsonl, line 5: not a ledger record"):
        read_run(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observation": [3.5]}, r"observation is \[3.5\]: it must be numbers of shape \[2\]"),
        ({"observation": {}}, r"observation is {}: it must be numbers of shape \[2\]"),
        ({"normalized_A": [[1.0], [1.0, 2.0]]}, r"normalized_A is .*: it must be numbers of shape \[2, 2\]"),
        ({"trust": None}, "trust is None: it must be a number"),
        ({"proportions": [0.5, 0.25, 0.25], "drawn": [1, 2]}, r"proportions is .* of shape \[2\]"),
        ({"note": 3}, "note is 3: it must be a text"),
    ],
)
def test_a_line_of_the_ledger_with_other_numbers_is_named(tmp_path, fields, message):
    folder = write_run(tmp_path / "aioli")
    (folder / "mixture.before-step-6.json").write_text((folder / "mixture.json").read_text())
    add_record(folder, **fields)
    with pytest.raises(ValueError, match=rf"ledger\.jsonl, line 5.*{message}"):
        read_run(folder)


def test_what_a_line_of_the_ledger_lacks_is_named(tmp_path):
    folder = write_run(tmp_path / "aioli")
    add_record(folder, predicted_drop=[0.25, 0.5])
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 5 .* has no 'measured_drop'"):
        read_run(folder).checks()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", "x", "step is 'x': it must be a whole number"),
        ("validation_loss", [1.0], r"validation_loss is \[1.0\]: it must be numbers of shape \[2\]"),
        ("epochs", None, r"epochs is None: it must be numbers of shape \[2\]"),
        ("objective", "low", "objective is low: it must be a number"),
    ],
)
def test_results_that_were_edited_by_hand_are_refused(tmp_path, key, value, message):
    folder = write_run(tmp_path / "aioli")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, key: value}))
    with pytest.raises(ValueError, match=rf"results\.json is not what a run writes: {message}"):
        read_run(folder)
