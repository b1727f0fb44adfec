"""Faults in training, on real ranks: ranks that differ, losses that are no numbers, evaluations that fail."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from titan_aioli.hosts.installed import launch
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import fork_ranks
from titan_aioli.testing.stores import write_stores
from titan_aioli.testing.torchrun import torchrun

BRIEF = ["--training.steps", "12", "--checkpoint.no-enable", "--mixing.evaluation.freq", "0"]
WAITING = ["--comm.train_timeout_seconds", "1000"]  # what a rank that waits for another would wait


def run_faulty(folder, stores, fault, at, *flags, start=fork_ranks, **env):
    """The run once it has ended, which it does at once, although ranks would wait for long."""
    arguments = ["--job.dump_folder", folder, "--mixing.stores", stores, *BRIEF, *WAITING, *flags]
    faults = {"FAULT": fault, "FAULT_AT": str(at), **env}
    return start(2, *arguments, module="tests.ranks.trainers.faulty", timeout=240, **faults)


def errors_by_rank(done):
    found = re.findall(r"titan_aioli: error: (.*) \[rank (\d)\]", done.stderr)
    return {rank: message for message, rank in found}


def test_a_slow_rank_has_time_to_print_its_error(tmp_path, stores):
    """torchrun ends all ranks once the first one has exited."""
    done = run_faulty(tmp_path, stores, "late", 5, start=torchrun)
    assert done.returncode != 0
    assert errors_by_rank(done) == {rank: f"nothing will come of rank {rank}" for rank in "01"}


def test_an_error_is_written_in_one_piece(monkeypatch):
    """Ranks share a stream: what is written in two pieces ends up within another rank's line."""
    pieces = []
    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=pieces.append, flush=lambda: None))
    assert launch(None, ["--job.config_file", "missing.toml"]) == 2
    (error,) = [piece for piece in pieces if piece.startswith("titan_aioli: error: ")]
    assert "missing.toml" in error and error.endswith(" [rank 0]\n")


@pytest.mark.parametrize(
    ("fault", "name"),
    [("bit-proportions", "method state.proportions"), ("bit-ledger", "ledger entry 1")],
)
def test_one_flipped_bit_on_one_rank_stops_all_at_the_next_update(tmp_path, stores, fault, name):
    """The bit flips in step 1, the first phase ends after step 2."""
    done = run_faulty(tmp_path, stores, fault, 1)
    assert done.returncode != 0
    errors = errors_by_rank(done)
    assert set(errors) == {"0"}, done.stderr[-3000:]  # the same of both ranks: said once
    assert re.match(
        rf"step 2: the ranks hold different mixtures: {name}: ranks \[0\] hold .*; ranks \[1\] hold ",
        errors["0"],
    ), errors["0"]


def test_a_rank_that_reads_other_stores_is_found_before_the_first_step(tmp_path, stores):
    other = write_stores(tmp_path / "copy", num_documents=30)
    done = run_faulty(tmp_path / "run", stores, "stores", 0, OTHER_STORES=str(other))
    assert done.returncode != 0
    said = r"step 0: the ranks hold different mixtures: stores of group a: ranks \[0\] hold .*every node has"
    assert re.match(said, errors_by_rank(done)["0"]), done.stderr[-3000:]
    assert not (tmp_path / "run/losses.jsonl").exists()


def test_failing_evaluations_are_skipped_and_training_continues(tmp_path, stores):
    """One that fails on one rank only: nobody waits, the log names the groups and the reason."""
    done = run_faulty(tmp_path, stores, "evaluation", 3, FAULT_COUNT="1")
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert "evaluation passes failed on rank 1: RuntimeError: no memory left" in output
    assert "update skipped (1 in a row): the held-out loss of group 'a' is not finite" in output
    records = read_run(tmp_path).records
    assert [r["step"] for r in records if "skipped" in r.get("note", "")] == [4]
    assert all(np.isfinite(record["proportions"]).all() for record in records)
    assert records[-1]["step"] == 12


def test_too_many_skipped_updates_in_a_row_stop_every_rank(tmp_path, stores):
    flags = ["--mixing.max_skipped_updates", "3"]
    done = run_faulty(tmp_path, stores, "evaluation", 3, *flags, FAULT_COUNT="99")
    assert done.returncode != 0
    errors = errors_by_rank(done)
    assert set(errors) == {"0"}
    assert "step 10: 3 updates of the mixture in a row were skipped" in errors["0"]
    assert "the held-out loss of group 'a' is not finite" in errors["0"]


@pytest.mark.slow
def test_a_training_loss_that_is_no_number_is_told_from_a_group_without_tokens(tmp_path, stores):
    flags = ["--mixing.method", "odm", "--mixing.odm.steps_per_update", "2"]
    done = run_faulty(tmp_path, stores, "training", 4, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    records = read_run(tmp_path).records
    assert [r["step"] for r in records if "skipped" in r.get("note", "")] == [4]
    skipped = next(record for record in records if record["step"] == 4)
    assert skipped["observation"][0] == np.inf
    assert "the training loss of group 'a' is not finite" in skipped["note"]
