"""MixMin against the minimum that a general solver finds, and against corners known by hand."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from titan_aioli.laws.mixmin import (
    Likelihoods,
    ensemble_losses,
    mixmin,
    plan_by_mixmin,
    read_likelihoods,
    write_likelihoods,
)
from titan_aioli.laws.table import RunTable


def draw(seed, sizes=(40,), num_groups=3, spread=2.0, tokens=(1, 6)):
    """Sequences of a few tokens whose likelihoods differ between the models."""
    rng = np.random.default_rng(seed)
    num_tokens = [rng.integers(*tokens, n).astype(float) for n in sizes]
    values = [
        -n[:, None] * rng.uniform(1, 1 + spread, (len(n), num_groups)) - rng.uniform(0, 1, num_groups)
        for n in num_tokens
    ]
    groups, targets = [f"g{i}" for i in range(num_groups)], [f"t{k}" for k in range(len(sizes))]
    return Likelihoods(groups, targets, values, num_tokens)


def loss(p, likelihoods, weights):
    """sum_k w_k mean_x of -log(sum_i p_i P_i(x)) / tokens of x, with plain loops."""
    total = 0.0
    for weight, values, tokens in zip(
        weights, likelihoods.log_likelihoods, likelihoods.num_tokens, strict=True
    ):
        terms = [-np.log(sum(p * np.exp(x))) / n for x, n in zip(values, tokens, strict=True)]
        total += weight * np.mean(terms) / sum(weights)
    return total


@pytest.mark.parametrize("length", [64, 2048, 20_000])
def test_sequences_of_any_length_have_the_best_model_win(length):
    """The longer the sequences, the less a share changes the loss per token; the minimum stays a corner."""
    values = -length * np.tile([3.0, 3.1, 3.1], (10, 1))
    p = mixmin(Likelihoods(["a", "b", "c"], ["t"], [values], [np.full(10, float(length))]))
    np.testing.assert_allclose(p, [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("caps", [None, np.array([1.0, 0.3, 0.25])])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 4.0]])
def test_the_end_is_the_minimum(weights, caps):
    likelihoods = draw(5, sizes=(60, 30))
    found = minimize(
        loss,
        np.full(3, 1 / 3),
        (likelihoods, weights),
        method="SLSQP",
        bounds=[(1e-12, 1 if caps is None else cap) for cap in (np.ones(3) if caps is None else caps)],
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    p = mixmin(likelihoods, np.array(weights), caps)
    np.testing.assert_allclose(p, found.x, atol=1e-3)
    assert loss(p, likelihoods, weights) <= loss(found.x, likelihoods, weights) + 1e-6
    assert caps is None or (p <= caps + 1e-12).all()


def test_it_stops_once_no_mixture_is_better_by_more_than_the_tolerance(monkeypatch):
    likelihoods = draw(5, tokens=(4, 5))  # all of 4 tokens
    best, losses = loss(mixmin(likelihoods), likelihoods, [1]), []
    for tolerance in (1e-1, 1e-2, 1e-3):
        monkeypatch.setattr("titan_aioli.laws.mixmin.TOLERANCE", tolerance)
        losses.append(loss(mixmin(likelihoods), likelihoods, [1]))
        assert losses[-1] - best < tolerance / 4
    assert losses[0] > losses[1] > losses[2] > best


def test_a_target_that_does_not_count_cannot_spoil_the_plan():
    """Its sequences have likelihood 0 in floats under the only model that gets a share."""
    one, other = np.tile([-1.0, -1e6], (5, 1)), np.tile([-1e6, -1.0], (5, 1))
    likelihoods = Likelihoods(["a", "b"], ["s", "t"], [one, other], [np.ones(5)] * 2)
    np.testing.assert_array_equal(mixmin(likelihoods, np.array([1.0, 0.0])), [1, 0])


def test_likelihoods_too_small_for_floats_are_no_trouble():
    likelihoods = draw(1, spread=3.0, tokens=(2000, 4000))
    p = mixmin(likelihoods)
    assert np.isfinite(p).all() and p.sum() == pytest.approx(1)
    assert np.isfinite(ensemble_losses(p, likelihoods)).all()


def test_a_fifth_is_held_out_and_predicts(tmp_path):
    likelihoods = draw(2, sizes=(20, 3))
    kept, held = likelihoods.part(held_out=False), likelihoods.part(held_out=True)
    assert [len(n) for n in kept.num_tokens] == [16, 3] and [len(n) for n in held.num_tokens] == [4, 0]
    table = RunTable(likelihoods.groups, np.eye(3), likelihoods.targets, np.ones((3, 2)), "digest")
    made = plan_by_mixmin(table, likelihoods, np.array([1.0, 0.0])).plan
    np.testing.assert_array_equal(made.proportions, mixmin(kept, np.array([1.0, 0.0])))
    assert made.predicted_losses[0] == pytest.approx(
        loss(
            made.proportions,
            held._replace(log_likelihoods=held.log_likelihoods[:1], num_tokens=held.num_tokens[:1]),
            [1],
        )
    )
    assert np.isnan(made.predicted_losses[1])
    with pytest.raises(ValueError, match=r"the table has the groups \['x'"):
        plan_by_mixmin(table._replace(groups=["x", "y", "z"]), likelihoods)
    write_likelihoods(tmp_path / "likelihoods.json", likelihoods)
    again = read_likelihoods(tmp_path / "likelihoods.json")
    assert again.groups == likelihoods.groups and again.targets == likelihoods.targets
    for one, other in zip(again.log_likelihoods, likelihoods.log_likelihoods, strict=True):
        np.testing.assert_array_equal(one, other)


def test_files_that_hold_no_likelihoods_are_refused(tmp_path):
    path = tmp_path / "likelihoods.json"
    with pytest.raises(ValueError, match="sweep --single-groups` writes: run it first"):
        read_likelihoods(path)
    bad = {"groups": ["a"], "targets": {"t": {"log_likelihoods": [[float("inf")]], "num_tokens": [1]}}}
    path.write_text(json.dumps(bad))
    with pytest.raises(ValueError, match="holds no likelihoods of single groups"):
        read_likelihoods(path)
