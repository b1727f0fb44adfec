"""What evaluations cost, by hand."""

import pytest

from titan_aioli.measure.budget import affordable_sequences, evaluations_of_a_round, relative_overhead
from titan_aioli.methods import build_method

AIOLI = build_method("aioli", 2, num_sweeps=1, steps_per_mixture=5, steps_per_round=100)


def test_a_round_of_aioli_evaluates_after_each_mixture_and_at_its_end():
    assert evaluations_of_a_round(AIOLI, 2) == (2 + 1, 100)
    prior = build_method("aioli", 2, num_sweeps=3, steps_per_mixture=5, prior=[1, 2], prior_steps=500)
    assert evaluations_of_a_round(prior, 2) == (6 + 1, 8 * 30)
    skill_it = build_method("skill_it", 2, steps_per_round=60, steps_per_evaluation=20)
    assert evaluations_of_a_round(skill_it, 2) == (3, 60)


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
