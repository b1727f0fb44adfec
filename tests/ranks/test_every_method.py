"""Every online method on real ranks: trained, killed, resumed bit for bit; DoGE's gradients are right."""

import json

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.methods import METHODS
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import fork_ranks, train
from titan_aioli.testing.torchrun import files

SHORT = {
    "aioli": [],
    "aioli_bayes": ["--mixing.aioli_bayes.steps_per_stretch", "1"],
    "aioli_gradients": [
        *("--mixing.aioli_gradients.steps_per_update", "2", "--mixing.aioli_gradients.misfit", "0.0"),
        *("--mixing.aioli_gradients.sequences", "3"),
    ],
    "skill_it": ["--mixing.skill_it.steps_per_round", "2", "--mixing.skill_it.eta", "1.0"],
    "doremi": ["--mixing.doremi.steps_per_update", "2"],
    "doge": ["--mixing.doge.steps_per_update", "2", "--mixing.doge.sequences", "2"],
    "odm": ["--mixing.odm.steps_per_update", "3"],
    "target_excess": ["--mixing.target_excess.steps_per_round", "2"],
    "ado": [
        *("--mixing.ado.steps_per_update", "1", "--mixing.ado.warmup_updates", "4"),
        *("--mixing.ado.ignored_updates", "1"),
    ],
}
FSDP = (2, [])
FSDP_TP = (4, ["--parallelism.tensor_parallel_degree", "2"])
TP = (2, ["--parallelism.tensor_parallel_degree", "2", "--training.local_batch_size", "8"])
COMMON = ["--training.steps", "10", "--mixing.evaluation.freq", "0"]


@pytest.fixture(scope="module")
def reference(stores, tmp_path_factory):
    """A stratified run: DoReMi's reference model."""
    folder = tmp_path_factory.mktemp("stratified")
    train(folder, stores, 2, *COMMON, "--mixing.method", "stratified")
    return folder


def write_ledger(path):
    """A ledger of three groups that changes the mixture at step 4."""
    entry = {"phase": "train", "round": 0}
    lines = [
        {**entry, "step": step, "first_row": 8 * step, "proportions": shares}
        for step, shares in ((0, [0.5, 0.25, 0.25]), (4, [0.25, 0.25, 0.5]))
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def flags_of(name, reference):
    flags = [*COMMON, "--mixing.method", name, *SHORT.get(name, [])]
    if name == "doremi":
        flags += ["--mixing.doremi.reference", reference / "checkpoint" / "step-10"]
    if name == "replay":
        flags += ["--mixing.replay.ledger", write_ledger(reference / "recorded" / "ledger.jsonl")]
    return flags


def check_kill_and_resume(folder, stores, layout, flags):
    """A run never stopped and one killed at steps 5 and 8, with checkpoints at every second step."""
    num_ranks, parallel = layout
    train(folder / "whole", stores, num_ranks, *parallel, *flags, module="tests.ranks.trainers.killing")
    arguments = ["--job.dump_folder", folder / "killed", "--mixing.stores", stores, *parallel, *flags]
    for step in ("5", "8"):
        killed = fork_ranks(num_ranks, *arguments, module="tests.ranks.trainers.killing", KILL_AT=step)
        assert killed.returncode != 0
    train(folder / "killed", stores, num_ranks, *parallel, *flags, module="tests.ranks.trainers.killing")
    assert files(folder / "killed") == files(folder / "whole")
    records = read_run(folder / "whole").records
    learned = {(*record["proportions"], *record.get("best", ())) for record in records}
    assert len(learned) > 1 or "static" in flags  # the method did learn or decide something


@pytest.mark.parametrize("name", ["doremi"])
def test_killed_and_resumed_equals_never_stopped(name, tmp_path, stores, reference):
    check_kill_and_resume(tmp_path, stores, FSDP, flags_of(name, reference))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [FSDP, FSDP_TP], ids=["fsdp", "fsdp-tp"])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("stratified", "static")])
def test_every_method_resumes_in_both_layouts(name, layout, tmp_path, stores, reference):
    check_kill_and_resume(tmp_path, stores, layout, flags_of(name, reference))


def test_doge_sees_the_inner_products_of_whole_gradients(tmp_path, stores):
    flags = [*flags_of("doge", None), "--mixing.doge.steps_per_update", "1", "--checkpoint.no-enable"]
    flags += ["--training.steps", "1"]
    train(
        tmp_path / "1",
        stores,
        1,
        *flags,
        "--training.local_batch_size",
        "8",
        module="tests.ranks.trainers.whole_gradients",
    )
    gradients = json.loads((tmp_path / "1" / "gradients.json").read_text())
    whole = np.array(gradients["whole"])
    np.testing.assert_allclose(gradients["observed"], whole, rtol=1e-5)
    for name, (num_ranks, parallel) in {"2": FSDP, "4": FSDP_TP, "tp": TP}.items():
        folder = tmp_path / name
        train(folder, stores, num_ranks, *parallel, *flags)
        np.testing.assert_allclose(read_run(folder).records[1]["observation"], whole, rtol=1e-5)


def test_the_alignment_of_gradients_is_that_of_one_rank(tmp_path, stores):
    """4 ranks take 3 rows of a group: one fills up. Adam's second moments are sharded like the gradients."""
    flags = [*flags_of("aioli_gradients", None), "--checkpoint.no-enable", "--training.steps", "4"]
    train(tmp_path / "1", stores, 1, *flags, "--training.local_batch_size", "8")
    one = [record["observation"] for record in read_run(tmp_path / "1").records[1:]]
    assert len(one) == 3
    for name, (num_ranks, parallel) in {
        "2": FSDP,
        "4": (4, ["--training.local_batch_size", "2"]),
        "fsdp_tp": FSDP_TP,
        "tp": TP,
    }.items():
        folder = tmp_path / name
        train(folder, stores, num_ranks, *parallel, *flags)
        observed = [record["observation"] for record in read_run(folder).records[1:]]
        np.testing.assert_allclose(observed, one, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_doremis_reference_must_be_a_checkpoint(tmp_path, stores):
    flags = [*flags_of("doremi", tmp_path), "--checkpoint.no-enable"]
    done = fork_ranks(2, "--job.dump_folder", tmp_path, "--mixing.stores", stores, *flags, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("titan_aioli: error: mixing.doremi.reference is") == 1


def test_a_finished_run_leaves_a_plan_that_static_trains_on(tmp_path, stores, reference):
    plan = json.loads((reference / "plan.json").read_text())
    plan["proportions"] = [0.5, 0.25, 0.25]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    static = ["--mixing.method", "static", "--mixing.static.by", "plan"]
    static += ["--mixing.static.plan", tmp_path / "plan.json"]
    train(tmp_path / "static", stores, 2, *COMMON, *static, "--checkpoint.no-enable")
    assert read_run(tmp_path / "static").records[0]["proportions"] == [0.5, 0.25, 0.25]
    main(["report", str(reference), str(tmp_path / "static"), "--output", str(tmp_path / "report.png")])
