"""aioli_gradients: it finds the best mixture, stops there, and stays at its anchor without evidence."""

import numpy as np
import pytest

from titan_aioli.methods import build_method

NUM_STEPS = 1000


def run(method, alignment, num_groups, seed=0, noise=0.0):
    """Proportions during each phase of a run whose observations are `alignment(p)` and normal noise."""
    rng, state, step, proportions = np.random.default_rng(seed), method.init(num_groups), 0, []
    while step < NUM_STEPS:
        phase = method.phase(state)
        proportions.append(phase.proportions)
        step += phase.num_steps
        observed = alignment(phase.proportions) + noise * rng.standard_normal(num_groups)
        state = method.update(state, observed)
    return np.array(proportions)


def returns(best, curvature=0.5):
    """The law: the value of a group falls as its share grows, and at the best mixture all are equal."""
    return lambda p: (np.array(best) / p) ** curvature


def build(num_groups, **settings):
    return build_method("aioli_gradients", num_groups, num_steps=NUM_STEPS, **settings)


def test_a_run_has_ten_measurements_the_first_three_soon_one_after_the_other():
    method, state, lengths = build(2), build(2).init(2), []
    for _ in range(11):
        lengths.append(method.phase(state).num_steps)
        state = method.update(state, np.ones(2))
    assert lengths == [100, 14, 14, *[112] * 8]
    assert sum(lengths[:10]) <= NUM_STEPS < sum(lengths)


@pytest.mark.parametrize("best", [[0.5, 0.4, 0.1], [0.94, 0.03, 0.03], [0.1, 0.1, 0.8]])
def test_it_goes_to_the_best_mixture_and_stops_there(best):
    proportions = run(build(3, misfit=0.05), returns(best), 3, noise=0.1)
    np.testing.assert_allclose(proportions[-1], best, atol=0.06)
    assert np.abs(np.diff(proportions[-3:], axis=0)).max() < 0.02


def test_what_the_law_may_be_wrong_by_is_kept_from_the_anchor():
    """D by hand: the mean of (0.5, -0.1, -0.4)^2, relative to the anchor, over 0.2^2; c is 2 for 3 groups."""
    values, anchor = np.array([0.5, 0.3, 0.2]), np.full(3, 1 / 3)
    best = values**2 / (values**2).sum()
    trust = 1 - (2 * 0.2**2 / np.mean([0.5**2, 0.1**2, 0.4**2])) ** 2
    moved = run(build(3, rate=1.0), returns(best), 3)
    np.testing.assert_allclose(moved[-1], anchor + trust * (best - anchor), atol=1e-9)


def test_a_group_that_harms_is_left_its_least_share():
    proportions = run(build(3), lambda p: np.array([0.6, 0.4, -0.5]) / p**0.5, 3)
    assert proportions[-1, 2] == pytest.approx(0.1 / 3, abs=0.02)
    assert run(build(3, least_share=0.2), lambda p: np.array([1.0, 0.0, 0.0]) / p, 3)[-1].min() >= 0.2 - 1e-12


@pytest.mark.parametrize("alignment", [returns([0.25] * 4), lambda p: np.zeros(4)], ids=["even", "nothing"])
def test_without_evidence_it_stays_at_its_anchor(alignment):
    """In 19 of 20 runs within 0.02 of it, and on the mean; with noise as large as what is observed."""
    farthest = [np.abs(run(build(4), alignment, 4, seed, noise=1.0) - 0.25).max() for seed in range(100)]
    assert np.mean(farthest) < 0.02
    assert np.mean(np.array(farthest) > 0.02) <= 0.06


def test_a_small_group_gets_what_is_worth_as_much_at_the_end_of_the_run():
    """The first group is worth most, and a run on it alone would read it 40 times."""
    values, epochs_of_all = np.array([0.6, 0.25, 0.15]), np.array([40.0, 1.5, 1.0])
    method = build(3, epochs_of_all=epochs_of_all.tolist(), tau=15.0, misfit=0.0)
    state = method.update(method.init(3), values)
    np.testing.assert_allclose(state.epochs, epochs_of_all * 0.1 / 3)  # after 100 steps on even shares
    best = method.report(state)["best"]
    read = state.epochs + 0.9 * best * epochs_of_all
    again = np.maximum(read - 1, 0) - np.maximum(state.epochs - 1, 0)
    at_the_end = values * np.exp(-again / 15) / best**0.5
    np.testing.assert_allclose(at_the_end, at_the_end[0])
    assert 1 / 3 < best[0] < 0.5  # without repetition 0.81


