"""Sweeps as jobs of submitit's local executor, with toy runs: killed, resumed, refused."""

import os
import signal
import subprocess
import sys
import time

import pytest

from titan_aioli.cli import main
from titan_aioli.testing.torchrun import TINY, environment

pytest.importorskip("submitit")
NUM_RUNS = 20
LOCAL = ["--executor", "local", "--parallel", "2"]


def words(folder, stores, *more, num_runs=NUM_RUNS):
    common = ["sweep", str(TINY), "--output", str(folder), "--mixing.stores", str(stores)]
    return [*common, "--cover", str(num_runs), *more]


def refused(arguments, capfd):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capfd.readouterr().err.splitlines()[-1]


def start_toy_sweep(arguments):
    """The command in a process of its own, with toy runs that take half a second."""
    program = [sys.executable, "-m", "tests.commands.toy_sweep", *arguments]
    return subprocess.Popen(program, env=environment(TOY_SECONDS="0.5"), stderr=subprocess.DEVNULL)


def num_finished(folder):
    return len(list(folder.glob("cover-*/results.json")))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_five_times_the_table_is_that_of_a_sweep_never_stopped(number, tmp_path, stores):
    assert start_toy_sweep(words(tmp_path / "whole", stores)).wait(600) == 0
    for kill in range(1, 6):
        process = start_toy_sweep(words(tmp_path / "killed", stores, *LOCAL))
        deadline = time.monotonic() + 240
        while num_finished(tmp_path / "killed") < 3 * kill and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process.pid, number)
        assert process.wait(60) != 0
        assert num_finished(tmp_path / "killed") < NUM_RUNS
    assert start_toy_sweep(words(tmp_path / "killed", stores, *LOCAL)).wait(600) == 0
    tables = [(tmp_path / name / "runs.csv").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1]
    starts = [(folder / "starts").read_text() for folder in (tmp_path / "killed").glob("cover-*")]
    assert starts == ["x"] * NUM_RUNS  # no run was trained twice


def test_two_at_a_time_and_a_failed_run_is_named_and_tried_again(tmp_path, stores, toy_runs, capfd):
    arguments = words(tmp_path / "out", stores, num_runs=3)
    main([*arguments, "--dry-run"])
    (tmp_path / "out" / "cover-001" / "fail").touch()
    error = refused([*arguments, *LOCAL], capfd)
    assert "1 of 3 runs failed: cover-001: no token store at nowhere" in error
    assert len((tmp_path / "out" / "runs.csv").read_text().splitlines()) == 3
    (tmp_path / "out" / "cover-001" / "fail").unlink()
    main([*arguments, *LOCAL])
    assert len((tmp_path / "out" / "runs.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parallel", "2"], "--parallel and --executor-options need --executor local or slurm"),
        (["--executor", "local", "--parallel", "0"], "--parallel is 0: at least 1"),
        (["--executor", "local", "--executor-options", "x"], "'local.x': write METHOD.NAME=VALUE"),
        (["--executor", "local", "--executor-options", "no_such=1"], "--executor local: "),
        (["--executor", "slurm"], "--executor slurm: Could not detect"),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_line(tmp_path, stores, toy_runs, capfd, arguments, message):
    assert message in refused(words(tmp_path / "out", stores, *arguments, num_runs=2), capfd)
