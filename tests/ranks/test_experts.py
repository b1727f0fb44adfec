"""Mixtures of experts: measuring leaves the state of the routers alone, and ranks may share the experts."""

import json

import pytest

from titan_aioli.testing.forked import train

EXPERTS = ["--model.name", "deepseek_v3", "--model.flavor", "debugmodel"]
SHORT = ["--training.steps", "3", "--checkpoint.no-enable", "--mixing.evaluation.sequences", "4"]
DOGE = ["--mixing.doge.steps_per_update", "1", "--mixing.doge.sequences", "2"]
SHARED = ["--parallelism.expert_parallel_degree", "2"]
STAGES = [
    *("--parallelism.pipeline_parallel_degree", "2"),
    *("--parallelism.pipeline_parallel_schedule", "1F1B"),
    *("--parallelism.pipeline_parallel_microbatch_size", "2", "--training.local_batch_size", "8"),
]
TOKENS, EXPERTS_OF_A_TOKEN = 8 * 16, 3


@pytest.mark.parametrize(
    ("method", "flags", "num_data_ranks"),
    [
        ("aioli", [], 2),
        ("aioli", SHARED, 2),
        ("aioli", STAGES, 1),
        pytest.param("doge", DOGE, 2, marks=pytest.mark.slow),
    ],
)
def test_only_training_counts_in_the_load_of_experts(tmp_path, stores, method, flags, num_data_ranks):
    """Routers count the tokens of a step, none of its evaluations (aioli) or passes for gradients (doge)."""
    flags = [*EXPERTS, *SHORT, "--mixing.method", method, *flags]
    train(tmp_path, stores, 2, *flags, module="tests.ranks.trainers.router_loads")
    found = json.loads((tmp_path / "router_loads.json").read_text())
    tokens = EXPERTS_OF_A_TOKEN * TOKENS / num_data_ranks
    assert [set(counted) for counted, _, _ in found] == [{tokens}] * 3
    assert [after for _, after, _ in found] == [0.0] * 3
    assert all(bias > 0 for _, _, bias in found)  # training did balance
