"""aioli_bayes: its law against textbook Bayesian regression, and runs in worlds with and without a law."""

import numpy as np
import pytest
from scipy.stats import multivariate_t

from titan_aioli.methods import Guarded, build_method
from titan_aioli.methods.aioli_bayes import law
from titan_aioli.methods.walk import walk
from titan_aioli.testing.methods import check_method, random_walk

SCALES = np.array([0.0, 2.0, 8.0])


def drive(method, num_groups, drop, num_steps):
    """The states of a run whose objective falls by `drop(mixture, step)` in each stretch; one target."""
    losses, states = np.array([100.0]), []

    def observe(stretch):
        nonlocal losses
        if stretch.phase.num_steps:
            losses = losses - drop(stretch.phase.proportions, stretch.step)
        return losses

    for stretch in walk(method, num_groups, observe, num_steps, num_targets=1):
        states.append(stretch.state)
    return states


def test_the_filter_is_bayesian_regression(monkeypatch):
    """With a level that stays and no discount: posterior and evidence of all stretches in closed form."""
    monkeypatch.setattr(law, "LEVEL_STEP", 0.0)
    monkeypatch.setattr(law, "NOISE_DISCOUNT", 1.0)
    rng, num_groups = np.random.default_rng(0), 3
    seen = rng.normal(size=(20, num_groups))
    seen -= seen.mean(axis=1, keepdims=True)
    drops = 2.0 + seen @ [1.0, -3.0, 2.0] + 0.3 * rng.normal(size=20)
    opinions = law.first_opinions(num_groups, SCALES)
    for drop, difference in zip(drops, seen, strict=True):
        opinions, _ = law.learned(opinions, drop, difference)
    design = np.column_stack([np.ones(20), seen])
    evidence = []
    for number, scale in enumerate(SCALES):
        prior = np.diag([law.LEVEL_START**2, *[scale**2] * num_groups])
        spread = design @ prior @ design.T + np.eye(20)
        gain = prior @ design.T @ np.linalg.inv(spread)
        np.testing.assert_allclose(opinions.mean[number], gain @ drops, atol=1e-10)
        np.testing.assert_allclose(opinions.cov[number], prior - gain @ design @ prior, atol=1e-10)
        start = law.FREEDOM_START
        noise = (start + drops @ np.linalg.solve(spread, drops)) / (start + 20)
        assert opinions.noise[number] == pytest.approx(noise)
        evidence.append(multivariate_t(np.zeros(20), spread, df=start).logpdf(drops))
    np.testing.assert_allclose(opinions.log_evidence, np.array(evidence) - evidence[0], atol=1e-8)


def test_slopes_at_other_proportions_are_those_of_the_same_law():
    theta, level = np.array([0.5, 0.2, 0.3]), 0.7
    here, there = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.25, 0.35])
    opinions = law.first_opinions(3, SCALES)
    opinions.mean[:, 0], opinions.mean[:, 1:] = level, level * (theta / here - 1)
    found = law.moved(opinions, here, there)
    np.testing.assert_allclose(found.mean[1, 1:], level * (theta / there - 1))
    np.testing.assert_allclose(law.best_mixture(opinions.mean, here)[1], theta)
    np.testing.assert_allclose(law.best_mixture(found.mean, there)[1], theta)
    assert law.moved(opinions, here, here) is opinions


def test_what_a_mixture_is_worth_is_that_of_the_utility():
    theta, anchor, p = np.array([0.5, 0.2, 0.3]), np.full(3, 1 / 3), np.array([0.4, 0.25, 0.35])
    opinions = law.first_opinions(3, SCALES)
    opinions.mean[:, 0], opinions.mean[:, 1:] = 0.7, 0.7 * (theta / p - 1)
    gain, error = law.worth(opinions._replace(cov=0 * opinions.cov), np.array([0, 1, 0]), p, anchor)
    assert gain == pytest.approx(0.7 * theta @ np.log(p / anchor))
    assert error == 0
    assert law.worth(opinions, np.array([0, 1, 0]), p, anchor)[1] > 0


def drops_towards(theta, noise):
    """The drop of each stretch where that mixture is the best, of a model that remembers five stretches."""
    recent = np.full(len(theta), 1.0 / len(theta))

    def drop(mixture, step):
        nonlocal recent
        falls = 0.01 * np.sum(theta * mixture / recent)
        recent = recent + 0.2 * (mixture - recent)
        return falls + noise * np.random.default_rng(step).normal()

    return drop


