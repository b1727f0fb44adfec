"""rows.csv: written step by step, computed again from the ledger, compared row by row."""

import csv

import numpy as np
import pytest

from tests.runs.small_run import GROUPS, write_run
from titan_aioli.errors import UserError
from titan_aioli.runs.audit import AuditFile, audited_steps, blocks, check_audit
from titan_aioli.runs.read import read_run
from titan_aioli.runs.run import Run


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


def test_phases_of_one_batch_size_share_a_schedule(tmp_path, monkeypatch):
    built, build = [], Run.schedule
    monkeypatch.setattr(Run, "schedule", lambda run, size: built.append(size) or build(run, size))
    assert len(list(blocks(read_run(write_run(tmp_path / "aioli")), 0, 6))) == 3
    assert built == [4]


def test_the_audit_is_compared_row_by_row(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    assert check_audit(run) == 24
    path = run.folder / "rows.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], *lines[6:]]) + "\n")  # one row lost
    with pytest.raises(ValueError, match="expected 4,1,"):
        check_audit(run)


@pytest.mark.parametrize("half_a_line", ["", "17,", "17,4,a,0,3"])
def test_a_resumed_audit_keeps_the_lines_of_earlier_rows(tmp_path, half_a_line):
    path, lines = tmp_path / "rows.csv", [f"{row},{row // 4},a,0,{7**row}\n" for row in range(17)]
    for first_row in range(1, 20):
        path.write_text("".join(["row,step,group,epoch,sequence\n", *lines]) + half_a_line)
        AuditFile(path, GROUPS)._rewind(first_row)
        assert path.read_text().splitlines(True)[1:] == lines[:first_row]


def test_a_damaged_audit_is_named_at_a_resume(tmp_path):
    (tmp_path / "rows.csv").write_text("row,step,group,epoch,sequence\nx,0,a,0,1\n")
    with pytest.raises(UserError, match=r"rows.csv: at byte 30 it says 'x,0,a,0,1', which is no row"):
        AuditFile(tmp_path / "rows.csv", GROUPS)._rewind(5)


def test_a_resumed_audit_is_cut_back(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    whole = (run.folder / "rows.csv").read_text()
    resumed = AuditFile(run.folder / "rows.csv", GROUPS)
    for block in blocks(run, 3, run.last_step):
        for index in range(len(block.groups)):
            resumed.write_step(block, index)
    assert (run.folder / "rows.csv").read_text() == whole


def test_an_audit_that_ends_early_or_late_is_told_apart(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    path = run.folder / "rows.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, "24,6,law,0,0\n"]))
    with pytest.raises(ValueError, match="has 24,6,law,0,0 after the run's last row"):
        check_audit(run)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"expected 23,5,.*, found the end of the file"):
        check_audit(run)


def test_an_audit_of_a_killed_run_is_compared_as_far_as_it_goes(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    write_audit(run)
    path = run.folder / "rows.csv"
    lines = path.read_text().splitlines(keepends=True)
    (run.folder / "results.json").unlink()
    for num_rows, num_whole in ((24, 24), (22, 20), (20, 20), (3, 0), (0, 0)):
        path.write_text("".join(lines[: 1 + num_rows]) + "2")  # and the begin of another line
        killed = read_run(run.folder)
        assert audited_steps(killed) == num_whole // 4 and check_audit(killed) == num_whole
    path.write_text("".join([*lines[:5], *lines[6:]]))
    with pytest.raises(ValueError, match="expected 4,1,"):
        check_audit(read_run(run.folder))


def test_names_with_commas_and_quotes_are_one_field(tmp_path):
    run = read_run(write_run(tmp_path / "aioli"))
    audit = AuditFile(run.folder / "rows.csv", ["law, civil", 'the "code"'])
    audit.write_step(next(blocks(run, 0, 1)), 0)
    with open(run.folder / "rows.csv", newline="") as file:
        assert {row["group"] for row in csv.DictReader(file)} == {"law, civil", 'the "code"'}


@pytest.mark.parametrize("line", ["words", "x,y,z", ""])
def test_a_last_line_that_is_no_row_is_refused(tmp_path, line):
    run = read_run(write_run(tmp_path / "aioli", results=False))
    (run.folder / "rows.csv").write_text(f"row,step,group,epoch,sequence\n{line}\n")
    with pytest.raises(ValueError, match=rf"rows\.csv: its last line is '{line}', not a row"):
        audited_steps(run)
