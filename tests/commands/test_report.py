"""`titan-aioli report` and `rows` on small hand-written runs."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from titan_aioli.cli import main
from titan_aioli.commands.report import epoch_table, loss_table, round_table
from titan_aioli.commands.rows import blocks, check_audit
from titan_aioli.runs.audit import AuditFile
from titan_aioli.runs.run import read_run

GROUPS = ["law", "code"]


def write_run(folder, method="aioli", results=True, steps=6):
    """Six steps of 4 rows: LearnParams on law, then on code, then training."""
    folder.mkdir(parents=True)
    mixture = {"method": method, "groups": GROUPS, "seed": 0, "batch_size": 4, "seq_len": 4}
    mixture.update(num_sequences=[10, 20], stores={"law": ["x"], "code": ["y"]})
    (folder / "mixture.json").write_text(json.dumps(mixture))
    matrix = [[0.4, 0.1], [0.2, 0.3]]
    records = [
        {"step": 0, "proportions": [0.5, 0.5], "phase": "measure", "observation": None},
        {"step": 0, "proportions": [0.75, 0.25], "phase": "learn_params", "observation": [4.0, 3.0]},
        {"step": 1, "proportions": [0.25, 0.75], "phase": "learn_params", "observation": [3.9, 2.9]},
        {
            "step": 2,
            "proportions": [0.6, 0.4],
            "phase": "train",
            "normalized_A": matrix,
            "observation": [3.8, 2.8],
        },
    ]
    with open(folder / "ledger.jsonl", "w") as file:
        for record in records:
            file.write(json.dumps({"first_row": record["step"] * 4, "round": 0, **record}) + "\n")
    (folder / "losses.jsonl").write_text('{"step": 2, "validation_loss": [3.8, 2.8]}\n')
    if results:
        losses = {"validation_loss": [3.5, 2.5], "validation_loss_mean": 3.0}
        losses.update(test_loss=[3.6, 2.4], test_loss_mean=3.0)
        (folder / "results.json").write_text(json.dumps({"step": steps, "method": method, **losses}))
    return folder


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
    assert "0.600" in text and "0.750" not in text  # the stretch of training, not LearnParams


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


def write_audit(run):
    audit = AuditFile(run.folder / "rows.csv", GROUPS)
    for block in blocks(run, 0, run.last_step):
        for index in range(len(block.groups)):
            audit.write_step(block, index)


def test_rows_follow_the_ledger(tmp_path):
    planned = list(blocks(read_run(write_run(tmp_path / "aioli")), 0, 6))
    counts = [np.bincount(row, minlength=2).tolist() for block in planned for row in block.groups]
    assert counts[:2] == [[3, 1], [1, 3]]
    assert np.sum(counts[2:], axis=0).tolist() == [10, 6]  # 16 rows at 0.6, 0.4: 9.6 and 6.4


def test_rows_of_a_late_step_are_those_of_the_whole_run(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    whole = np.concatenate([block.sequences for block in blocks(run, 0, 6)])
    late = np.concatenate([block.sequences for block in blocks(run, 4, 6)])
    np.testing.assert_array_equal(late, whole[4:])


def test_the_audit_is_compared_row_by_row(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    assert check_audit(run) == 24
    path = run.folder / "rows.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], *lines[6:]]) + "\n")  # one row lost
    with pytest.raises(ValueError, match="expected 4,1,"):
        check_audit(run)


def test_a_resumed_audit_is_cut_back(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    whole = (run.folder / "rows.csv").read_text()
    resumed = AuditFile(run.folder / "rows.csv", GROUPS)
    for block in blocks(run, 3, run.last_step):
        for index in range(len(block.groups)):
            resumed.write_step(block, index)
    assert (run.folder / "rows.csv").read_text() == whole


def test_a_step_not_trained_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "aioli")
    with pytest.raises(SystemExit):
        main(["rows", str(run), "--step", "6"])
    assert "trained steps 0 to 5" in capsys.readouterr().err
