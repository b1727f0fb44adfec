"""Real ranks that train on a plan first, and then on rounds of Aioli around it."""

import json

import numpy as np
import pytest

from titan_aioli.proportions import softmax
from titan_aioli.runs.plan_file import write_plan
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import fork_ranks, train
from titan_aioli.testing.torchrun import files, train_losses

PLAN = np.array([0.5, 0.3, 0.2])
PRIOR_STEPS, STRENGTH = 4, 0.5
KILLS = (2, 7, 12)  # on the plan, in LearnParams, in the training after it
KILLING = "tests.ranks.trainers.killing"


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Of the tiny config, whose rounds have 6 steps of LearnParams and 4 of training."""
    plan = tmp_path_factory.mktemp("plan") / "plan.json"
    write_plan(plan, law="olmix", groups=["a", "b", "c"], proportions=PLAN)
    aioli = {"prior_plan": plan, "prior_steps": PRIOR_STEPS, "start": "prior"}
    guards = {"anchor_plan": plan, "anchor_strength": STRENGTH}
    tables = {"aioli": aioli, "guards": guards}
    pairs = [
        (f"--mixing.{table}.{name}", str(value)) for table in tables for name, value in tables[table].items()
    ]
    return [word for pair in pairs for word in pair]


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory, flags):
    """A run never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, stores, 2, *flags, module=KILLING)
    return folder


def test_the_plan_is_trained_on_first_and_then_adjusted(whole):
    records = read_run(whole).records
    assert (records[0]["phase"], records[0]["step"]) == ("prior", 0)
    np.testing.assert_allclose(records[0]["proportions"], PLAN)
    assert records[1]["phase"] == "learn_params" and records[1]["step"] == PRIOR_STEPS
    trained = [record for record in records if record["phase"] == "train"]
    gains = np.cumsum([np.sum(record["normalized_A"], axis=0) for record in trained], axis=0)  # eta is 1
    expected = [softmax(np.log(PLAN) + (1 - STRENGTH) * gain) for gain in gains]
    np.testing.assert_allclose([record["proportions"] for record in trained], expected)
    assert len(trained) == 2 and np.abs(expected[1] - PLAN).max() > 0.01
    plan = json.loads((whole / "plan.json").read_text())
    np.testing.assert_allclose(plan["proportions"], expected[-1])


def test_killed_three_times_and_resumed_equals_never_stopped(tmp_path, stores, whole, flags):
    arguments = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, *flags]
    for step in KILLS:
        assert fork_ranks(2, *arguments, module=KILLING, KILL_AT=str(step)).returncode != 0
    train(tmp_path, stores, 2, *flags, module=KILLING)
    assert files(tmp_path) == files(whole)
    assert train_losses(tmp_path) == train_losses(whole)
