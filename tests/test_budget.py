"""What evaluations cost, by hand."""

import pytest

from titan_aioli.budget import affordable_sequences, count_evaluations, relative_overhead
from titan_aioli.methods import build_method

AIOLI = build_method("aioli", 2, num_sweeps=1, steps_per_mixture=5, steps_per_round=100)


def test_aioli_evaluates_at_the_start_after_each_mixture_and_after_each_round():
    assert count_evaluations(AIOLI, 2, 100) == 1 + 2 + 1
    assert count_evaluations(AIOLI, 2, 200) == 1 + 2 * 3
    assert count_evaluations(AIOLI, 2, 205) == 1 + 2 * 3 + 1  # one stretch into the third round


def test_a_method_that_does_not_evaluate_costs_nothing():
    assert count_evaluations(build_method("stratified", 2), 2, 1000) == 0
    assert affordable_sequences(1.0, build_method("odm", 2), 2, 1000, 8, largest=64) == 64


def test_the_overhead_is_that_of_the_formula():
    """T = 2 rounds of 1 + G k = 3 evaluations (the first is the run's own) of 2 x 16 sequences."""
    assert relative_overhead(6, 32, 200, 8) == pytest.approx(2 * 3 * 32 / (3 * 1600))


@pytest.mark.parametrize(("percent", "expected"), [(100.0, 64), (4.0, 13), (1e-9, 1)])
def test_the_budget_bounds_the_sequences(percent, expected):
    """7 evaluations of 2 groups; 4 % of 3 x 1600 rows are 192: 13 sequences of each group."""
    assert affordable_sequences(percent, AIOLI, 2, 200, 8, largest=64) == expected