def test_over_a_run_a_small_group_gets_no_more_than_lasts_to_its_end():
    """Its rows are worth what the law says; at the end p is the mixture with which all are worth the same."""
    values, epochs_of_all = np.array([0.6, 0.25, 0.15]), np.array([80.0, 1.5, 1.0])
    method = build(3, epochs_of_all=epochs_of_all.tolist(), tau=15.0, misfit=0.0)
    state, read, shares = method.init(3), np.zeros(3), []
    for _ in range(10):
        phase = method.phase(state)
        read += phase.num_steps / NUM_STEPS * phase.proportions * epochs_of_all
        shares.append(phase.proportions[0])
        worth = values * np.exp(-np.maximum(read - 1, 0) / 15)
        state = method.update(state, worth / phase.proportions**0.5)
    np.testing.assert_allclose(state.epochs, read)
    endless = run(build(3, misfit=0.0), lambda p: values / p**0.5, 3)
    assert read[0] < 25 and max(shares) < 0.45
    assert 80 * endless[:, 0].mean() > 45


def test_small_differences_are_not_acted_on_however_sure_they_are():
    best = [0.35, 0.28, 0.2, 0.17]
    np.testing.assert_array_equal(run(build(4), returns(best), 4)[-1], [0.25] * 4)
    moved = run(build(4, misfit=0.05), returns(best), 4)[-1]
    np.testing.assert_allclose(moved, best, atol=0.02)


def test_it_starts_from_its_anchor_and_leaves_it_for_what_is_better():
    method = build(3, anchor=[3.0, 1.0, 0.0])
    proportions = run(method, returns([0.05, 0.15, 0.8]), 3)
    np.testing.assert_allclose(proportions[0], [0.725, 0.2417, 0.0333], atol=1e-3)
    np.testing.assert_allclose(proportions[-1], [0.05, 0.15, 0.8], atol=0.08)
    stays = run(method, returns([0.725, 0.242, 0.033]), 3, noise=0.1)
    np.testing.assert_allclose(stays[-1], proportions[0], atol=0.02)


def test_the_unit_of_what_is_observed_does_not_matter():
    small, large = (
        run(build(3), lambda p, unit=unit: unit * returns([0.7, 0.2, 0.1])(p), 3) for unit in (1e-12, 1e12)
    )
    np.testing.assert_allclose(small, large, rtol=1e-9)


def test_where_no_group_helps_it_returns_to_its_anchor():
    method, state = build(2), build(2).init(2)
    for _ in range(4):
        state = method.update(state, np.array([3.0, 1.0]))
    assert state.proportions[0] > 0.6
    for _ in range(8):
        state = method.update(state, np.array([-30.0, -30.0]))
    np.testing.assert_allclose(state.proportions, [0.5, 0.5], atol=0.01)


def test_what_it_found_stays_where_alignments_fade_into_noise():
    """Alignments fall to a fiftieth, their noise stays; on the median of 20 runs within 0.065 of the best."""
    best, method, farthest = np.array([0.5, 0.4, 0.05, 0.05]), build(4), []
    for seed in range(20):
        state, rng = method.init(4), np.random.default_rng(seed)
        for level in np.geomspace(1.0, 0.02, 12):
            p = method.phase(state).proportions
            state = method.update(state, (level * best**0.5 + 0.01 * rng.standard_normal(4)) / p**0.5)
        farthest.append(np.abs(method.phase(state).proportions - best).max())
    assert np.median(farthest) < 0.065
    assert max(farthest) < 0.2


def test_it_follows_a_best_mixture_that_changes():
    method = build(3)
    state = method.init(3)
    for best in [[0.8, 0.15, 0.05]] * 5 + [[0.05, 0.15, 0.8]] * 10:
        state = method.update(state, returns(best)(method.phase(state).proportions))
    assert method.phase(state).proportions.argmax() == 2


def test_what_is_not_finite_or_too_large_is_left_out():
    method = build(2)
    state = method.update(method.update(method.init(2), np.array([2.0, 1.0])), np.array([2.2, 1.0]))
    for bad in ([np.inf, 1.0], [np.nan, 1.0], [1e300, -1e300]):
        following = method.update(state, np.array(bad))
        assert following.round == 3 and following.skipped.any()
        np.testing.assert_array_equal(following.proportions, state.proportions)
        assert "stay as they are" in method.report(following)["note"]


def test_numbers_of_any_size_are_not_squared_beyond_what_a_number_holds():
    method, large_then_tiny = build(4, misfit=0.0), [[-1e99, 1e-159, 1e-159, 1e-159], [-1e99, 1, 1e-80, 0]]
    state = method.init(4)
    for seen in [np.zeros(4), *map(np.array, large_then_tiny)] * 2:
        state = method.update(state, seen)
        np.testing.assert_allclose(method.phase(state).proportions, 0.25)


