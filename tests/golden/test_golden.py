"""Methods and laws against numbers of the released code of the Aioli paper (tests/golden).

Aioli's own numbers are in test_aioli.py. Tolerances: float64 cases 1e-12; DoGE 1e-6, because the released
code casts gradients to float32.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.methods.helpers import drive
from titan_aioli.laws import (
    dirichlet_cover,
    fit_linear,
    fit_log_linear,
    fit_scale,
    merge_closest,
    mse,
    offset_by_correlation,
    optimal_mixture,
    r2,
    similarity,
)
from titan_aioli.methods import METHODS, build_method

GOLDEN = Path(__file__).parent


def cases(name, keep=lambda case: True):
    found = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    chosen = [case for case in found if keep(case)]
    return pytest.mark.parametrize(
        "case", chosen, ids=[case.get("name", f"case{i}") for i, case in enumerate(chosen)]
    )


def test_skill_it_before_aioli():
    """The released code trains on Skill-It's proportions first, then runs Aioli from even weights."""
    case = json.loads((GOLDEN / "aioli_skillit_prior.json").read_text())
    inputs, expected = case["inputs"], case["outputs"]
    first = build_method(
        "skill_it",
        3,
        graph=inputs["graph"],
        eta=inputs["skillit_eta"],
        window=inputs["skillit_window"],
        steps_per_round=inputs["skillit_update_steps"],
    )
    state = first.init(3)
    stages = [state.proportions]
    for losses in inputs["losses_in_skillit_stage"][:-1]:  # the last ones belong to a stage that is not run
        state = first.update(state, np.array(losses))
        stages.append(state.proportions)
    np.testing.assert_allclose(stages, expected["skillit_stage_proportions"], rtol=0, atol=1e-12)
    then = build_method(
        "aioli",
        3,
        num_sweeps=inputs["lp_rounds"],
        steps_per_mixture=inputs["lp_steps"],
        steps_per_round=inputs["update_steps"],
        one_hot_factor=inputs["one_hot_factor"],
        eta=inputs["eta"],
        orders=inputs["mixture_order"],
        prior=stages[-1].tolist(),
        prior_steps=inputs["prior_steps"],
    )
    rounds = zip(inputs["loss_at_round_start"], inputs["loss_after_segment"], strict=True)
    seen = iter([losses for start, segments in rounds for losses in (start, *segments)])
    trained = drive(then, 3, lambda phase, *_: np.array(next(seen)), num_rounds=2)
    found = [state.proportions for state in trained]
    np.testing.assert_allclose(found, expected["aioli_proportions"], rtol=0, atol=1e-12)


@cases("skillit", lambda case: case["inputs"]["window"] > 0)
def test_skill_it(case):
    inputs, expected = case["inputs"], case["outputs"]["proportions"]
    num_groups = len(inputs["skills"])
    method = build_method(
        "skill_it",
        num_groups,
        graph=inputs["graph"],
        eta=inputs["eta"],
        window=inputs["window"],
        steps_per_round=inputs["update_steps"],
        steps_per_evaluation=inputs["ckpt_steps"],
        evaluate="start",
        halve_ones=True,
    )
    state = method.init(num_groups)
    proportions = {state.round: state.proportions}
    for losses in inputs["losses_alphabetical_order_per_recorded_evaluation"]:
        state = method.update(state, np.array(losses))
        proportions[state.round] = state.proportions
    np.testing.assert_allclose([proportions[r] for r in range(len(expected))], expected, rtol=0, atol=1e-12)


@cases("skillit", lambda case: case["inputs"]["window"] <= 0)
def test_skill_it_refuses_windows_that_break_the_released_code(case):
    with pytest.raises(ValueError, match=f"skill_it.window is {case['inputs']['window']}"):
        build_method("skill_it", 2, graph=case["inputs"]["graph"], window=case["inputs"]["window"])


