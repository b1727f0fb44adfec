"""Several nodes, restarts and asynchronous checkpoints, on real ranks: all give the bits of one plain run."""

import subprocess

import pytest

from titan_aioli.testing.forked import fork_ranks, train
from titan_aioli.testing.torchrun import command, environment, files, free_port, torchrun, train_losses

BRIEF = ["--training.steps", "12"]
NO_SHARED_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # restarts hang without it


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    """Two ranks of one agent, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, stores, 2, *BRIEF, module="tests.ranks.trainers.killing")
    return folder


def assert_same(folder, whole):
    assert files(folder) == files(whole)
    assert train_losses(folder) == train_losses(whole)


def test_two_agents_that_meet_over_c10d_equal_one(tmp_path, stores, whole):
    launcher = ("--nnodes", "2", "--rdzv_id", "nodes", "--rdzv_endpoint", f"127.0.0.1:{free_port()}")
    words = command(
        *(1, "--job.dump_folder", tmp_path, "--mixing.stores", stores, *BRIEF),
        module="tests.ranks.trainers.killing",
        launcher=launcher,
    )
    agents = [subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [agent.communicate(timeout=120)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors[0][-3000:]
    assert_same(tmp_path, whole)


def test_torchrun_brings_a_run_back_after_a_rank_was_killed(tmp_path, stores, whole):
    """Within one torchrun: the last checkpoint is that of step 6, rank 1 dies in step 7."""
    launcher = ("--rdzv_endpoint", "localhost:0", "--max-restarts", "1")
    done = torchrun(
        *(2, "--job.dump_folder", tmp_path, "--mixing.stores", stores, *BRIEF),
        module="tests.ranks.trainers.killing",
        launcher=launcher,
        KILL_AT="7",
        KILL_RANK="1",
        KILL_ONCE=str(tmp_path / "killed"),
        **NO_SHARED_STORE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists()
    assert "Training starts at step 7" in done.stdout
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_asynchronous_checkpoints_resume_bit_for_bit(tmp_path, stores, whole):
    """Killed while the checkpoint of step 6 may still be on its way to the disk."""
    flags = ["--checkpoint.async_mode", "async", *BRIEF]
    arguments = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, *flags]
    assert fork_ranks(2, *arguments, module="tests.ranks.trainers.killing", KILL_AT="7").returncode != 0
    train(tmp_path, stores, 2, *flags, module="tests.ranks.trainers.killing")
    assert_same(tmp_path, whole)