def test_with_the_least_memory_the_noise_is_still_known():
    method = build(3, memory=1.0)
    assert run(method, returns([0.8, 0.1, 0.1]), 3, noise=0.05)[-1, 0] > 0.7


def test_its_report_says_what_it_found_and_how_sure_it_is():
    method = build(2)
    state = method.update(method.init(2), np.array([3.0, 1.0]))
    first = method.report(state)
    np.testing.assert_allclose(first["best"], [0.9, 0.1])  # 3^2 to 1
    assert np.isinf(first["best_stderr"]) and first["trust"] == 0
    second = method.report(method.update(state, np.array([3.2, 0.8])))
    # two measurements whose weights are exp(-1/3) and 1, by hand
    kept, u = np.exp(-1 / 3), 0.5**0.5 * np.array([3.2, 0.8])
    mean = (0.5**0.5 * np.array([3.0, 1.0]) * kept + u) / (1 + kept)
    np.testing.assert_allclose(second["best"], mean**2 / (mean**2).sum())
    number = (1 + kept) ** 2 / (1 + kept**2)
    across = (u @ np.array([-1.0, 3.0])) ** 2 / 10  # of u, squared, at right angles to the first measurement
    variance = across * kept / (1 + kept) ** 2 / (number - 1)
    values = mean / mean.sum()
    error = np.sqrt(variance * (1 + values @ values)) / mean.sum()
    assert second["best_stderr"] == pytest.approx(error / 0.5)


@pytest.mark.parametrize("curvature", [0.5, 0.8, 1.0])
def test_its_speed_is_what_a_step_takes_off_in_that_of_one_on_the_anchor(curvature):
    """The integral of a_j over p_j from the anchor on, in small steps; and close to it sum_j p_j a_j."""
    method, best = build(3, curvature=curvature, misfit=0.0, rate=0.5), np.array([0.6, 0.3, 0.1])
    state = method.init(3)
    for _ in range(4):
        state = method.update(state, returns(best, curvature)(method.phase(state).proportions))
    path = np.linspace(np.full(3, 1 / 3), state.proportions, 20001)
    middle = (path[1:] + path[:-1]) / 2
    taken_off = ((best / middle) ** curvature * np.diff(path, axis=0)).sum()
    at_anchor = ((3 * best) ** curvature / 3).sum()
    speed, error = method.report(state)["speed"]
    assert speed == pytest.approx(1 + taken_off / at_anchor, rel=1e-6) and speed > 1.1
    assert error == pytest.approx(0.0, abs=1e-6)


def test_its_gain_is_the_speed_of_every_step_added_up():
    """Where the law holds without noise the speed of a phase is known, and so are the steps it gained."""
    method, best = build(3, misfit=0.0, rate=0.5), np.array([0.6, 0.3, 0.1])
    state, gained, anchor = method.init(3), 0.0, np.full(3, 1 / 3)
    for _ in range(6):
        phase = method.phase(state)
        change = 2 * (phase.proportions**0.5 - anchor**0.5)
        gained += phase.num_steps * (best**0.5 @ change) / (best**0.5 @ anchor**0.5)
        state = method.update(state, returns(best)(phase.proportions))
    gain, error = method.report(state)["gain_steps"]
    assert gain == pytest.approx(gained, rel=1e-6) and gain > 20
    assert error == pytest.approx(0.0, abs=1e-3)


def test_a_phase_that_shows_nothing_counts_by_what_was_known():
    method, alignment = build(2, misfit=0.0), returns([0.8, 0.2])
    state = method.init(2)
    for _ in range(4):
        state = method.update(state, alignment(state.proportions))
    speed = method.report(state)["speed"][0]
    following = method.update(state, np.full(2, np.nan))
    steps = method.phase(state).num_steps
    gained = method.report(following)["gain_steps"][0] - state.gain_steps[0]
    assert gained == pytest.approx(steps * (speed - 1)) and gained > 5


def test_without_a_measurement_that_tells_its_error_nothing_is_gained():
    method = build(2)
    state = method.update(method.init(2), np.full(2, np.nan))
    assert not state.gain_steps.any() and "gain_steps" not in method.report(state)
    state = method.update(state, np.array([3.0, 1.0]))
    assert not state.gain_steps.any() and "gain_steps" not in method.report(state)


