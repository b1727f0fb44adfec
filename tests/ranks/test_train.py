"""Real ranks on CPU: layouts agree, killed runs resume bit for bit, hooks change nothing."""

import json
import re
import signal

import numpy as np
import pytest

from titan_aioli.runs.audit import check_audit
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import fork_ranks, train
from titan_aioli.testing.torchrun import TINY, files, torchrun, train_losses

KILLS = (3, 5, 8, 11, 17)  # 3, 5 and 11 are inside LearnParams


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    """A run of two ranks with FSDP2, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, stores, 2, module="tests.ranks.trainers.killing")
    return folder


@pytest.mark.parametrize(
    ("num_ranks", "flags"),
    [
        (1, ["--training.local_batch_size", "8"]),
        pytest.param(4, ["--parallelism.tensor_parallel_degree", "2"], marks=pytest.mark.slow),
    ],
)
def test_any_layout_draws_the_same_rows_and_finds_the_same_proportions(
    tmp_path, stores, whole, num_ranks, flags
):
    train(tmp_path, stores, num_ranks, *flags)
    assert (tmp_path / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes()
    ours, reference = (read_run(folder) for folder in (tmp_path, whole))
    assert len(ours.records) == len(reference.records)
    for record, expected in zip(ours.records, reference.records, strict=True):
        np.testing.assert_allclose(record["proportions"], expected["proportions"], atol=1e-6)


def test_killed_at_five_steps_and_resumed_equals_never_stopped(tmp_path, stores, whole):
    arguments = ["--job.dump_folder", tmp_path, "--mixing.stores", stores]
    for step in KILLS:
        killed = fork_ranks(2, *arguments, module="tests.ranks.trainers.killing", KILL_AT=str(step))
        assert killed.returncode != 0
        assert "terminated with signal SIGKILL" in killed.stderr
    train(tmp_path, stores, 2, module="tests.ranks.trainers.killing")
    assert files(tmp_path) == files(whole)
    assert train_losses(tmp_path) == train_losses(whole)


def test_stopped_by_signals_and_resumed_equals_never_stopped(tmp_path, stores, whole):
    """SIGUSR1 to one rank inside LearnParams, SIGTERM to torchrun, SIGUSR1 in a training phase."""
    arguments = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, "--checkpoint.interval", "100"]
    for step, number in ((3, signal.SIGUSR1), (8, signal.SIGTERM), (15, signal.SIGUSR1)):
        words = {"SIGNAL_AT": str(step), "SIGNAL": str(int(number))}
        stopped = torchrun(2, *arguments, module="tests.ranks.trainers.killing", **words)
        printed = stopped.stdout + stopped.stderr
        assert (stopped.returncode == 0) == (number == signal.SIGUSR1), printed[-3000:]
        (last,) = set(re.findall(rf"stopped by {number.name} after step (\d+), which is saved", printed))
        assert step <= int(last) <= step + 3
        assert (tmp_path / "checkpoint" / f"step-{last}").is_dir()
    train(tmp_path, stores, 2, "--checkpoint.interval", "100", module="tests.ranks.trainers.killing")
    assert files(tmp_path) == files(whole)
    assert train_losses(tmp_path) == train_losses(whole)


def test_a_finished_run_can_be_extended(tmp_path, stores, whole):
    """A shorter run taken up again: rows, decisions and evaluations are those of the longer one."""
    fixed_schedule = ("--lr_scheduler.total_steps", "20")
    train(tmp_path, stores, 2, "--training.steps", "14", *fixed_schedule)
    train(tmp_path, stores, 2, *fixed_schedule)
    assert (tmp_path / "ledger.jsonl").read_bytes() == (whole / "ledger.jsonl").read_bytes()
    assert (tmp_path / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes()


def test_the_audit_shows_every_row_once_as_the_ledger_says(whole):
    assert check_audit(read_run(whole)) == 20 * 8


def test_what_a_run_leaves_for_people(whole):
    run = read_run(whole)
    assert run.results["step"] == 20 and len(run.results["test_loss"]) == 3
    assert run.results["perplexity"] == pytest.approx(np.exp(np.mean(run.results["test_loss"])))
    assert [record["step"] for record in run.losses][:4] == [0, 1, 2, 3]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((whole / "tb").iterdir())))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for tag in ("train_loss/a", "proportion/b", "validation_loss/c", "predicted_drop/a", "measured_drop/a"):
        assert f"mixing/{tag}" in tags
    assert {"mixing/round", "mixing/phase", "mixing/epochs/a"} <= tags


def test_one_static_group_has_the_losses_of_plain_torchtitan_bit_for_bit(tmp_path, stores):
    config = tmp_path / "one.toml"
    text = TINY.read_text()
    config.write_text(
        text.replace("[mixing.groups.b]\n[mixing.groups.c]\n", "").replace('"aioli"', '"static"')
    )
    common = ["--mixing.stores", stores, "--training.global_batch_size", "8", "--training.steps", "8"]
    for module, folder in (
        ("scripts.support.plain_torchtitan", "plain"),
        ("tests.ranks.trainers.killing", "ours"),
    ):
        flags = ["--job.dump_folder", tmp_path / folder, "--checkpoint.no-enable"]
        done = fork_ranks(2, *common, *flags, module=module, config=config)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert train_losses(tmp_path / "ours") == train_losses(tmp_path / "plain")
    assert len(train_losses(tmp_path / "ours")) == 8


def test_a_budget_shows_the_method_fewer_sequences_than_the_log(tmp_path, stores, whole):
    """9 % of a round of 10 steps of 8 rows pay for 4 evaluations of 1 sequence of each of 3 groups."""
    train(tmp_path, stores, 2, "--mixing.evaluation.budget", "9", "--mixing.evaluation.freq", "10")
    run, full = read_run(tmp_path), read_run(whole)
    assert [line["step"] for line in run.losses] == [10, 20]
    first, of_all = run.records[1]["observation"], full.records[1]["observation"]
    assert first != of_all and np.allclose(first, of_all, rtol=0.2)  # untrained: near log(vocabulary)
    assert run.results is not None and len(run.results["validation_loss"]) == 3


def test_the_ledger_of_a_run_replays_its_sweep_orders(tmp_path, stores, whole):
    train(tmp_path, stores, 2, "--mixing.aioli.orders_from", whole / "ledger.jsonl", "--checkpoint.no-enable")
    orders = [
        [np.argmax(r["proportions"]) for r in read_run(folder).records if r["phase"] == "learn_params"]
        for folder in (tmp_path, whole)
    ]
    assert orders[0][:6] == orders[1][:6]
    assert json.loads((tmp_path / "mixture.json").read_text())["hyperparameters"]["orders"]


def test_a_step_adds_no_host_sync_and_no_collective(tmp_path, stores):
    flags = ["--mixing.method", "stratified", "--checkpoint.no-enable", "--mixing.no-audit"]
    arguments = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, *flags]
    done = fork_ranks(2, *arguments, "--mixing.evaluation.freq", "0", module="tests.ranks.trainers.step_ops")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("COUNTS "))
    found = json.loads(line.removeprefix("COUNTS "))
    assert found["plain"]["item"] >= 1  # torchtitan's own, so the counter counts
    assert found["ours"] == found["plain"]
