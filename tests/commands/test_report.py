"""`titan-aioli report` on small hand-written runs."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tests.runs.small_run import write_run
from titan_aioli.cli import main
from titan_aioli.commands.report import figure as command
from titan_aioli.commands.report.decisions import best_mixture_table, judgement_table, round_table
from titan_aioli.commands.report.losses import epoch_table, loss_table, target_table
from titan_aioli.methods.faults import STAY
from titan_aioli.runs.read import read_run
from titan_aioli.runs.run import UNUSABLE


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


def without_split(run, split):
    """The run as one that did not evaluate on this split."""
    keys = {f"{split}_loss", f"{split}_loss_mean", f"target_{split}_loss"}
    keys.add({"validation": "objective", "test": "test_objective"}[split])
    return run._replace(results={k: v for k, v in run.results.items() if k not in keys})


def words_of(table, label):
    """What stands in the rows that begin with a label."""
    rows = (" ".join(line.replace("\u2502", " ").split()) for line in shown(table).splitlines())
    return [row.removeprefix(f"{label} ") for row in rows if row.startswith(f"{label} ")]


def test_a_split_that_a_run_did_not_evaluate_is_a_dash_in_its_place(tmp_path):
    whole = read_run(write_run(tmp_path / "a"))
    runs = [without_split(whole, "test"), whole, without_split(whole, "validation")]
    assert words_of(loss_table(runs), "law") == ["3.5000 | - 3.5000 | 3.6000 - | 3.6000"]
    assert words_of(loss_table(runs[:1]), "law") == ["3.5000"]
    assert words_of(loss_table(runs[2:]), "law") == ["- | 3.6000"]


def test_the_lowest_is_bold_within_its_split(tmp_path):
    runs = [read_run(write_run(tmp_path / name)) for name in "ab"]
    runs[1].results["validation_loss"] = [3.4, 2.5]
    cells = list(loss_table([without_split(runs[0], "test"), runs[1]]).columns[1].cells)
    assert cells[:2] == ["3.5000 | -", "[bold]2.5000[/bold] | -"]


def test_rounds_show_what_training_drew_from(tmp_path):
    text = shown(round_table(read_run(write_run(tmp_path / "aioli"))))
    assert "0.600" in text and "0.750" not in text  # the phase of training, not LearnParams


def test_judgements_are_shown_with_the_signal_over_the_noise(tmp_path):
    run = read_run(write_run(tmp_path / "aioli_bayes"))
    run.mixture["hyperparameters"] = {"strength": 0.5}
    judged = {"probability": 0.25, "gain": [0.1, 0.03], "best": [0.9, 0.1], "noise": 0.02}
    judged |= {"centre": [0.75, 0.25], "slopes": [0.04, -0.08]}  # their mean at the centre: 0.01
    run.records[-1].update(judged)
    text = shown(judgement_table(run))
    assert "0.250" in text and "+0.100 ± 0.030" in text
    assert f"{0.5 * (0.04 - 0.01) / 0.02:.2f}" in text and "as measured" not in text
    run.records[-1]["measured_gain"] = [0.08, 0.02]
    assert "+0.080 ± 0.020 as" in shown(judgement_table(run))


def test_the_best_mixture_by_gradients_is_shown_with_how_far_it_is_followed(tmp_path):
    run = read_run(write_run(tmp_path / "aioli_gradients"))
    run.records[-2].update({"best": [0.8, 0.2], "best_stderr": np.inf, "trust": 0.0})
    run.records[-1].update({"best": [0.3, 0.7], "best_stderr": 0.0421, "trust": 0.8125})
    run.records[-1].update({"speed": [1.25, 0.03], "gain_steps": [340.2, 50.7]})
    first, second = [
        line.split()
        for line in shown(best_mixture_table(run)).splitlines()
        if "0.00" in line or "0.81" in line
    ]
    assert first[1:5] == ["0.00", "-", "-", "-"] and first[6] == "0.80,"
    assert second[1:9] == ["0.81", "0.042", "1.25", "\u00b1", "0.03", "+340", "\u00b1", "51"]
    assert second[10] == "0.70,"


def test_the_figure_marks_updates_that_were_not_taken_and_says_why(tmp_path, monkeypatch):
    drawn, run = [], read_run(write_run(tmp_path / "aioli_gradients"))
    monkeypatch.setattr(command, "save", lambda figure, output: drawn.append(figure))
    run.records[1].update({"best": [0.8, 0.2], "best_stderr": 0.2, "trust": 0.0, "stays": "by chance"})
    run.records[2].update({"best": [0.8, 0.2], "best_stderr": 0.1, "trust": 0.5})
    run.records[3].update(
        {"best": [0.8, 0.2], "best_stderr": 0.1, "trust": 0.0, "note": f"{STAY}: loss is nan"}
    )
    assert run.updates_not_taken() == {"by chance": [0], UNUSABLE: [2]}
    command.draw([run], tmp_path / "one.png")
    axis = drawn[0].axes[0]
    assert [marks.get_offsets()[:, 0].tolist() for marks in axis.collections] == [[0.0], [2.0]]
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["stays: by chance", f"stays: {UNUSABLE}"]
    assert [(patch.get_x(), patch.get_width()) for patch in axis.patches] == [(0.0, 1.0), (2.0, 4.0)]
    run.records[1].pop("stays"), run.records[3].pop("note")
    command.draw([run], tmp_path / "two.png")
    assert drawn[1].axes[0].get_legend() is None


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


def write_targeted(folder, objective, steps=(2,), **changed):
    """A run for two targets, of which one is a group, measured at some steps."""
    write_run(folder)
    mixture = json.loads((folder / "mixture.json").read_text())
    weights = {"weights": [3.0, 1.0], "unit": "bits_per_byte", "scales": [2.0, 1.0]}
    mixture |= {"targets": ["math", "law"], "objective": weights | changed}
    (folder / "mixture.json").write_text(json.dumps(mixture))
    results = json.loads((folder / "results.json").read_text())
    results |= {"target_validation_loss": [1.0, 3.5], "objective": objective}
    results |= {"target_test_loss": [2.0, 3.5], "test_objective": objective + 1}
    (folder / "results.json").write_text(json.dumps(results))
    line = {"validation_loss": [3.8, 2.8], "target_loss": [1.0, 2.0]}
    text = "".join(json.dumps({"step": step, **line}) + "\n" for step in steps)
    (folder / "losses.jsonl").write_text(text)
    return folder


def test_targets_come_first_with_what_they_cost_the_other_groups(tmp_path):
    runs = [read_run(write_targeted(tmp_path / name, value)) for name, value in (("a", 5.0), ("b", 4.5))]
    text = shown(target_table(runs))
    assert "bits per byte" in text and "1.0000 | 2.0000" in text
    assert "5.0000 | 6.0000" in text and "-0.5000" in text
    assert "2.5000 | 2.4000" in text and "+0.0000" in text  # of code, which is no target
    assert runs[0].objective.value(np.array([1.0, 2.0])) == pytest.approx(0.75 * 2.0 + 0.25 * 2.0)


def test_targets_of_runs_with_and_without_test_are_compared_within_a_split(tmp_path):
    first, other = (
        read_run(write_targeted(tmp_path / name, value)) for name, value in (("a", 5.0), ("b", 4.5))
    )
    table = target_table([without_split(first, "test"), other, without_split(other, "validation")])
    assert words_of(table, "objective") == ["5.0000 | - 4.5000 | 5.5000 - | 5.5000"]
    assert words_of(table, "- first run") == [
        "- -0.5000 | - -",  # of the objective
        "- +0.0000 | - -",  # of the other groups
    ]


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


def drawn_axes(monkeypatch, tmp_path, *runs):
    figures = []
    monkeypatch.setattr(command, "save", lambda figure, output: figures.append(figure))
    command.draw([read_run(run) for run in runs], tmp_path / "report.png")
    figures[0].canvas.draw()
    return [axis for axis in figures[0].axes if axis.get_xlabel() == "step"]


@pytest.mark.parametrize("steps", [(0,), (6,), (0, 1), (6, 0, 3)])
def test_every_evaluation_has_a_marker_inside_its_panel(tmp_path, monkeypatch, steps):
    axes = drawn_axes(monkeypatch, tmp_path, write_targeted(tmp_path / "a", 5.0, steps))
    assert len(axes) == 2
    for axis in axes:
        low, high = axis.get_xlim()
        assert axis.lines and all(list(line.get_xdata()) == sorted(steps) for line in axis.lines)
        assert low < 0 < max(steps) + 0.01 < high
        bottom, top = axis.get_ylim()
        values = np.concatenate([line.get_ydata() for line in axis.lines])
        assert bottom < values.min() and values.max() < top
    marked = [line.get_label() for line in axes[1].lines if line.get_marker() not in ("None", None)]
    assert "target math" in marked


def test_a_run_that_has_measured_nothing_says_so_and_leaves_the_scale_to_others(tmp_path, monkeypatch):
    nothing, some = (
        write_targeted(tmp_path / name, 5.0, steps) for name, steps in (("a", ()), ("b", (2, 6)))
    )
    axes = drawn_axes(monkeypatch, tmp_path, nothing, some)
    empty = [axis for axis in axes if not any(len(line.get_xdata()) for line in axis.lines)]
    assert len(empty) == 2 and all(axis.texts[0].get_text() == "not measured yet" for axis in empty)
    objective = next(axis for axis in axes if axis not in empty)
    assert objective.get_ylim()[0] > 1.0  # its only value is 2


def test_a_diverged_run_is_drawn(tmp_path, monkeypatch):
    folder = write_targeted(tmp_path / "a", 5.0)
    with open(folder / "losses.jsonl", "a") as file:
        nothing = [float("nan")] * 2
        file.write(json.dumps({"step": 4, "validation_loss": nothing, "target_loss": nothing}) + "\n")
    (objective, _) = drawn_axes(monkeypatch, tmp_path, folder)
    assert objective.texts[0].get_text() == "2.000"


def test_evaluations_for_other_targets_are_left_out(tmp_path, monkeypatch):
    """The targets were changed at a resume."""
    folder = write_targeted(tmp_path / "a", 5.0)
    lines = '{"step": 0, "validation_loss": [4, 3]}\n'
    lines += '{"step": 1, "validation_loss": [4, 3], "target_loss": [1, 2, 3]}\n'
    (folder / "losses.jsonl").write_text(lines + (folder / "losses.jsonl").read_text())
    (objective, losses) = drawn_axes(monkeypatch, tmp_path, folder)
    assert list(objective.lines[0].get_xdata()) == [2]
    assert [list(line.get_xdata()) for line in losses.lines] == [[2], *[[0, 1, 2]] * 3]


@pytest.mark.parametrize(
    "changed", [{"weights": [1.0, 1.0]}, {"unit": "nats", "scales": None}, {"relative": True, "scales": None}]
)
def test_objectives_that_differ_are_shown_and_not_compared(tmp_path, monkeypatch, changed):
    folders = [
        write_targeted(tmp_path / name, value, **other)
        for name, value, other in (("a", 5.0, {}), ("b", 4.5, changed))
    ]
    text = shown(target_table([read_run(folder) for folder in folders]))
    assert "5.0000 | 6.0000 bits per byte" in text and "4.5000 | 5.5000" in text
    assert "-0.5000" not in text and "they are not compared" in " ".join(text.split())
    axes = drawn_axes(monkeypatch, tmp_path, *folders)
    assert sum("objective (" in axis.get_ylabel() for axis in axes) == 2


def test_how_targets_are_combined_leaves_objectives_comparable(tmp_path):
    runs = [
        read_run(write_targeted(tmp_path / name, value, **other))
        for name, value, other in (("a", 5.0, {}), ("b", 4.5, {"combine": "worst", "weights": [6.0, 2.0]}))
    ]
    assert "-0.5000" in shown(target_table(runs))


@pytest.mark.parametrize(
    ("changed", "drops"),
    [
        ({}, ["0.475", "0.900"]),  # 0.75 x 2 x 0.3 + 0.25 x 1 x 0.1, the law's 0.75 x 2 x 0.5 + 0.25 x 0.6
        ({"scales": None, "unit": "nats"}, ["0.250", "0.525"]),
        (
            {"scales": None, "relative": True, "unit": "relative", "weights": None},
            ["0.187", "0.564"],
        ),  # slopes 0.4292, 0.5825
    ],
)
def test_the_drop_of_the_objective_is_in_its_unit(tmp_path, changed, drops):
    folder = write_targeted(tmp_path / "a", 5.0, **changed)
    records = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    checked = {"predicted_drop": [0.5, 0.6], "measured_drop": [0.3, 0.1]}
    records.append({**records[0], "step": 6, "first_row": 24, "round": 1, **checked})
    (folder / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = shown(round_table(read_run(folder)))
    assert [word for line in text.splitlines() if "0.600" in line for word in line.split()][-2:] == drops


def test_a_run_that_has_not_begun_is_refused_in_one_line(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    (folder / "ledger.jsonl").write_text("")
    with pytest.raises(SystemExit):
        main(["report", str(folder), "--output", str(tmp_path / "report.png")])
    (line,) = capsys.readouterr().err.splitlines()
    assert "ledger.jsonl is empty: the run has not begun" in line
    assert not (tmp_path / "report.png").exists()


def test_names_are_no_markup(tmp_path):
    folder = write_run(tmp_path / "a")
    named = (folder / "mixture.json").read_text().replace('"law"', '"[bold]x"').replace('"code"', '"[/red]y"')
    (folder / "mixture.json").write_text(named)
    run = read_run(folder)._replace(name="a[seed1]")
    for table in (loss_table([run]), epoch_table([run]), round_table(run)):
        text = shown(table)
        assert "[bold]x" in text and "[/red]y" in text and "a[seed1]" in text


def test_a_folder_is_shown_by_its_name(tmp_path, capsys):
    folder = write_run(tmp_path / "a[seed1]:car:", "stratified")
    main(["report", str(folder), "--output", str(tmp_path / "[x].png")])
    out = capsys.readouterr().out
    assert "a[seed1]:car:" in out and out.endswith("[x].png\n")