def test_the_error_of_its_speed_is_that_of_what_it_observes():
    """Over many noisy measurements of the same the speed is off by its error, on the mean."""
    method, off, errors = build(4, misfit=0.0), [], []
    for seed in range(200):
        state, rng = method.init(4), np.random.default_rng(seed)
        for _ in range(8):
            observed = returns([0.6, 0.3, 0.05, 0.05])(state.proportions)
            state = method.update(state, observed + 0.1 * rng.standard_normal(4))
        values, error = method._values(state)
        exact = np.array([0.6, 0.3, 0.05, 0.05]) ** 0.5
        speed = method._speed(state.proportions, values, error)
        off.append(speed[0] - method._speed(state.proportions, exact / exact.sum(), 0.0)[0])
        errors.append(speed[1])
    assert np.std(off) == pytest.approx(np.mean(errors), rel=0.35)


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        ([[3.0, 1.0]], "one measurement does not tell its own error"),
        ([[-3.0, -1.0], [-1.0, 0.0]], "no group helps"),
        ([[1.5, 1.0], [1.0, 1.5], [1.4, 0.9]], "the groups differ by no more than the measurements' error"),
        ([[1.1, 1.0], [1.1, 1.0], [1.1, 1.0]], "the groups differ by no more than the law may be wrong by"),
        ([[9.0, 1.0], [9.0, 1.0], [9.0, 1.0]], None),
    ],
)
def test_its_report_says_why_it_stays_at_its_anchor(observed, why):
    method, state = build(2), build(2).init(2)
    for seen in observed:
        state = method.update(state, np.array(seen))
    assert method.report(state).get("stays") == why
    assert (state.proportions[0] == pytest.approx(0.5)) == (why is not None)


def test_its_outlook_says_when_it_measures_and_what_it_acts_on():
    said = build(4).outlook(4)
    assert said["measures"] == "10 times, after 100, 114, 128, 240, 352, ... steps"
    method = build(4)
    smallest = method.smallest_seen(4, 10, 0.0)
    assert smallest == pytest.approx(0.2 * np.sqrt(1 + np.sqrt(2 / 3)))
    assert f"{smallest:.0%}, or by {method.smallest_seen(4, 10, 1.0):.0%} where" in said["can see"]
    for difference in (0.9 * smallest, 1.1 * smallest):  # without noise that is where it begins to move
        values = 1 + difference * np.array([1.0, -1.0, 1.0, -1.0])
        moved = run(method, returns((values / values.sum()) ** 2), 4)[-1]
        assert (np.abs(moved - 0.25).max() > 1e-6) == (difference > smallest)
    assert build(1).outlook(1).keys() == {"measures"}


def test_with_noise_it_acts_on_the_difference_of_its_outlook_in_many_runs_and_on_half_of_it_in_few():
    """At the even anchor the mean value is 1, and so is the noise of one measurement."""
    method, moved = build(8), {}
    for share in (0.5, 1.0, 1.5):
        values = 1 + share * method.smallest_seen(8, 10, 1.0) * np.tile([1.0, -1.0], 4)
        ends = [run(method, lambda p, v=values: v / (8 * p) ** 0.5, 8, seed, 1.0)[-1] for seed in range(60)]
        moved[share] = np.mean([np.abs(end - 1 / 8).max() > 0.01 for end in ends])
    assert moved[0.5] < 0.2 and 0.3 < moved[1.0] < 0.95 and moved[1.5] > 0.9


def test_what_all_groups_change_by_together_is_no_noise():
    method, state = build(3), build(3).init(3)
    for scale in (9.0, 3.0, 1.0, 4.0):
        state = method.update(state, scale * returns([0.6, 0.3, 0.1])(state.proportions))
    assert method.report(state)["best_stderr"] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.0}, "aioli_gradients.start is 1.0"),
        ({"rate": 0.0}, "aioli_gradients.rate is 0.0"),
        ({"steps_per_update": 0}, "aioli_gradients.steps_per_update is 0"),
        ({"curvature": 0.0}, "aioli_gradients.curvature is 0.0"),
        ({"curvature": 1.5}, "aioli_gradients.curvature is 1.5"),
        ({"misfit": -0.1}, "aioli_gradients.misfit is -0.1"),
        ({"memory": 0.6}, "aioli_gradients.memory is 0.6: with less than 1 update the noise"),
        ({"least_share": 0.6}, "aioli_gradients.least_share is 0.6"),
        ({"tau": 0.0}, "aioli_gradients.tau is 0.0"),
        ({"epochs_of_all": [1.0]}, "aioli_gradients.epochs_of_all has 1 numbers"),
        ({"anchor": [1.0, 2.0, 3.0]}, "aioli_gradients.anchor"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(2, **settings)
