"""Real ranks: their number, the batch size and the groups change between resumes; groups are used up."""

import csv

import numpy as np
import pytest

from titan_aioli.runs.audit import check_audit
from titan_aioli.runs.read import read_run, read_sections
from titan_aioli.testing.forked import train
from titan_aioli.testing.torchrun import TINY

BRIEF = ("--mixing.evaluation.sequences", "6", "--mixing.evaluation.no-test", "--mixing.evaluation.freq", "0")
STEPS = ("--lr_scheduler.total_steps", "20")


def audit_rows(folder):
    with open(folder / "rows.csv", newline="") as file:
        return list(csv.DictReader(file))


def run(folder, stores, num_ranks, until, *flags, **kwargs):
    per_rank = str(8 // num_ranks) if num_ranks < 4 else "2"
    return train(
        folder,
        stores,
        num_ranks,
        *BRIEF,
        *STEPS,
        *("--training.steps", str(until), "--training.local_batch_size", per_rank),
        *flags,
        **kwargs,
    )


def test_one_two_four_and_two_ranks_draw_the_rows_of_one(tmp_path, stores):
    """During an Aioli run, resumed inside LearnParams twice; losses differ in the last bits only."""
    run(tmp_path / "one", stores, 1, 16)
    for num_ranks, until in ((1, 3), (2, 5), (4, 11), (2, 16)):
        run(tmp_path / "changing", stores, num_ranks, until)
    one, changing = read_run(tmp_path / "one"), read_run(tmp_path / "changing")
    assert check_audit(changing) == 16 * 8
    assert [row["row"] for row in audit_rows(changing.folder)] == [str(row) for row in range(16 * 8)]
    assert len(one.records) == len(changing.records)
    for record, expected in zip(changing.records, one.records, strict=True):
        np.testing.assert_allclose(record["proportions"], expected["proportions"], atol=1e-6)
    assert (one.folder / "rows.csv").read_bytes() == (changing.folder / "rows.csv").read_bytes()


def test_another_batch_size_continues_with_the_next_row(tmp_path, stores):
    run(tmp_path, stores, 1, 5)
    run(tmp_path, stores, 2, 9, "--training.global_batch_size", "16")
    run(tmp_path, stores, 1, 12, "--training.global_batch_size", "8")
    recorded = read_run(tmp_path)
    assert check_audit(recorded) == (5 + 2 * 4 + 3) * 8
    reasons = [record["reason"] for record in recorded.records if "reason" in record]
    assert reasons == ["global batch size 8 -> 16", "global batch size 16 -> 8"]
    assert [int(row["row"]) for row in audit_rows(tmp_path)] == list(range(16 * 8))
    drawn = {(row["group"], row["epoch"], row["sequence"]) for row in audit_rows(tmp_path)}
    assert len(drawn) == 16 * 8  # no sequence twice in an epoch


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A config that allows group a no more than a twentieth of an epoch."""
    config = tmp_path_factory.mktemp("config") / "limited.toml"
    text = TINY.read_text().replace("[mixing.groups.a]\n", "[mixing.groups.a]\nmax_epochs = 0.05\n")
    config.write_text(text.replace('method = "aioli"', 'method = "stratified"'))
    return config


def test_the_share_of_a_used_up_group_goes_to_the_others(tmp_path, stores, limited):
    """The same with other ranks and a resume at that step. Group a has 750 sequences: 37 rows at most."""
    flags = ("--mixing.when_used_up", "redistribute")
    run(tmp_path / "whole", stores, 1, 20, *flags, config=limited)
    whole = read_run(tmp_path / "whole")
    for until in (int(whole.records[1]["step"]), 20):
        run(tmp_path / "parts", stores, 2, until, *flags, config=limited)
    parts = read_run(tmp_path / "parts")
    assert [record.get("reason") for record in whole.records] == [None, "used up: a"]
    assert whole.records[1]["proportions"] == [0.0, 0.5, 0.5]
    drawn = sum(row["group"] == "a" for row in audit_rows(whole.folder))
    assert 37 - 3 <= drawn <= 37
    assert check_audit(whole) == check_audit(parts) == 160
    for name in ("ledger.jsonl", "rows.csv"):
        assert (whole.folder / name).read_bytes() == (parts.folder / name).read_bytes()


@pytest.mark.slow
def test_training_stops_where_a_group_is_used_up(tmp_path, stores, limited):
    done = run(tmp_path, stores, 1, 20, "--mixing.when_used_up", "stop", config=limited)
    recorded = read_run(tmp_path)
    assert "Ran out of data" in done.stdout + done.stderr
    assert recorded.results is not None and 11 <= recorded.results["step"] < 20
    assert check_audit(recorded) == recorded.results["step"] * 8
    assert (tmp_path / "checkpoint" / f"step-{recorded.results['step']}").is_dir()
    reason = recorded.records[-1]["reason"]
    assert reason.startswith(f"out of data after step {recorded.last_step}: group a has been read")
    assert reason == recorded.results["out_of_data"]
    before = (tmp_path / "ledger.jsonl").read_bytes()
    run(tmp_path, stores, 1, 20, "--mixing.when_used_up", "stop", config=limited)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    without = ("--mixing.when_used_up", "stop", "--checkpoint.no-enable")
    run(tmp_path / "without", stores, 1, 20, *without, config=limited)
    assert read_run(tmp_path / "without").results == recorded.results


@pytest.mark.slow
def test_groups_change_at_a_resume(tmp_path, stores):
    config = tmp_path / "other.toml"
    config.write_text(TINY.read_text().replace("[mixing.groups.a]\n", ""))
    run(tmp_path / "run", stores, 2, 5)
    run(tmp_path / "run", stores, 2, 12, "--mixing.on_resume", "adapt", config=config)
    recorded = read_run(tmp_path / "run")
    assert recorded.groups == ["b", "c"]
    assert recorded.records[0]["reason"] == "resumed with changes: removed a"
    assert check_audit(recorded) == 7 * 8
    seen = [(row["group"], row["epoch"], row["sequence"]) for row in audit_rows(tmp_path / "run")]
    assert len(set(seen)) == len(seen) == 12 * 8
    first, last = read_sections(tmp_path / "run")
    assert (first.groups, last.groups) == (["a", "b", "c"], ["b", "c"])
    assert check_audit(first) == 5 * 8 and first.last_step == 5
