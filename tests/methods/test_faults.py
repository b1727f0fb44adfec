"""What is not finite is skipped: every method keeps its proportions, the controller counts and names it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.control.helpers import make_controller
from titan_aioli.control.ledger import HASHED_AGAIN, Ledger, LedgerEntry
from titan_aioli.errors import UserError
from titan_aioli.measure.losses import GroupStats
from titan_aioli.methods import Objective, build_method
from titan_aioli.methods.guards import Guarded
from titan_aioli.testing.methods import OBSERVING, short_method

GROUPS = ("web", "code", "math")


def short_controller(folder, name):
    return make_controller(folder, name, GROUPS, method=short_method(name, 3))


def observe(controller, bad=None):
    """Finish the current phase with losses of which that of group `code` may be bad; its ledger record."""
    while not controller.phase_is_over:
        controller.count_step()
    shape = (3, 3) if controller.method.observes == "gradients" else (3,)
    observation = np.linspace(1.0, 2.0, int(np.prod(shape))).reshape(shape) * (
        1 + (1 + controller.step) ** -0.5
    )
    if bad is not None:
        observation[1] = bad
    return controller.finish_phase(observation)


@pytest.mark.parametrize("name", OBSERVING)
def test_a_loss_that_is_not_finite_is_named_counted_and_forgiven(tmp_path, name):
    controller = short_controller(tmp_path, name)
    controller.begin()
    observe(controller)
    before = controller.state.proportions.copy()
    for count in (1, 2):
        note = observe(controller, np.inf)["note"]
        assert f"update skipped ({count} in a row): the " in note and "of group 'code' is not finite" in note
        np.testing.assert_array_equal(controller.state.proportions, before)
    controller.check_skipped(3)
    observe(controller)
    assert controller.skipped_updates == 0
    for _ in range(30):
        observe(controller)
    assert np.isfinite(controller.state.proportions).all()
    assert not np.array_equal(controller.state.proportions, before)


@pytest.mark.parametrize("name", OBSERVING)
def test_the_count_continues_after_a_resume_and_stops_the_run(tmp_path, name):
    controller = short_controller(tmp_path, name)
    controller.begin()
    for _ in range(2):
        observe(controller, np.inf)
    resumed = short_controller(tmp_path, name)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.digest() == controller.digest()
    observe(resumed, np.inf)
    with pytest.raises(UserError, match="3 updates of the mixture in a row were skipped, the last because"):
        resumed.check_skipped(3)


@pytest.mark.parametrize("name", ["aioli", "skill_it", "aioli_bayes"])
def test_a_target_that_is_only_watched_is_named_and_no_fault(tmp_path, name):
    method = replace(short_method(name, 3), objective=Objective(weights=[1, 0, 1]))
    controller = make_controller(tmp_path, name, GROUPS, method=Guarded(method))
    controller.begin()
    for _ in range(30):
        note = observe(controller, np.inf)["note"]
        assert note == "the held-out loss of group 'code' is not finite (only watched: no update is skipped)"
        assert controller.skipped_updates == 0
    guarded = replace(method, objective=Objective(tolerances=[None, 0.5, None]))
    controller = make_controller(tmp_path / "guard", name, GROUPS, method=guarded)
    controller.begin()
    assert "update skipped (1 in a row)" in observe(controller, np.inf)["note"]


def test_a_target_at_fault_is_named_and_is_no_group_of_a_number(tmp_path):
    method = build_method("skill_it", 2, 3, graph=np.ones((2, 3)).tolist(), steps_per_round=2)
    controller = make_controller(tmp_path, "skill_it", GROUPS[:2], method=method, targets=("x", "y", "z"))
    controller.begin()
    assert observe(controller, np.inf)["note"] == (
        "update skipped (1 in a row): the held-out loss of target 'y' is not finite; "
        "the proportions stay as they are: what was observed is not finite"
    )


@pytest.mark.parametrize("name", ["doremi", "doge", "odm", "ado"])
def test_a_group_without_tokens_is_named_and_no_fault(tmp_path, name):
    controller = short_controller(tmp_path, name)
    controller.begin()
    for _ in range(5):
        absent = [np.nan, np.nan, 1.0] if name == "doge" else np.nan
        assert "nothing is learned about: 'code'" in observe(controller, absent)["note"]
        assert controller.skipped_updates == 0 and np.isfinite(controller.proportions).all()


def test_only_a_group_without_tokens_has_loss_nan():
    stats = GroupStats(4, torch.device("cpu"), is_reporter=True)
    stats.sums_2G[:] = torch.tensor([[6.0, torch.nan, 0.0, -torch.inf], [2.0, 2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(stats.means(), [3.0, np.inf, np.nan, np.inf])
    stats.spoil(torch.tensor([0, 0]))
    np.testing.assert_array_equal(stats.means(), [np.inf, np.inf, np.nan, np.inf])


def test_a_bit_that_flips_in_memory_changes_the_ledgers_digest():
    """At once among the last entries; among older ones after they have come round."""
    size = 3 * HASHED_AGAIN
    entries = [LedgerEntry(step, step * 8, np.array([0.5, 0.5]), "train", 0) for step in range(size)]
    for flipped, grown in ((size - 1, 0), (size - HASHED_AGAIN, 0), (3, 4)):
        one, other = Ledger(entries), Ledger(entries)
        other[flipped].proportions.view(np.uint64)[0] ^= 1
        seen = []
        for step in range(size, size + grown + 1):
            seen.append(one.digest() != other.digest())
            for ledger in (one, other):
                ledger.append(entries[-1]._replace(step=step, first_row=step * 8))
        assert any(seen)
