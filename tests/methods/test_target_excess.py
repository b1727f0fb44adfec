"""Target excess on numbers worked by hand, and where its losses to reach come from."""

import json

import numpy as np
import pytest

from tests.methods.helpers import state_after
from titan_aioli.config import Mixing
from titan_aioli.config.hyperparameters import hyperparameters
from titan_aioli.errors import UserError
from titan_aioli.methods import build_method

TO_REACH = [2.0, 3.0, 1.0]
SEEN = np.array([2.5, 2.0, 1.1])  # 0.5 above, 1 below, 0.1 above


def weights_after_one_update(factors, floor):
    """By hand: uniform weights times `factors`, normalised, then mixed with uniform."""
    p = np.array(factors) / np.sum(factors)
    return (1 - floor) * p + floor / len(p)


@pytest.mark.parametrize(
    ("clip", "factors"),
    [(False, [np.exp(0.5), np.exp(-1.0), np.exp(0.1)]), (True, [np.exp(0.5), 1.0, np.exp(0.1)])],
)
def test_one_update_signed_and_clipped(clip, factors):
    method = build_method("target_excess", 3, target_losses=TO_REACH, clip=clip)
    state = method.update(method.init(3), SEEN)
    np.testing.assert_allclose(state.proportions, weights_after_one_update(factors, 1e-4), rtol=1e-14)


def test_updates_multiply_and_start_from_the_floored_proportions():
    method = build_method(
        "target_excess", 2, target_losses=[1.0, 1.0], eta=2.0, floor=0.1, prior=[3, 1], clip=False
    )
    np.testing.assert_allclose(method.phase(method.init(2)).proportions, [0.75, 0.25])
    expected = np.array([0.75, 0.25])
    for _ in range(3):
        expected = expected * np.exp(2.0 * np.array([0.5, -0.25]))
        expected = 0.9 * expected / expected.sum() + 0.1 / 2
    state = state_after(method, lambda t: np.array([1.5, 0.75]), 3, 2)
    np.testing.assert_allclose(state.proportions, expected, rtol=1e-13)


def test_groups_that_have_reached_their_losses_stay_when_clipped():
    method = build_method("target_excess", 3, target_losses=TO_REACH, prior=[5, 3, 2], floor=0.0)
    state = method.update(method.init(3), np.array(TO_REACH) - [0.0, 0.5, 1.0])
    np.testing.assert_allclose(state.proportions, [0.5, 0.3, 0.2], rtol=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eta": 0}, "target_excess.eta is 0"),
        ({"floor": 1.5}, "target_excess.floor is 1.5"),
        ({"steps_per_round": 0}, "target_excess.steps_per_round is 0"),
        ({"target_losses": [1.0]}, "target_excess.target_losses has 1 numbers for 2 groups"),
        ({"target_losses": [1.0, np.nan]}, r"target_excess.target_losses\[1\] is nan"),
        ({"prior": [1.0, -1.0]}, r"target_excess.prior\[1\] is -1"),
        ({"num_targets": 3}, "3 targets for 2 groups: the share of a group follows its own held-out loss"),
    ],
)
def test_what_cannot_work_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        build_method("target_excess", 2, **values)


def resolved(targets=(), **table):
    mixing = Mixing(method="target_excess", groups={"web": {}, "code": {}})
    kind = type(mixing.target_excess)
    mixing.target_excess = kind(**table)
    return hyperparameters(mixing, [1, 1], targets or None)


def test_losses_to_reach_are_constants_or_come_from_a_file_or_a_run(tmp_path):
    constants = {"code": 1.0, "web": 2.0}
    assert resolved(target_losses=constants)["target_losses"] == [2.0, 1.0]
    (tmp_path / "losses.json").write_text(json.dumps({**constants, "law": 9.0}))
    assert resolved(target_losses_from=str(tmp_path / "losses.json"))["target_losses"] == [2.0, 1.0]
    write_run(tmp_path / "run", {"validation_loss": [1.25, 2.5]})
    assert resolved(target_losses_from=str(tmp_path / "run"))["target_losses"] == [2.5, 1.25]
    assert resolved()["target_losses"] is None


def write_run(folder, results):
    folder.mkdir()
    record = {"step": 0, "first_row": 0, "proportions": [0.5, 0.5], "phase": "train", "round": 0}
    (folder / "mixture.json").write_text(json.dumps({"method": "static", "groups": ["code", "web"]}))
    (folder / "ledger.jsonl").write_text(json.dumps(record) + "\n")
    if results is not None:
        (folder / "results.json").write_text(json.dumps({"step": 3, **results}))


def test_losses_to_reach_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="target_losses leaves out web: give a number for every group"):
        resolved(target_losses={"code": 1.0})
    write_run(tmp_path / "run", None)
    with pytest.raises(UserError, match="no last validation losses: give a run that is finished"):
        resolved(target_losses_from=str(tmp_path / "run"))
    (tmp_path / "bad.json").write_text('{"code": "1.0", "web": 2}')
    with pytest.raises(UserError, match=r'bad.json is not a table of losses by group: write \{"GROUP"'):
        resolved(target_losses_from=str(tmp_path / "bad.json"))
    (tmp_path / "other.json").write_text('{"law": 2}')
    with pytest.raises(UserError, match=r"other.json leaves out web, code"):
        resolved(target_losses_from=str(tmp_path / "other.json"))
    with pytest.raises(UserError, match="target_losses_from are both set: leave one out"):
        resolved(target_losses={"code": 1.0}, target_losses_from="x")
    for targets in (["code", "web"], ["x", "y"], ["web"]):
        with pytest.raises(UserError, match="its targets must be web, code, in this order"):
            resolved(targets=targets)
