"""Guards: each one's numbers by hand, and that a guarded method stays a method."""

import re

import numpy as np
import pytest

from titan_aioli.methods import Guarded, build_method


def after(guarded, losses, num_updates=1):
    """Proportions after each of the updates, all with the same losses."""
    state, seen = guarded.init(len(losses)), []
    for _ in range(num_updates):
        state = guarded.update(state, np.array(losses, dtype=float))
        seen.append(state.proportions)
    return np.array(seen)


def skill_it(num_groups, eta=1.0):
    """Moves to softmax(eta * losses) at every update: a method whose wish is known."""
    return build_method("skill_it", num_groups, eta=eta, window=1, steps_per_round=1)


def test_off_by_default():
    plain, guarded = skill_it(3), Guarded(skill_it(3))
    np.testing.assert_array_equal(after(guarded, [1, 2, 9]), after(plain, [1, 2, 9]))


def test_least_share_is_kept_and_the_rest_stays_in_proportion():
    # wish exp(0) : exp(log 2) : exp(log 97) = 0.01 : 0.02 : 0.97; the first two are lifted to 0.1
    guarded = Guarded(skill_it(3), min_share=0.1)
    np.testing.assert_allclose(after(guarded, np.log([1, 2, 97]))[0], [0.1, 0.1, 0.8], atol=1e-12)


def test_largest_shares_are_kept_and_what_is_left_goes_to_the_others_in_proportion():
    # wish 0.6 : 0.3 : 0.1; the first is held at 0.2, the others share 0.8 as 3 : 1
    guarded = Guarded(skill_it(3), max_share=[0.2, 1.0, 1.0])
    np.testing.assert_allclose(after(guarded, np.log([6, 3, 1]))[0], [0.2, 0.6, 0.2], atol=1e-12)
    np.testing.assert_allclose(guarded.init(3).proportions, [0.2, 0.4, 0.4], atol=1e-12)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_share": [0.5, 0.4]}, "no mixture is within the bounds: least sums to 0.0, most to 0.9"),
        ({"max_share": [0.1, 1.0], "min_share": 0.2}, "guards.min_share is 0.2: above the largest share"),
        ({"max_share": [1.0]}, "guards.max_share has 1 numbers for 2 groups"),
    ],
)
def test_largest_shares_that_cannot_be_kept_are_refused(bounds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Guarded(skill_it(2), **bounds).check(2)


def test_largest_change_walks_in_a_straight_line():
    # from (1/2, 1/2) towards (0.9, 0.1) by at most 0.1 at a time
    steps = after(Guarded(skill_it(2), max_change=0.1), np.log([9, 1]), num_updates=6)
    np.testing.assert_allclose(steps[:, 0], [0.6, 0.7, 0.8, 0.9, 0.9, 0.9], atol=1e-12)


def test_anchor_is_a_geometric_mean_with_the_prior():
    # wish (0.9, 0.1), anchor (0.5, 0.5), strength 1/2: sqrt(9) : sqrt(1)
    np.testing.assert_allclose(
        after(Guarded(skill_it(2), anchor_strength=0.5), np.log([9, 1]))[0], [0.75, 0.25]
    )
    pinned = Guarded(skill_it(2), anchor=[1, 3], anchor_strength=1.0)
    np.testing.assert_allclose(after(pinned, np.log([9, 1]))[0], [0.25, 0.75])


def test_guards_shape_the_first_proportions_too():
    method = Guarded(build_method("static", 2, proportions=[1, 0]), min_share=0.2)
    np.testing.assert_allclose(method.phase(method.init(2)).proportions, [0.8, 0.2], atol=1e-12)


def test_aioli_still_sees_its_perturbed_mixtures_and_the_anchor_acts_once_a_round():
    bare = build_method("aioli", 2, num_sweeps=1, one_hot_factor=1.0, eta=4.0)
    guarded = Guarded(bare, anchor_strength=0.5)
    seen = {}
    for method in (bare, guarded):
        state, losses = method.init(2), np.array([4.0, 4.0])
        for _ in range(4):  # measure, two segments, train
            phase = method.phase(state)
            seen.setdefault((method, phase.name), []).append(phase.proportions)
            if phase.name == "learn_params":
                losses = losses - np.array([[0.4, 0.1], [0.1, 0.2]]) @ phase.proportions
            state = method.update(state, losses)
    np.testing.assert_array_equal(seen[guarded, "learn_params"], seen[bare, "learn_params"])
    wish = np.sqrt(seen[bare, "train"][0])
    np.testing.assert_allclose(seen[guarded, "train"][0], wish / wish.sum())


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        ({"min_share": 0.6}, "guards.min_share is 0.6: a least share must be .* at most 0.5"),
        ({"max_change": 0.0}, "guards.max_change is 0.0"),
        ({"anchor_strength": 1.5}, "guards.anchor_strength is 1.5"),
        ({"anchor": [0, 1]}, "needs every weight above 0"),
        ({"anchor": [1, 1, 1]}, "guards.anchor has 3 numbers for 2 groups"),
    ],
)
def test_bad_guards_are_refused_by_name(guards, message):
    with pytest.raises(ValueError, match=message):
        Guarded(skill_it(2), **guards).check(2)


def test_the_anchor_pulls_once_for_each_decision_not_at_each_observation():
    method = build_method("skill_it", 2, eta=1.0, window=1, steps_per_round=2, steps_per_evaluation=1)
    guarded = Guarded(method, anchor_strength=0.5)
    state = guarded.init(2)
    for _ in range(3):  # the second of these is a decision, the third is not
        state = guarded.update(state, np.log([9.0, 1.0]))
    np.testing.assert_allclose(state.proportions, [0.75, 0.25])


@pytest.mark.parametrize(
    ("name", "bounds"), [("doge", {"max_share": [0.5, 0.6, 0.6]}), ("doremi", {"min_share": 0.2})]
)
def test_the_mixture_that_a_method_found_keeps_the_bounds_too(name, bounds):
    guarded = Guarded(build_method(name, 3), **bounds)
    state = guarded.init(3)
    for _ in range(50):
        numbers = [4.0, 0.0, 0.0] if name == "doremi" else [[4.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
        state = guarded.update(state, np.array(numbers))
    inside, found = guarded.method.result(state), guarded.result(state)
    assert inside[0] > found[0] + 0.04 and abs(found.sum() - 1) < 1e-12
    least, most = bounds.get("min_share", 0), np.array(bounds.get("max_share", 1))
    assert (found >= least - 1e-12).all() and (found <= most + 1e-12).all()
