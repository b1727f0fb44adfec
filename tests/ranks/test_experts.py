"""Mixtures of experts: measuring leaves the state of the routers alone."""

import json

import pytest

from titan_aioli.testing.torchrun import train

EXPERTS = ["--model.name", "deepseek_v3", "--model.flavor", "debugmodel"]
SHORT = ["--training.steps", "3", "--checkpoint.no-enable", "--mixing.evaluation.sequences", "4"]
DOGE = ["--mixing.doge.steps_per_update", "1", "--mixing.doge.sequences", "2"]


@pytest.mark.parametrize(("method", "flags"), [("aioli", []), ("doge", DOGE)])
def test_only_training_counts_in_the_load_of_experts(tmp_path, stores, method, flags):
    """After each step, with its evaluations (aioli) or passes for gradients (doge), no token is counted."""
    flags = [*EXPERTS, *SHORT, "--mixing.method", method, *flags]
    train(tmp_path, stores, 2, *flags, module="tests.ranks.trainers.router_loads")
    found = json.loads((tmp_path / "router_loads.json").read_text())
    assert [counted for counted, _ in found] == [0.0] * 3
    assert all(bias > 0 for _, bias in found)  # training did balance
