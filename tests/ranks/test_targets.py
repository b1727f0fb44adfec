"""Real ranks that mix for targets: the groups spelled out, resumes, other ranks, other targets."""

import json

import pytest

from titan_aioli.runs.audit import check_audit
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import fork_ranks, train
from titan_aioli.testing.torchrun import TINY, files

TARGETS = "[mixing.targets.b]\nweight = 2.0\n[mixing.targets.d]\n"
GROUPS = "".join(f"[mixing.targets.{name}]\n" for name in "abc")
TP = ("--parallelism.tensor_parallel_degree", "2")


@pytest.fixture(scope="module")
def write_config(tmp_path_factory):
    """Writes the tiny config with more tables."""
    folder = tmp_path_factory.mktemp("configs")

    def write(name, tables):
        path = folder / f"{name}.toml"
        path.write_text(TINY.read_text() + "\n" + tables)
        return path

    return write


def run(folder, stores, num_ranks, until, config, *flags):
    per_rank = ("--training.local_batch_size", str(min(4, 8 // num_ranks)))
    steps = ("--training.steps", str(until), "--lr_scheduler.total_steps", "14")
    return train(folder, stores, num_ranks, *per_rank, *steps, *flags, config=config)


def test_the_groups_spelled_out_as_targets_change_no_byte(tmp_path, stores, write_config):
    run(tmp_path / "plain", stores, 2, 12, TINY)
    run(tmp_path / "spelled", stores, 2, 12, write_config("groups", GROUPS))
    assert files(tmp_path / "plain") == files(tmp_path / "spelled")


@pytest.mark.parametrize(
    ("num_ranks", "flags"), [(2, ()), pytest.param(4, TP, marks=pytest.mark.slow)], ids=["fsdp2", "fsdp2_tp2"]
)
def test_stopped_and_resumed_equals_never_stopped(tmp_path, stores, write_config, num_ranks, flags):
    """Stopped inside LearnParams (5, 13) and in a training phase (9), with weights that have a state."""
    objective = '[mixing.objective]\nunit = "relative"\ncombine = "worst"\n'
    config = write_config("worst", TARGETS + objective)
    run(tmp_path / "whole", stores, num_ranks, 14, config, *flags)
    for until in (5, 9, 13, 14):
        run(tmp_path / "parts", stores, num_ranks, until, config, *flags)
    assert files(tmp_path / "whole")["rows.csv"] == files(tmp_path / "parts")["rows.csv"]
    assert files(tmp_path / "whole")["ledger.jsonl"] == files(tmp_path / "parts")["ledger.jsonl"]
    results = [json.loads(files(tmp_path / name)["results.json"]) for name in ("whole", "parts")]
    assert results[0] == results[1] and results[0]["targets"] == ["b", "d"]
    learned = next(record for record in read_run(tmp_path / "whole").records if "normalized_A" in record)
    assert len(learned["target_weights"]) == len(learned["normalized_A"]) == 2


def test_other_numbers_of_ranks_draw_the_same_rows(tmp_path, stores, write_config):
    config = write_config("targets", TARGETS)
    run(tmp_path / "one", stores, 1, 12, config)
    for num_ranks, until in ((2, 5), (1, 12)):
        run(tmp_path / "changing", stores, num_ranks, until, config)
    assert files(tmp_path / "one")["rows.csv"] == files(tmp_path / "changing")["rows.csv"]


def test_a_target_added_is_refused_or_adapted_to(tmp_path, stores, write_config):
    config, more = write_config("targets", TARGETS), write_config("more", TARGETS + "[mixing.targets.a]\n")
    run(tmp_path / "run", stores, 1, 5, config)
    refused = fork_ranks(
        1,
        "--job.dump_folder",
        tmp_path / "run",
        "--mixing.stores",
        stores,
        "--training.steps",
        "8",
        config=more,
    )
    assert refused.returncode != 0
    assert "written with targets ['b', 'd'], this run has ['b', 'd', 'a']" in refused.stdout + refused.stderr
    run(tmp_path / "run", stores, 1, 8, more, "--mixing.on_resume", "adapt")
    adapted = read_run(tmp_path / "run")
    assert adapted.records[0]["reason"] == "resumed with changes: added targets a"
    assert adapted.records[0]["phase"] == "measure" and len(adapted.records[1]["observation"]) == 3
    assert check_audit(adapted) == 3 * 8


@pytest.mark.parametrize("method", ["doge", "stratified"])
def test_methods_that_do_not_observe_targets_report_them(tmp_path, stores, write_config, method):
    flags = ("--mixing.method", method, "--mixing.doge.steps_per_update", "2")
    run(tmp_path, stores, 2, 4, write_config("targets", TARGETS), *flags)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["targets"] == ["b", "d"] and len(results["target_test_loss"]) == 2
    assert results["target_validation_loss"][0] == results["validation_loss"][1]
    expected = (2 * results["target_test_loss"][0] + results["target_test_loss"][1]) / 3
    assert results["test_objective"] == pytest.approx(expected)
