"""Worlds with diminishing returns, in what was measured; methods judged in many of them."""

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.simulate.many_worlds import Trial, judge
from titan_aioli.commands.simulate.returns import ReturnsWorld
from titan_aioli.commands.simulate.run import method_for, simulate_run
from titan_aioli.methods import METHODS
from titan_aioli.proportions import pulled, uniform

EVEN = uniform(4)
SKEWED = np.array([0.4, 0.3, 0.2, 0.1])


def loss_of_static(world, proportions):
    model = world.train(world.start, proportions, 0, world.num_steps)
    return world.losses(model)[world.aimed_at].mean()


@pytest.mark.parametrize("num_targets", [1, 3])
def test_no_static_mixture_is_better_than_the_best(num_targets):
    world = ReturnsWorld(4, 1000, seed=1, num_targets=num_targets)
    best, rng = loss_of_static(world, world.best), np.random.default_rng(0)
    for _ in range(50):
        other = 0.8 * world.best + 0.2 * rng.dirichlet(np.ones(4))
        assert loss_of_static(world, other) > best


@pytest.mark.parametrize(("kind", "num_targets"), [("even", 2), ("lawless", 2), ("gap", 0)])
def test_in_controls_and_for_the_groups_nothing_beats_the_even_mixture(kind, num_targets):
    world = ReturnsWorld(4, 1000, seed=1, num_targets=num_targets, kind=kind)
    assert loss_of_static(world, SKEWED) >= loss_of_static(world, EVEN) - 1e-9


@pytest.mark.parametrize("num_targets", [1, 4])
def test_the_signal_is_what_a_pull_to_the_best_group_does_over_the_noise_of_a_drop(num_targets):
    world = ReturnsWorld(4, 100_000, noise=0.5, seed=1, num_targets=num_targets)
    peak, steps, strength = 10_000, 8, 0.4
    model = world.start._replace(step=peak)
    group = int(np.argmax(world.best))

    def loss(mixture):
        return world.losses(world.train(model, mixture, peak, steps))[world.aimed_at].mean()

    signal = loss(EVEN) - loss(pulled(EVEN, group, strength))
    at_peak = np.arange(peak, 3 * peak, steps)
    drops = np.diff([world.errors(world.aimed_at, 0, step).mean() for step in at_peak])
    found = world.signal_to_noise(strength, steps)
    assert found == pytest.approx(signal / drops.std(), rel=0.06)
    louder = ReturnsWorld(4, 100_000, noise=1.0, seed=1, num_targets=num_targets)
    assert louder.signal_to_noise(strength, steps) == pytest.approx(found / 2)


def test_training_in_two_phases_is_training_in_one():
    world = ReturnsWorld(4, 100, seed=1, num_targets=1)
    first = world.train(world.start, EVEN, 0, 10)
    once = world.train(first, SKEWED, 10, 80, EVEN)
    twice = world.train(world.train(first, SKEWED, 10, 30, EVEN), SKEWED, 40, 50, EVEN)
    np.testing.assert_allclose(twice.remembered, once.remembered, rtol=1e-12)
    assert twice.damage == pytest.approx(once.damage, rel=1e-12) and once.damage > 0
    np.testing.assert_allclose(world.losses(twice), world.losses(once), rtol=1e-12)


def test_the_mixture_is_remembered_for_60_steps_at_the_peak_learning_rate():
    world = ReturnsWorld(2, 10_000)
    alone = np.array([1.0, 0.0])
    remembered = world.train(world.start, alone, 1000, 60).remembered  # the warm-up ends at step 1,000
    assert remembered[1] == pytest.approx(0.5 / np.e, rel=1e-3)
    assert world.train(world.start, alone, 9_900, 60).remembered[1] == pytest.approx(
        0.5 * np.exp(-0.1), rel=1e-2
    )


def test_present_A_is_the_slope_of_the_losses():
    world = ReturnsWorld(4, 10_000, seed=2, num_targets=2)
    model = world.train(world.start, SKEWED, 0, 5_000)
    for group in range(4):
        mixture = pulled(model.remembered, group, 0.01)
        drop = world.losses(model) - world.losses(world.train(model, mixture, 5_000, 1))
        np.testing.assert_allclose(world.present_A(model, 5_000) @ mixture, drop, rtol=3e-3)


@pytest.mark.parametrize(("strength", "at_the_end"), [(0.4, 0.025), (0.2, 0.025 / 4)])
def test_looking_costs_what_was_measured_and_is_forgotten(strength, at_the_end):
    world = ReturnsWorld(8, 1000, kind="lawless")
    even = uniform(8)
    model = world.train(world.start, even, 0, 160)
    for number, step in enumerate(range(160, 480, 8)):
        model = world.train(model, pulled(even, number % 8, strength), step, 8, even)
    later = world.train(model, even, 480, 333)
    assert later.damage / model.damage == pytest.approx(1 / 3, abs=0.03)
    assert world.train(later, even, 813, 187).damage == pytest.approx(at_the_end, rel=1e-6)