@cases("doremi")
def test_doremi(case):
    inputs = case["inputs"]
    method = build_method("doremi", inputs["k"], mu=inputs["mu"], smoothing=inputs["reweight_eps"])
    state = method.init(inputs["k"])
    steps = zip(inputs["domain_losses"], inputs["reference_losses"], case["outputs"]["float64"], strict=True)
    for losses, reference, expected in steps:
        excess = np.array(losses, dtype=float) - np.array(reference, dtype=float)  # None becomes nan
        state = method.update(state, excess)
        np.testing.assert_allclose(state.proportions, expected["train_dw"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.average, expected["avg_dw"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.scores, expected["perdomain_scores"], rtol=0, atol=1e-12)


@cases("doge", lambda case: not case["inputs"]["compute_full_matrix"])
def test_doge(case):
    inputs, outputs = case["inputs"], case["outputs"]
    num_groups, S = inputs["k"], len(inputs["steps"])
    method = METHODS["doge"](mu=inputs["mu"], max_score=inputs["dw_max"], max_norm=inputs["max_grad_norm"])
    state = method.init(num_groups)
    for t in range(S):
        step = inputs["steps"][t]
        g = np.array(step["domain_gradients"])
        v = np.mean(step["val_gradients"], axis=0)
        seen = np.column_stack([g @ v, np.linalg.norm(g, axis=1), np.full(num_groups, np.linalg.norm(v))])
        seen[[i for i in range(num_groups) if i not in step["present"]], :2] = np.nan
        state = dataclasses.replace(method, learning_rate=inputs["lr"][t]).update(state, seen)
        expected = outputs["float64_inputs"][t]
        np.testing.assert_allclose(state.proportions, expected["train_dw"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(state.average * (t + 1), expected["avg_dw_sum"], rtol=0, atol=1e-6)
        exact = outputs["independent_float64"][t]["train_dw"]
        np.testing.assert_allclose(state.proportions, exact, rtol=0, atol=1e-12)


@cases("dml")
def test_data_mixing_law(case):
    inputs, outputs = case["inputs"], case["outputs"]
    P, L = np.array(inputs["proportions"]), np.array(inputs["losses"])
    law = fit_log_linear(P, L)
    if "collapse" in case["name"]:  # the released fit, from a single start, stays at its start
        assert mse(L, law.predict(P)) < outputs["mse"] / 1000
    reached = outputs["independent"]
    assert mse(L, law.predict(P)) <= reached["mse"] * (1 + 1e-6) + 1e-12
    np.testing.assert_allclose(law.predict(P), reached["predictions"], rtol=0, atol=4e-7)
    p = optimal_mixture(law, inputs["k"])
    np.testing.assert_allclose(p, reached["optimal_proportions"], rtol=0, atol=1e-5)
    assert law.predict(p).mean() == pytest.approx(reached["predicted_mean_loss_at_optimum"], abs=4e-7)
    if "collapse" not in case["name"]:
        np.testing.assert_allclose(p, outputs["optimal_proportions"], rtol=0, atol=1e-5)
        assert r2(L, law.predict(P)) == pytest.approx(outputs["r2"], abs=1e-9)


def law_case(name):
    found = json.loads((GOLDEN / "law_fits.json").read_text())["cases"]
    case = next(case for case in found if case["name"] == name)
    return case["inputs"], case["outputs"]


def two_groups(inputs):
    x = np.array(inputs["x"])
    return np.column_stack([x, 1 - x]), np.array(inputs["y"])[:, None]


def assert_fit(law, P, y, outputs, params):
    """Parameters to 1e-3; mse and R2 no worse than the released float32 fit's, and near the exact ones."""
    exact = outputs["independent"]
    np.testing.assert_allclose(params, outputs["params"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(params, exact["params"], rtol=0, atol=1e-4)
    assert mse(y, law.predict(P)) == pytest.approx(exact["mse"], rel=1e-4, abs=1e-15)
    assert r2(y, law.predict(P)) == pytest.approx(exact["r2_correct_order"], rel=1e-4)


def test_dynamic_law_of_two_groups():
    inputs, outputs = law_case("dynamic_m2_noiseless")
    P, y = two_groups(inputs)
    law = fit_linear(P, y, huber_delta=inputs["delta"])
    first, second = law.theta[0]  # k p + b is b + k at p = 1 and b at p = 0
    assert_fit(law, P, y, outputs, [first - second, second])


def test_static_law_of_two_groups_with_the_offset_from_a_grid():
    inputs, outputs = law_case("static_m2_noiseless")
    P, y = two_groups(inputs)
    c = offset_by_correlation(P[:, 0], y[:, 0], inputs["grid_size"])
    assert c == pytest.approx(outputs["c"], abs=1e-12)
    law = fit_log_linear(P, y, b=np.array([c]), huber_delta=inputs["delta"])
    first, second = law.theta[0]
    assert_fit(law, P, y, {**outputs, "params": [outputs["k"], outputs["b"]]}, [first - second, second])


def test_static_law_of_three_groups():
    inputs, outputs = law_case("static_m3_noise")
    P, y = np.array(inputs["x"]), np.array(inputs["y"])[:, None]
    law = fit_log_linear(P, y, huber_delta=inputs["delta"])
    t1, t2, last = law.theta[0]
    assert_fit(law, P, y, outputs, [np.log(law.b[0]), last, t1 - last, t2 - last])


def test_dynamic_law_of_three_groups():
    inputs, outputs = law_case("dynamic_m3_reduced_noise")
    P, y = np.array(inputs["x"]), np.array(inputs["y"])[:, None]
    law = fit_linear(P, y, huber_delta=inputs["delta"])
    t1, t2, last = law.theta[0]
    assert_fit(law, P, y, outputs, [last, t1 - last, t2 - last])
    ols = fit_linear(P, y).theta[0]
    np.testing.assert_allclose(
        [ols[2], ols[0] - ols[2], ols[1] - ols[2]], outputs["independent"]["ols"], atol=1e-4
    )


def test_one_scale_for_all_groups():
    inputs, outputs = law_case("joint_scale_m3")
    table = np.array(inputs["A"]), np.array(inputs["P"]).T, np.array(inputs["Y"]).T
    assert fit_scale(*table, huber_delta=inputs["delta"]) == pytest.approx(outputs["params_b"][0], abs=1e-3)
    assert fit_scale(*table) == pytest.approx(outputs["independent"]["least_squares_b"], abs=1e-9)


@cases("law_similarity")
def test_similarity(case):
    found = similarity(np.array(case["inputs"]["A_tilde"]), np.array(case["inputs"]["A_star"]))
    outputs = case["outputs"]
    assert found.cosine == pytest.approx(outputs["cosine"], abs=1e-12)
    assert found.spearman == pytest.approx(outputs["spearman"], abs=1e-12)
    assert found.mean == pytest.approx(outputs["sim"], abs=1e-12)


@cases("dirichlet_cover")
def test_dirichlet_cover(case):
    inputs = case["inputs"]
    merged = merge_closest(np.array(inputs["dirichlet_samples"]), inputs["N"])
    np.testing.assert_allclose(merged, case["outputs"]["points"], rtol=0, atol=1e-12)
    cover = dirichlet_cover(
        inputs["k"], inputs["N"], inputs["alphas"][0], inputs["oversample_factor"], inputs["seed"]
    )
    np.testing.assert_allclose(cover, case["outputs"]["points"], rtol=0, atol=1e-12)
