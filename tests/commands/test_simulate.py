"""The synthetic world, methods in it, and the command that draws them."""

import subprocess
import sys

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.settings import parse_settings
from titan_aioli.commands.simulate.command import result_table
from titan_aioli.commands.simulate.linear import LinearWorld
from titan_aioli.commands.simulate.run import evaluation_budget, simulate_run
from titan_aioli.methods import METHODS, build_method

HALF = np.array([0.5, 0.5, 0.0])


def test_linear_world_loses_A_p_at_every_step():
    world = LinearWorld(3, 100, "linear")
    after = world.train(world.start, HALF, 0, 10)
    np.testing.assert_allclose(world.start - after, 10 * world.matrix().dense() @ HALF)


@pytest.mark.parametrize("law", ["linear", "decaying", "drifting"])
def test_training_in_two_phases_is_training_in_one(law):
    world = LinearWorld(3, 100, law, seed=1)
    once = world.train(world.start, HALF, 0, 90)
    twice = world.train(world.train(world.start, HALF, 0, 40), HALF, 40, 50)
    np.testing.assert_allclose(twice, once, rtol=1e-12)


@pytest.mark.parametrize("law", ["linear", "decaying", "drifting"])
def test_present_A_is_the_slope_of_the_losses(law):
    world = LinearWorld(3, 10_000, law, seed=2)
    losses = world.train(world.start, HALF, 0, 5_000)
    drop = losses - world.train(losses, HALF, 5_000, 1)
    np.testing.assert_allclose(world.present_A(losses, 5_000) @ HALF, drop, rtol=1e-3)


@pytest.mark.parametrize("law", ["linear", "decaying", "drifting"])
@pytest.mark.parametrize("step", [0, 60, 100])
def test_what_helps_is_the_column_sums_of_the_present_A(law, step):
    world = LinearWorld(3, 100, law, num_targets=2, seed=3)
    model = world.train(world.start, HALF, 0, step)
    expected = world.present_A(model, min(step, 99))[3:].sum(axis=0)
    np.testing.assert_allclose(world.helps(model, step), expected, rtol=1e-12)


def test_decaying_world_stays_above_its_floor():
    world = LinearWorld(4, 1000, "decaying", total_drop=100)
    assert (world.train(world.start, np.eye(4)[0], 0, 1000) >= world.floor).all()


def test_observations_are_what_methods_are_promised():
    world = LinearWorld(3, 100, seed=3)
    before, after = world.start, world.train(world.start, HALF, 0, 10)
    np.testing.assert_array_equal(world.observe("validation", before, after, HALF, 0, 10), after)
    train = world.observe("train", before, after, HALF, 0, 10)
    np.testing.assert_allclose(train[:2], 0.5 * (before + after)[:2])
    assert np.isnan(train[2])
    assert world.observe("gradients", before, after, HALF, 0, 10).shape == (3, 3)
    np.testing.assert_allclose(world.observe("alignment", before, after, HALF, 0, 10), world.helps(after, 10))
    assert world.observe("nothing", before, after, HALF, 0, 10) is None


