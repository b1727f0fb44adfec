"""The world in which data run out, and what a sweep learns in it of a longer run."""

from dataclasses import replace

import numpy as np
import pytest

from scripts.for_tokens_worlds import RunLaw, mixtures
from titan_aioli.cli import main
from titan_aioli.commands.simulate.repetition import TAU, RepetitionWorld

HALF = np.array([0.5, 0.5, 0.0])


@pytest.fixture
def world():
    return RepetitionWorld(3, 1000, seed=1, num_targets=2)


def test_training_in_two_phases_is_training_in_one(world):
    twice = world.train(world.train(world.start, HALF, 0, 40), HALF, 40, 50)
    np.testing.assert_allclose(twice, world.train(world.start, HALF, 0, 90))


def test_present_A_is_the_slope_of_the_losses(world):
    model = world.train(world.start, HALF, 0, 500)
    drop = world.losses(model) - world.losses(world.train(model, 1e-4 * HALF, 500, 1))
    np.testing.assert_allclose(world.present_A(model, 500) @ HALF, 1e4 * drop, rtol=1e-3)


def test_a_group_read_many_times_is_worth_no_more_than_tau_times_its_size(world):
    alone, j = np.eye(3)[0], 0
    losses = world.losses(world.train(world.start, alone, 0, 10**9))
    few = world.losses(np.array([TAU * world.sizes[j], 0, 0]))
    endless = replace(world, data_steps=10**12)
    np.testing.assert_allclose(losses, endless.losses(np.array([TAU * world.sizes[j], 0, 0])))
    assert (losses < few).all()  # that many tokens, read in part again


def test_a_shorter_run_has_smaller_groups_unless_it_is_told_the_longer_one(world):
    short = replace(world, num_steps=100)
    np.testing.assert_allclose(short.sizes, world.sizes / 10)
    np.testing.assert_allclose(replace(short, data_steps=1000).sizes, world.sizes)


def test_the_law_of_a_run_has_the_slope_of_its_losses(world):
    law, p = RunLaw(world), np.array([0.5, 0.3, 0.2])
    moved = p + 1e-6 * np.eye(3)
    slopes = (law.predict(moved) - law.predict(p)).mean(axis=1) / 1e-6
    np.testing.assert_allclose(law.gradient(p, np.array([0.5, 0.5])), slopes, rtol=1e-3)


def test_a_world_has_every_mixture_and_none_is_better_than_the_best():
    world = RepetitionWorld(5, 4000, seed=0, num_targets=1)
    found = dict(mixtures(world, ratio=16, noise=0.0))
    losses = {name: RunLaw(world).predict(p).mean() for name, p in found.items()}
    assert min(losses, key=lambda name: losses[name]) == "best"
    assert {"with --for-tokens", "without --for-tokens", "stratified"} <= set(found)


def test_the_command_runs_methods_in_it(tmp_path, capfd):
    main(["simulate", "stratified", "aioli", "--law", "repetition", "--output", str(tmp_path / "f.png")])
    assert "repetition law" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        main(["simulate", "stratified", "--law", "repetition", "--groups", "3000"])
    assert "takes at most 2000" in capfd.readouterr().err
