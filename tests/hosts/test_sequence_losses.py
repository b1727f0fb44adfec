"""What a run leaves for MixMin: the losses of every held-out sequence of the targets."""

import json

from tests.hosts.test_plain import SCHEDULE, mixing_of, tiny_model
from titan_aioli.config import Target
from titan_aioli.hosts.plain import train


def test_losses_of_sequences_are_of_the_targets_and_the_plan_is_of_the_groups(tmp_path, stores):
    mixing = mixing_of(stores, "stratified")
    mixing.targets, mixing.evaluation.sequence_losses = {"b": Target()}, True
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    assert list(json.loads((tmp_path / "sequences.json").read_text())) == ["b"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["groups"] == ["a", "b", "c"] and len(plan["proportions"]) == 3