def test_noise_is_what_was_measured():
    """Drops over 8 steps at the peak learning rate: of one target, and of the mean of eight."""
    drops = []
    for seed in range(400):
        world = ReturnsWorld(2, 400, noise=1.0, seed=seed, num_targets=8)
        rows = world.aimed_at
        drops.append(world.errors(rows, 0, 48) - world.errors(rows, 1, 40))
    drops = np.array(drops)
    assert drops.std() == pytest.approx(0.024 * np.sqrt(0.7**2 + 2 * 0.5**2), rel=0.05)
    assert drops.mean(axis=1).std() == pytest.approx(0.009, rel=0.12)


def test_noise_falls_with_the_learning_rate_and_scales():
    late, early = (
        [
            ReturnsWorld(1, 400, noise=noise, seed=seed).errors(slice(0, 1), 0, step + 8)
            - ReturnsWorld(1, 400, noise=noise, seed=seed).errors(slice(0, 1), 0, step)
            for seed in range(200)
        ]
        for step, noise in ((392, 1.0), (40, 1.0))
    )
    assert np.std(late) / np.std(early) == pytest.approx(0.1, rel=0.25)
    half, whole = (ReturnsWorld(1, 400, noise=noise).errors(slice(0, 1), 0, 100) for noise in (0.5, 1.0))
    np.testing.assert_allclose(2 * half, whole, rtol=1e-12)


@pytest.mark.parametrize("num_targets", [0, 2])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_its_steps(name, num_targets):
    if num_targets and name == "target_excess":
        pytest.skip("its targets are the groups")
    world = ReturnsWorld(3, 300, noise=1.0, num_targets=num_targets)
    trace = simulate_run(method_for(name, world, {}), world)
    assert trace.steps[-1] == trace.loss_steps[-1] == 300
    assert np.isfinite(trace.losses).all()
    np.testing.assert_allclose(trace.proportions.sum(axis=1), 1, atol=1e-9)


def test_a_method_is_told_the_length_of_the_world():
    world = ReturnsWorld(3, 512)
    assert method_for("aioli_bayes", world, {}).num_steps == 512
    assert method_for("aioli_bayes", world, {"num_steps": 64}).num_steps == 64


def test_a_large_step_finds_the_gap_without_noise_and_a_method_that_never_moves_does_not():
    trial = Trial(("aioli", "stratified"), {"aioli": {"eta": 3.0}}, 4, 1, 1000, 0.0, 0)
    outcomes = judge(trial, 4)[0.0]
    closed = outcomes["gap"].closed
    assert closed[:, 0].mean() > 0.3
    for kind in ("gap", "even", "lawless"):
        assert (outcomes[kind].losses[:, 1] == 0).all() and (outcomes[kind].distances[:, 1] == 0).all()
    np.testing.assert_allclose(outcomes["lawless"].gaps, 0, atol=1e-12)
    assert (outcomes["even"].losses[:, 0] > 0).all()


def test_several_processes_find_what_one_finds():
    trial = Trial(("aioli_bayes",), {}, 3, 1, 100, 1.0, 0)
    one, two = judge(trial, 3), judge(trial, 3, jobs=2)
    assert list(one) == list(two) == [0.25, 0.5, 1.0, 2.0]
    for noise, outcomes in one.items():
        for kind, outcome in outcomes.items():
            for here, there in zip(outcome, two[noise][kind], strict=True):
                np.testing.assert_array_equal(here, there)
    assert len(one[1.0]["gap"].gaps) == 3 and len(one[1.0]["even"].gaps) == 1


def test_the_command_prints_gap_and_harm_and_draws(tmp_path, capsys):
    figure = tmp_path / "worlds.png"
    flags = "--law returns --worlds 2 --targets 1 --groups 3 --steps 150"
    main(["simulate", "aioli", "stratified", *flags.split(), "--output", str(figure)])
    assert figure.read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "share of the gap closed; 2 worlds" in printed and "harm where there is nothing" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--worlds 2 --targets 1", "--worlds needs --law returns"),
        ("--worlds 2 --law returns --targets 0", "leave no gap to find"),
        ("--worlds -1 --law returns", "--worlds is -1"),
        ("--worlds 1 --jobs 0 --law returns", "--jobs is 0"),
        ("--law returns --groups 3000", "takes at most 2000"),
        ("--law returns --noise nan", "noise is nan"),
    ],
)
def test_bad_arguments_end_with_one_line(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "stratified", *flags.split()])
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
