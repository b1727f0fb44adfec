"""What is measured of groups and of targets, and how often."""

import numpy as np
import pytest
import torch

from titan_aioli.control.state import pack, unpack
from titan_aioli.data.targets import Targets
from titan_aioli.hosts.plain import PlainHost
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.measure.evaluate import GroupEvaluator
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.observer import Settings, ValidationObserver
from titan_aioli.testing.stores import numbered_group


@pytest.fixture
def host():
    torch.manual_seed(0)
    return PlainHost(Transformer(64, 4, dim=8, num_layers=1, heads=2), 2, torch.device("cpu"))


def test_targets_are_measured_beside_the_groups_and_a_group_only_once(host):
    groups = [numbered_group("a", 0, 5), numbered_group("b", 20, 5)]
    other = numbered_group("x", 40, 7)
    seen = []
    targets = Targets(["x", "b"], [other, groups[1]], [other, groups[1]])
    held_out = HeldOut(host, groups, groups, 4, 2, lambda *args: seen.append(args), targets)
    alone = HeldOut(host, [other, groups[1]], [], 4, 2, lambda *_: None)
    validation, of_targets = held_out.validation(3), held_out.targets(3)
    assert validation.shape == of_targets.shape == (2,) and of_targets[1] == validation[1]
    np.testing.assert_allclose(of_targets, alone.validation(3), rtol=1e-6)
    np.testing.assert_allclose(held_out.sample(3), alone.sample(3), rtol=1e-6)
    np.testing.assert_array_equal(held_out.target_test(3), of_targets)
    (call,) = seen
    assert call[0] == 3
    np.testing.assert_array_equal(call[2], of_targets)


def test_without_targets_the_groups_are_the_targets(host):
    groups = [numbered_group("a", 0, 5), numbered_group("b", 20, 5)]
    seen = []
    held_out = HeldOut(host, groups, [], 4, 4, lambda *args: seen.append(args))
    np.testing.assert_array_equal(held_out.targets(1), held_out.validation(1))
    np.testing.assert_array_equal(held_out.sample(1), held_out.validation(1))
    assert held_out.target_test(1) is None and [len(args) for args in seen] == [2]


def test_test_losses_are_measured_without_validation(host):
    groups = [numbered_group("a", 0, 5), numbered_group("b", 20, 5)]
    held_out = HeldOut(host, [], groups, 4, 4, lambda *_: None)
    assert held_out.validation(1) is None
    np.testing.assert_array_equal(held_out.test(1), HeldOut(host, groups, [], 4, 4, print).validation(1))


def test_a_method_sees_all_targets_where_the_budget_allows_all(host):
    """And the groups, which it does not see, are not measured for it."""
    groups, other = [numbered_group("a", 0, 5)], numbered_group("x", 40, 7)
    seen = []
    held_out = HeldOut(host, groups, [], 4, 4, lambda *args: seen.append(args), Targets(["x"], [other], []))
    sample = held_out.sample(1)
    assert not seen
    np.testing.assert_allclose(sample, held_out.targets(1), rtol=1e-6)


def test_the_losses_of_single_sequences_sum_to_those_of_the_targets(host):
    groups, other = [numbered_group("a", 0, 5), numbered_group("b", 20, 2)], numbered_group("x", 40, 3)
    targets = Targets(["x", "b"], [other, groups[1]], [])
    held_out = HeldOut(host, groups, [], 4, 4, lambda *_: None, targets)
    sequences = held_out.target_sequences()
    assert [rows.shape for rows in sequences] == [(3, 2), (2, 2)]
    means = [rows[:, 0].sum() / rows[:, 1].sum() for rows in sequences]
    np.testing.assert_allclose(means, held_out.targets(1), rtol=1e-12)
    assert len(set(sequences[0][:, 0])) == 3


def test_each_rank_adds_the_sequences_that_it_measured(host):
    groups = [numbered_group("a", 0, 5), numbered_group("b", 20, 4)]
    whole = GroupEvaluator(host, groups, 5).evaluate_sequences()
    parts = []
    host.num_data_ranks = 2
    for host.data_rank in (0, 1):
        parts.append(GroupEvaluator(host, groups, 5).evaluate_sequences())
    for one, *of_ranks in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(sum(of_ranks), one, rtol=1e-6)
        assert all((rows[:, 1] == 0).any() for rows in of_ranks)


def test_a_resumed_method_sees_the_held_out_sequences_that_it_saw_before(host):
    """Whatever this run's budget pays for; the log is not changed, nor a checkpoint of an earlier version."""
    groups = [numbered_group("a", 0, 9), numbered_group("b", 20, 9)]

    def observer_that_sees(num_seen):
        held_out = HeldOut(host, groups, [], 6, num_seen, lambda *_: None)
        return ValidationObserver(host, held_out, None, Settings()), held_out

    saved, _ = observer_that_sees(2)
    resumed, held_out = observer_that_sees(6)
    before = resumed.measure(0)
    resumed.restore({})
    np.testing.assert_array_equal(resumed.measure(0), before)
    resumed.restore(unpack(pack(saved.state())))
    np.testing.assert_array_equal(resumed.measure(0), saved.measure(0))
    assert (resumed.measure(0) != before).all()
    np.testing.assert_array_equal(held_out.validation(0), before)
