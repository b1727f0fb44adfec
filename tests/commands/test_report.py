"""`titan-aioli report` on small hand-written runs."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tests.runs.small_run import write_run
from titan_aioli.cli import main
from titan_aioli.commands import report_figure as command
from titan_aioli.commands.report import epoch_table, loss_table, round_table, target_table
from titan_aioli.runs.run import read_run


def shown(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_table_has_every_group_and_the_papers_metric(tmp_path):
    text = shown(loss_table([read_run(write_run(tmp_path / "aioli"))]))
    assert "3.5000 | 3.6000" in text and "2.5000 | 2.4000" in text
    assert f"{np.exp(3.0):.4f}" in text


def test_the_epochs_of_every_group_are_shown(tmp_path):
    runs = [read_run(write_run(tmp_path / name, results=done)) for name, done in (("a", True), ("b", False))]
    runs[0].results["epochs"] = [0.5, 12.25]
    text = shown(epoch_table(runs))
    assert "0.50" in text and "12.25" in text and "not finished" in text


def test_an_unfinished_run_is_shown_as_such(tmp_path):
    runs = [read_run(write_run(tmp_path / name, results=done)) for name, done in (("a", True), ("b", False))]
    assert "not finished" in shown(loss_table(runs))


def test_rounds_show_what_training_drew_from(tmp_path):
    text = shown(round_table(read_run(write_run(tmp_path / "aioli"))))
    assert "0.600" in text and "0.750" not in text  # the phase of training, not LearnParams


def test_the_command_draws_a_figure_of_several_runs(tmp_path, capsys):
    runs = [str(write_run(tmp_path / name, name)) for name in ("stratified", "aioli")]
    main(["report", *runs, "--output", str(tmp_path / "out" / "report.png")])
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "report.png" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path)])
    assert stopped.value.code == 2
    assert "has no mixture.json" in capsys.readouterr().err


def test_runs_without_a_mixing_matrix_have_no_row_for_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(command, "save", lambda figure, output: drawn.append(figure))
    folder = write_run(tmp_path / "static", "static")
    with_matrix = read_run(folder)
    without = with_matrix._replace(records=[{**r, "normalized_A": None} for r in with_matrix.records])
    for record in without.records:
        del record["normalized_A"]
    command.draw([without], tmp_path / "one.png")
    command.draw([without, with_matrix], tmp_path / "two.png")
    assert [len(figure.axes) for figure in drawn] == [2, 7]  # 3 rows of 2, and the matrix's scale


def write_targeted(folder, objective):
    """A run for two targets, of which one is a group."""
    write_run(folder)
    mixture = json.loads((folder / "mixture.json").read_text())
    weights = {"weights": [3.0, 1.0], "unit": "bits_per_byte", "scales": [2.0, 1.0]}
    mixture |= {"targets": ["math", "law"], "objective": weights}
    (folder / "mixture.json").write_text(json.dumps(mixture))
    results = json.loads((folder / "results.json").read_text())
    results |= {"target_validation_loss": [1.0, 3.5], "objective": objective}
    results |= {"target_test_loss": [2.0, 3.5], "test_objective": objective + 1}
    (folder / "results.json").write_text(json.dumps(results))
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "target_loss": [1.0, 2.0]}) + "\n" for line in lines)
    (folder / "losses.jsonl").write_text(text)
    return folder


def test_targets_come_first_with_what_they_cost_the_other_groups(tmp_path):
    runs = [read_run(write_targeted(tmp_path / name, value)) for name, value in (("a", 5.0), ("b", 4.5))]
    text = shown(target_table(runs))
    assert "bits per byte" in text and "1.0000 | 2.0000" in text
    assert "5.0000 | 6.0000" in text and "-0.5000" in text
    assert "2.5000 | 2.4000" in text and "+0.0000" in text  # of code, which is no target
    assert runs[0].objective.value(np.array([1.0, 2.0])) == pytest.approx(0.75 * 2.0 + 0.25 * 2.0)


def test_a_figure_of_targeted_runs_has_their_objective(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(command, "save", lambda figure, output: drawn.append(figure))
    command.draw([read_run(write_targeted(tmp_path / "a", 5.0))], tmp_path / "report.png")
    labels = [axis.get_ylabel() for axis in drawn[0].axes]
    assert "objective (bits per byte)" in labels
    (objective,) = (axis for axis in drawn[0].axes if axis.get_ylabel().startswith("objective"))
    assert set(objective.lines[0].get_ydata()) == {2.0}


def test_runs_for_other_targets_are_not_compared(tmp_path, capsys):
    runs = [str(write_targeted(tmp_path / "a", 5.0)), str(write_run(tmp_path / "b"))]
    with pytest.raises(SystemExit):
        main(["report", *runs])
    assert "has targets none" in capsys.readouterr().err
