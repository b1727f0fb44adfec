"""Methods and laws against numbers of the released code of the Aioli paper (tests/golden).

Aioli's own numbers are in test_aioli.py. Tolerances: float64 cases 1e-12; DoGE 1e-6, because the released
code casts gradients to float32.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from titan_aioli.methods import METHODS, build_method

GOLDEN = Path(__file__).parent / "golden"


def cases(name, keep=lambda case: True):
    found = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
    chosen = [case for case in found if keep(case)]
    return pytest.mark.parametrize(
        "case", chosen, ids=[case.get("name", f"case{i}") for i, case in enumerate(chosen)]
    )


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