def test_noise_is_a_function_of_the_seed_and_the_number_of_the_observation():
    world = LinearWorld(3, 100, noise=0.1)
    first, again, second = (
        world.observe("validation", world.start, world.start, HALF, n, 0) for n in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert abs(first - second).min() > 0


@pytest.mark.parametrize("num_groups", [2, 3, 7])
def test_aioli_finds_the_exact_law_of_a_linear_world(num_groups):
    trace = simulate_run(build_method("aioli", num_groups), LinearWorld(num_groups, 2000))
    assert trace.matrix_errors and max(error for _, error in trace.matrix_errors) < 1e-12


def test_aioli_beats_the_stratified_mixture_where_the_law_is_linear():
    world = LinearWorld(5, 4000, "linear")
    aioli, stratified = (
        simulate_run(build_method(name, 5), world).losses[-1].mean() for name in ("aioli", "stratified")
    )
    assert aioli < stratified - 0.01


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_its_steps_in_every_world(name):
    for law in ("linear", "decaying", "drifting"):
        trace = simulate_run(build_method(name, 3), LinearWorld(3, 700, law, noise=0.01))
        assert trace.steps[-1] == trace.loss_steps[-1] == 700
        assert len(trace.proportions) == len(trace.phases) == len(trace.steps) - 1
        np.testing.assert_allclose(trace.proportions.sum(axis=1), 1, atol=1e-9)


def test_ten_thousand_groups_take_no_matrix():
    trace = simulate_run(build_method("ado", 10_000), LinearWorld(10_000, 200, "decaying"))
    assert trace.losses[-1].mean() < trace.losses[0].mean()


def test_error_of_A_falls_with_the_square_root_of_the_evaluation_budget():
    errors = evaluation_budget(3, sequences=[16, 64, 256], sweeps=[1, 4], noise=0.05, repeats=4)
    np.testing.assert_allclose(
        errors[:, :2] / errors[:, 1:], 2.0, rtol=1e-6
    )  # four times the sequences: half
    assert (errors[1] < errors[0]).all()


def test_settings_are_read_by_method():
    chosen = parse_settings(["aioli.eta=0.5", "aioli.order=shuffled", "odm.prior=[1, 3]"], ["aioli", "odm"])
    assert chosen == {"aioli": {"eta": 0.5, "order": "shuffled"}, "odm": {"prior": [1, 3]}}
    with pytest.raises(ValueError, match="write METHOD"):
        parse_settings(["eta=1"], ["aioli"])
    with pytest.raises(ValueError, match="for doge, which is not run"):
        parse_settings(["doge.mu=1"], ["aioli"])


@pytest.mark.parametrize(
    ("law", "setting", "message"),
    [
        ("returns", "aioli_bayes.looking=3", "aioli_bayes.looking is 3: it must be a list of numbers"),
        ("linear", "aioli.steps_per_round=x", "aioli.steps_per_round is 'x': it must be a whole number"),
        (
            "linear",
            "static.schedule=[[0,3]]",
            "static.schedule[0].weights is 3: it must be a list of numbers",
        ),
        ("linear", "aioli.etta=1", "aioli has no hyperparameter 'etta'"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(law, setting, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", setting.partition(".")[0], "--law", law, "--set", setting])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"titan-aioli: error: {message}")


def test_the_command_draws_a_figure_and_prints_a_table(tmp_path, capsys):
    figure = tmp_path / "figures" / "simulate.png"
    main(f"simulate stratified aioli --steps 300 --groups 3 --set aioli.eta=0.5 --output {figure}".split())
    assert figure.read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "300 steps" in printed and "error of" in printed


def test_the_largest_share_is_of_the_methods_own_proportions():
    """The run ends inside LearnParams, on a mixture of which one group has three quarters."""
    world = LinearWorld(5, 2000, "decaying")
    trace = simulate_run(build_method("aioli", 5), world)
    assert trace.phases[-1] == "learn_params" and trace.proportions[-1].max() == 0.75
    shown = list(result_table({"aioli": trace}, world).columns[4].cells)
    assert shown == [f"{trace.centres[len(trace.phases) - 1].max():.4f}"] != ["0.7500"]


def test_bad_arguments_end_with_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "aiolo"])
    assert "unknown method 'aiolo'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="noise is -1"):
        LinearWorld(3, 10, noise=-1)


def test_methods_laws_and_the_world_import_no_torch():
    modules = "titan_aioli.commands.simulate.command, titan_aioli.commands.plan"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("num_targets", [1, 3, 1000])
@pytest.mark.parametrize("law", ["linear", "decaying", "drifting"])
def test_worlds_with_targets(law, num_targets):
    world = LinearWorld(4, 600, law, num_targets=num_targets)
    groups_alone = LinearWorld(4, 600, law)
    np.testing.assert_array_equal(world.start[:4], groups_alone.start)
    np.testing.assert_allclose(world.matrix().dense()[:4], groups_alone.matrix().dense())
    p = np.array([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(world.matrix().times(p), world.matrix().dense() @ p)
    np.testing.assert_allclose(
        world.matrix().column_sums(np.arange(4.0 + num_targets)),
        np.arange(4.0 + num_targets) @ world.matrix().dense(),
    )
    method = build_method("aioli", 4, num_targets, eta=2.0)
    trace = simulate_run(method, world)
    assert trace.losses.shape[1] == 4 + num_targets
    if law == "linear":
        assert max(error for _, error in trace.matrix_errors) < 1e-10
        stratified = simulate_run(build_method("stratified", 4), world)
        assert trace.losses[-1, 4:].mean() < stratified.losses[-1, 4:].mean()
