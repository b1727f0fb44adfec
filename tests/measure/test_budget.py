"""What evaluations cost, by hand."""

import pytest

from titan_aioli.measure.budget import (
    affordable_sequences,
    evaluations_of_a_round,
    relative_overhead,
    rows_evaluated,
)
from titan_aioli.methods import build_method

AIOLI = build_method("aioli", 2, num_sweeps=1, steps_per_mixture=5, steps_per_round=100)


def test_a_round_of_aioli_evaluates_after_each_mixture_and_at_its_end():
    assert evaluations_of_a_round(AIOLI, 2) == (2 + 1, 100)
    prior = build_method("aioli", 2, num_sweeps=3, steps_per_mixture=5, prior=[1, 2], prior_steps=500)
    assert evaluations_of_a_round(prior, 2) == (6 + 1, 8 * 30)
    skill_it = build_method("skill_it", 2, steps_per_round=60, steps_per_evaluation=20)
    assert evaluations_of_a_round(skill_it, 2) == (3, 60)


def test_an_alignment_takes_gradients_of_the_groups_and_of_as_many_held_out_rows():
    """10 measurements of 2 x 2 rows forward and backward in 912 steps of 8 rows: 40 rows of 7,296."""
    method = build_method("aioli_gradients", 2, num_steps=1000)
    steps = 100 + 2 * 14 + 7 * 112
    assert evaluations_of_a_round(method, 2, 1) == (10, steps)
    assert rows_evaluated(method, 2, 1) == 3 * 4
    per_sequence = 100 * 40 / (8 * steps)
    assert affordable_sequences(per_sequence * 5.5, method, 2, 8, largest=64, num_targets=1) == 5


def test_a_method_that_does_not_evaluate_costs_nothing():
    assert evaluations_of_a_round(build_method("stratified", 2), 2) == (0, 0)
    assert affordable_sequences(1.0, build_method("odm", 2), 2, 8, largest=64) == 64


def test_the_overhead_is_that_of_the_formula():
    """T = 2 rounds of 1 + G k = 3 evaluations (the first is the run's own) of 2 x 16 sequences."""
    assert relative_overhead(6, 32, 200, 8) == pytest.approx(2 * 3 * 32 / (3 * 1600))


@pytest.mark.parametrize(("percent", "expected"), [(0.0, 64), (100.0, 64), (4.0, 16), (1e-9, 1)])
def test_the_budget_bounds_the_sequences(percent, expected):
    """3 evaluations of 2 groups a round; 4 % of 3 x 800 rows are 96: 16 sequences of each group."""
    assert affordable_sequences(percent, AIOLI, 2, 8, largest=64) == expected