def test_finds_the_best_mixture_of_its_law():
    theta = np.array([0.6, 0.3, 0.05, 0.05])
    method = build_method("aioli_bayes", 4, 1, num_steps=1000)
    found = drive(method, 4, drops_towards(theta, 1e-4), 1000)[-1]
    np.testing.assert_allclose(found.proportions, theta, atol=0.1)
    gain, error = method.report(found)["gain"]
    assert gain > 4 * error > 0


@pytest.mark.parametrize("noise", [1e-6, 1e-4, 1e-3])
def test_what_stands_far_above_the_noise_is_found_early(noise):
    """As with large batches: signals of thousands, of tens, and of a few times the noise."""
    theta = np.array([0.6, 0.3, 0.05, 0.05])
    method = build_method("aioli_bayes", 4, 1, num_steps=1024)
    states = drive(method, 4, drops_towards(theta, noise), 1024)
    assert method.report(states[len(states) // 3])["probability"] > 0.9
    np.testing.assert_allclose(states[-1].proportions, theta, atol=0.15)


@pytest.mark.parametrize("has_level", [True, False])
def test_on_noise_alone_the_proportions_stay_at_the_anchor(has_level):
    """A world without a law: at least 17 of 20 runs stay within 0.02 of it to their end."""
    distances = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        level = 0.02 if has_level else 0.0
        method = build_method("aioli_bayes", 5, 1, num_steps=640, seed=seed)
        states = drive(method, 5, lambda *_: level + 0.01 * rng.normal(), 640)  # noqa: B023
        distances.append(max(np.abs(state.proportions - 0.2).max() for state in states))
    assert np.quantile(distances, 0.85) < 0.02


def test_returns_to_the_anchor_where_the_law_changes_its_mind():
    """Only group 0 helps in the first half of the run; in the second the anchor is the best mixture."""
    method = build_method("aioli_bayes", 3, 1, num_steps=2000, memory=0.1, anchor=[0.2, 0.3, 0.5])
    anchor = np.array([0.2, 0.3, 0.5])
    recent = anchor

    def drop(mixture, step):
        nonlocal recent
        theta = np.array([1.0, 0, 0]) if step < 1000 else anchor
        falls = 0.01 * np.sum(theta * mixture / np.maximum(recent, 0.01))
        recent = recent + 0.2 * (mixture - recent)
        return falls + 1e-4 * np.random.default_rng(step).normal()

    states = drive(method, 3, drop, 2000)
    assert states[len(states) // 2].proportions[0] > 0.6
    np.testing.assert_allclose(states[-1].proportions, anchor, atol=0.1)


def test_perturbations_get_smaller_with_certainty_and_end_with_the_run():
    looking = build_method("aioli_bayes", 4, 1, num_steps=1000).stretches(4)

    def strength(stretch, share=0.25, level_over_noise=0.1, unknown=1.0):
        return looking.strength_at(stretch, share, level_over_noise, unknown)

    first = -(-100 // looking.steps)
    assert first == looking.first
    assert [strength(first - 1), strength(first)] == [0, 0.5]
    assert strength(first, share=0.25 / 4) == pytest.approx(0.25)  # costs as much: strength^2 / share
    assert strength(first, share=0.5) == 0.5
    assert strength(first, unknown=0.5) == pytest.approx(0.25)
    assert strength(first, unknown=0.0) == pytest.approx(0.5 / 3)
    assert strength(first, level_over_noise=4.0) == pytest.approx(0.25)
    assert strength(first, level_over_noise=50.0) == pytest.approx(0.1)
    assert 0 < strength(130) < 0.4
    assert strength(1000 // looking.steps + 1) == 0


@pytest.mark.parametrize(("times", "least", "most"), [(2.0, 0.8, 1.0), (0.15, 0.0, 0.25)])
def test_what_check_says_a_run_can_see_is_what_it_finds(times, least, most):
    """One group of five helps; how often is it found, where it helps by this many times the smallest?"""
    method = build_method("aioli_bayes", 5, 1, num_steps=640)
    slope = times * method.stretches(5).smallest_seen(method.prior_odds, 2.0) / method.strength
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        state = drive(method, 5, lambda q, _: 0.1 + slope * q[0] + rng.normal(), 640)[-1]  # noqa: B023
        found.append(method.report(state)["probability"] > 0.5)
    assert least <= np.mean(found) <= most


def test_with_high_prior_odds_any_signal_is_seen():
    seen = [
        build_method("aioli_bayes", 2, prior_odds=odds, num_steps=1000).outlook(2)["can see"]
        for odds in (0.1, 0.99)
    ]
    words = "a group that changes a stretch's loss drop by 0.73 times the noise of a drop (signal 0.73)"
    assert seen[0] == words
    assert "by 0 times the noise" in seen[1]


def test_a_run_has_16_stretches_for_each_group_and_at_least_128():
    assert build_method("aioli_bayes", 4, num_steps=1280).stretches(4).steps == 10
    assert build_method("aioli_bayes", 64, num_steps=102_400).stretches(64).steps == 100
    assert build_method("aioli_bayes", 64, num_steps=10).stretches(64).steps == 1


def test_nothing_is_learned_before_the_first_look_nor_from_what_is_not_finite():
    method = build_method("aioli_bayes", 3, 1, num_steps=1280)
    state = method.update(method.init(3, 1), np.array([9.0]))
    for _ in range(13):
        assert method.phase(state).name == "train"
        assert method.report(state) == {} == method.metrics(state)
        state = method.update(state, state.losses - 1.0)
    assert method.phase(state).name == "learn_params"
    before = method.update(state, state.losses - 0.1)
    after = method.update(before, np.array([np.inf]))
    np.testing.assert_array_equal(after.mean, before.mean)
    assert "not finite" in method.report(after)["note"]


def test_worst_goes_by_what_the_last_round_took_off_the_losses_at_its_start():
    method = build_method("aioli_bayes", 2, num_steps=1000, objective={"combine": "worst"})
    state = method.init(2)
    for losses in ([4.0, 2.0], [3.0, 1.9], [2.0, 1.8]):  # a round: 1/2 off the first, 1/10 off the second
        state = method.update(state, np.array(losses))
    assert state.round == 1
    np.testing.assert_allclose(state.target_memory[0], [-1 / 3, 1 / 3])  # -1/2 (r - 0.3) / 0.3
    np.testing.assert_array_equal(state.target_memory[2], [2.0, 1.8])


@pytest.mark.parametrize("first_drop", [1e-6, 0.03, 0.1])
def test_the_size_of_the_noise_is_known_before_the_first_look(first_drop):
    """Whatever the first drop that is learned from happens to be."""
    rng, first = np.random.default_rng(3), []

    def drop(mixture, step):
        is_first = step >= 128 and not first.append(step) and len(first) == 1
        return first_drop if is_first else 0.03 + 0.02 * rng.normal()

    method = build_method("aioli_bayes", 4, 1, num_steps=1280)
    states = drive(method, 4, drop, 1280)
    noise = [float(method.report(state)["noise"]) for state in states if "noise" in method.report(state)]
    assert noise[20] == pytest.approx(0.02, rel=0.5)


def test_the_largest_finite_worth_does_not_overflow():
    method = build_method("aioli_bayes", 2, 1, num_steps=200, looking=(0.0, 0.75))
    state = method.update(method.init(2, 1), np.array([9.0]))
    phase = method.phase(state._replace(worth=np.array([1e308, 1e308])))
    assert np.isfinite(phase.proportions).all()


class World:
    """A model that remembers mixtures for 28 steps, with a best mixture, a falling loss and noise."""

    def __init__(self, best, seed, noise):
        self.best, self.rng, self.noise = np.array(best), np.random.default_rng(seed), noise
        self.seen = np.full(len(best), 1.0 / len(best))

    def utility(self, mixture):
        return 0.3 * self.best @ np.log(mixture)

    def losses(self, stretch):
        kept = np.exp(-stretch.phase.num_steps / 28)
        self.seen = kept * self.seen + (1 - kept) * stretch.phase.proportions
        done = stretch.step + stretch.phase.num_steps
        return np.array([9.0 - 1e-3 * done - self.utility(self.seen) + self.noise * self.rng.normal()])


def test_a_comparison_measures_the_gain_over_the_anchor():
    """Within its standard errors, of many worlds; each half long enough, and the run as long as it was."""
    method = build_method("aioli_bayes", 3, 1, num_steps=2000, prior_odds=0.9, compare_at=(0.5, 0.7))
    errors = []
    for seed in range(20):
        world = World([0.7, 0.2, 0.1], seed, noise=0.01)
        walked = list(walk(method, 3, world.losses, 2000, num_targets=1))
        halves = [stretch for stretch in walked if stretch.num_steps >= 84]
        assert [stretch.phase.name for stretch in halves] == ["learn_params", "train"] * 2
        gained = 0.0
        for on_anchor, on_proportions in (halves[:2], halves[2:]):
            assert on_proportions.step == on_anchor.step + on_anchor.num_steps
            np.testing.assert_array_equal(on_anchor.phase.proportions, np.full(3, 1 / 3))
            gained += world.utility(on_proportions.phase.proportions) - world.utility(np.full(3, 1 / 3))
        assert on_anchor.step >= 1400 and halves[0].step >= 1000
        assert sum(stretch.num_steps for stretch in walked) == 2000
        measured, error = method.report(walked[-1].state)["measured_gain"]
        errors.append((measured - gained / 2) / error)
    assert gained / 2 > 0.05
    assert abs(np.mean(errors)) < 0.7 and np.std(errors) < 1.5


def test_in_a_comparison_too_it_keeps_the_contract():
    """A run may stop and be resumed between the two halves."""
    method = build_method(
        "aioli_bayes", 2, num_steps=1000, prior_odds=0.9, looking=(0.0, 0.75), compare_at=(0.01,)
    )
    check_method(method, 2)
    lengths = [stretch.num_steps for stretch in random_walk(method, 2, 40)]
    assert sum(length >= 84 for length in lengths) == 2


def test_nothing_is_compared_where_the_proportions_are_the_anchor_or_the_run_ends_too_soon():
    for noise, compare_at in ((10.0, (0.3,)), (0.01, (0.97,))):
        method = build_method("aioli_bayes", 3, 1, num_steps=1000, compare_at=compare_at)
        walked = list(walk(method, 3, World([0.7, 0.2, 0.1], 0, noise).losses, 1000, num_targets=1))
        assert walked[-1].state.compared == 0
        assert "measured_gain" not in method.report(walked[-1].state)


def test_a_comparison_with_losses_that_are_not_finite_is_left_out():
    method = build_method("aioli_bayes", 3, 1, num_steps=2000, prior_odds=0.9, compare_at=(0.5,))
    world, broken = World([0.7, 0.2, 0.1], 0, 0.01), 0

    def observe(stretch):
        nonlocal broken
        losses, is_half = world.losses(stretch), stretch.num_steps >= 84
        broken += is_half
        return np.array([np.nan]) if is_half and broken == 1 else losses

    states = [stretch.state for stretch in walk(method, 3, observe, 2000, num_targets=1)]
    assert states[-1].compared > 0 and np.isinf(states[-1].measured_gain[1])
    assert any("not finite" in method.report(state).get("note", "") for state in states)
    assert np.isfinite(states[-1].proportions).all() and np.isfinite(states[-1].worth).all()


def test_guarded_it_keeps_to_the_bounds_and_knows_where_it_is():
    inner = build_method("aioli_bayes", 3, 1, num_steps=1000)
    method = Guarded(inner, max_change=0.01, min_share=0.1)
    states = drive(method, 3, lambda mixture, step: 0.01 + 0.05 * mixture[0], 1000)
    shares = np.array([state.proportions for state in states])
    assert np.abs(np.diff(shares, axis=0)).max() <= 0.01 + 1e-12
    assert shares.min() >= 0.1 - 1e-12 and shares[-1, 0] > 0.4
    np.testing.assert_array_equal(states[-1].origin, shares[-2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_steps": 0}, "aioli_bayes.num_steps is 0"),
        ({"steps_per_stretch": 0}, "aioli_bayes.steps_per_stretch is 0"),
        ({"strength": 1.0}, "aioli_bayes.strength is 1.0"),
        ({"rate": 0.0}, "aioli_bayes.rate is 0.0"),
        ({"prior_odds": 1.0}, "aioli_bayes.prior_odds is 1.0"),
        ({"memory": 0.0}, "aioli_bayes.memory is 0.0"),
        ({"looking": (0.5, 0.5)}, r"aioli_bayes.looking is \[0.5, 0.5\]"),
        ({"looking": (0.5,)}, r"aioli_bayes.looking is \[0.5\]"),
        ({"compare_at": (0.5, 0.4)}, r"aioli_bayes.compare_at is \[0.5, 0.4\]"),
        ({"compare_at": (1.0,)}, r"aioli_bayes.compare_at is \[1.0\]"),
        ({"least_share": 0.6}, "aioli_bayes.least_share is 0.6"),
        ({"anchor": [1.0]}, "aioli_bayes.anchor has 1 numbers for 2 groups"),
    ],
)
def test_refuses_what_cannot_work(given, message):
    with pytest.raises(ValueError, match=message):
        build_method("aioli_bayes", 2, **given)


def test_refuses_more_groups_than_covariances_can_hold():
    with pytest.raises(ValueError, match="1001 x 1001 groups"):
        build_method("aioli_bayes", 1001)
