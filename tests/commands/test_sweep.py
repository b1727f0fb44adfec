"""Sweeps with toy runs in the place of training; then a real one, and a real ledger trained again."""

import json

import numpy as np
import pytest

from tests.commands.toy_sweep import toy_command
from titan_aioli.cli import main, split_flags
from titan_aioli.commands.sweep.run import SweepRun
from titan_aioli.config.sources import read_graph
from titan_aioli.files import read_toml
from titan_aioli.laws.mixmin import mixmin, read_likelihoods
from titan_aioli.laws.table import read_mixtures, read_table
from titan_aioli.runs.plan_file import read_plan
from titan_aioli.runs.read import read_run
from titan_aioli.testing.forked import train
from titan_aioli.testing.torchrun import TINY


@pytest.fixture
def sweep(tmp_path, stores, monkeypatch):
    """`titan-aioli sweep` into tmp_path/out with toy runs; the exit status."""

    def start(*arguments, real=False):
        if not real:
            monkeypatch.setattr(SweepRun, "command", toy_command)
        common = ["sweep", str(TINY), "--output", str(tmp_path / "out"), "--mixing.stores", str(stores)]
        try:
            main([*common, *arguments])
        except SystemExit as stop:
            return stop.code
        return 0

    return start


def test_the_table_and_the_graph_are_what_plan_and_skill_it_read(sweep, tmp_path):
    assert sweep("--cover", "6", "--single-groups", "--nproc-per-node", "2") == 0
    table = read_table(tmp_path / "out" / "runs.csv")
    assert table.groups == table.evaluated == ["a", "b", "c"]
    np.testing.assert_array_equal(table.proportions[:3], np.eye(3))
    np.testing.assert_allclose(table.losses, 2.0 - table.proportions)
    graph = read_graph(tmp_path / "out" / "graph.json", ["c", "a", "b"])
    np.testing.assert_allclose(graph, 0.5 * np.eye(3))
    main(["plan", str(tmp_path / "out" / "runs.csv"), "--output", str(tmp_path / "plan.json")])
    assert read_plan(tmp_path / "plan.json", ["a", "b", "c"]).sum() == pytest.approx(1)


def test_with_targets_the_table_and_the_graph_are_theirs(sweep, tmp_path, monkeypatch, capfd):
    config = tmp_path / "targets.toml"
    config.write_text(f"{TINY.read_text()}\n[mixing.targets.d]\n[mixing.targets.b]\n")
    monkeypatch.setattr("tests.commands.test_sweep.TINY", config)
    assert sweep("--cover", "6", "--single-groups") == 0
    table = read_table(tmp_path / "out" / "runs.csv")
    assert table.groups == ["a", "b", "c"] and table.evaluated == ["d", "b"]
    np.testing.assert_allclose(table.losses, (1 - table.proportions[:, :1] / 4) * [4.0, 5.0])
    np.testing.assert_array_equal(table.weights, [0.5, 0.5])
    graph = read_graph(tmp_path / "out" / "graph.json", ["c", "a", "b"], ["b", "d"])
    np.testing.assert_allclose(graph, [[0, 0], [0.25, 0.25], [0, 0]])
    assert "the lowest objective is 3.3750 (single-000)" in " ".join(capfd.readouterr().out.split())
    words = [
        "plan",
        str(tmp_path / "out" / "runs.csv"),
        "--output",
        str(tmp_path / "plan.json"),
        "--law",
        "linear",
    ]
    main([*words, "--weights", "d", "1.0"])
    np.testing.assert_allclose(read_plan(tmp_path / "plan.json", ["a", "b", "c"]), [1, 0, 0], atol=1e-6)


TARGETS = """
[mixing.targets.d]
weight = 3.0
bytes_per_token = 1.0
[mixing.targets.b]
bytes_per_token = 1.0
[mixing.targets.a]
weight = 0.0
bytes_per_token = 1.0
[mixing.targets.c]
role = "guard"
bytes_per_token = 1.0
"""


@pytest.mark.parametrize(
    ("unit", "weights"),
    [("nats", [3, 1, 0, 0]), ("bits_per_byte", [6, 1, 0, 0]), ("relative", [3 / 3.0, 1 / 3.75, 0, 0])],
)
def test_the_table_says_what_each_target_counts(sweep, tmp_path, monkeypatch, unit, weights):
    config = tmp_path / "targets.toml"
    config.write_text(f'{TINY.read_text()}{TARGETS}[mixing.objective]\nunit = "{unit}"\n')
    monkeypatch.setattr("tests.commands.test_sweep.TINY", config)
    assert sweep("--cover", "2", "--single-groups") == 0
    table = read_table(tmp_path / "out" / "runs.csv")
    np.testing.assert_allclose(table.weights, np.array(weights) / np.sum(weights))


def test_a_table_of_groups_has_no_weights(sweep, tmp_path):
    assert sweep("--cover", "2") == 0
    header = (tmp_path / "out" / "runs.csv").read_text().splitlines()[0]
    assert header == "run,proportion.a,proportion.b,proportion.c,loss.a,loss.b,loss.c"


def test_the_runs_differ_in_the_mixture_only(sweep, tmp_path):
    assert sweep("--cover", "2", "--seed", "3", "--dry-run", "--training.steps", "5") == 0
    folders = sorted((tmp_path / "out").glob("cover-*"))
    configs = [read_toml(folder / "config.toml") for folder in folders]
    for config, folder in zip(configs, folders, strict=True):
        assert (config["job"].pop("dump_folder"), config["mixing"]["method"]) == (str(folder), "static")
        groups = config["mixing"]["groups"].values()
        assert sum(group.pop("weight") for group in groups) == pytest.approx(1)
    assert configs[0] == configs[1]
    assert not (tmp_path / "out" / "runs.csv").exists()


def test_finished_runs_stay_and_a_failed_one_is_named_and_tried_again(sweep, tmp_path, capfd):
    grid = tmp_path / "grid.csv"
    grid.write_text("proportion.b,note,proportion.a,proportion.c\n1,x,0,0\n0.5,y,0.25,0.25\n0,z,0,1\n")
    arguments = ["--grid", str(grid), "--loss", "test"]
    assert sweep(*arguments, "--dry-run") == 0
    (tmp_path / "out" / "grid-001" / "fail").touch()
    assert sweep(*arguments) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "1 of 3 runs failed: grid-001: no token store at nowhere" in error
    assert str(tmp_path / "out" / "grid-001" / "log.txt") in error
    assert len(read_table(tmp_path / "out" / "runs.csv").losses) == 2
    (tmp_path / "out" / "grid-001" / "fail").unlink()
    assert sweep(*arguments) == 0
    table = read_table(tmp_path / "out" / "runs.csv")
    np.testing.assert_array_equal(table.proportions, [[0, 1, 0], [0.25, 0.5, 0.25], [0, 0, 1]])
    np.testing.assert_allclose(table.losses, 3.0 - table.proportions)
    assert [(tmp_path / "out" / f"grid-{n:03d}" / "starts").read_text() for n in range(3)] == ["x"] * 3


NO_TEST = ["--dry-run", "--mixing.evaluation.no-test"]
NO_VALIDATION = ["--dry-run", "--mixing.evaluation.no-validation"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no mixtures to train on: give --cover N, --single-groups or --grid FILE"),
        (["--cover", "-1"], "--cover is -1: at least 1"),
        (["--cover", "2", "--alpha", "0"], "--alpha is 0.0: it must be a positive number"),
        (["--cover", "2", "--alpha", "0.001"], "alpha is 0.001, too far from 1"),
        (["--cover", "2", "--nproc-per-node", "0"], "--nproc-per-node is 0: at least 1"),
        (["--cover", "2", "--nproc-per-node", "3"], "must be a multiple of local_batch_size 4 x 3"),
        (["--cover", "2", "--mixing.method", "odm"], "--mixing.method: a sweep sets it"),
        (["--cover", "2", "--mixing.when_used_up=spread"], "--mixing.when_used_up=spread: a sweep sets it"),
        (["--cover", "2", "--mixing.groups.a.weight", "1"], "--mixing.groups.a.weight: a sweep sets it"),
        (["--cover", "2", "--training.stepz", "1"], "--training.stepz"),
        (["--cover", "100000"], "--cover is 100000: at least 1, at most 1,000"),
        (["--cover", "2", "--freeze", "a", "1", "a", "2"], "--freeze gives a twice, 1 and 2: leave out one"),
        (["--grid", "nowhere.csv"], "nowhere.csv"),
        (["--cover", "2", "--loss", "test", *NO_TEST], "--loss test needs the test losses"),
        (["--cover", "2", *NO_VALIDATION], "--loss validation needs the validation losses"),
        (
            ["--single-groups", "--loss", "test", *NO_VALIDATION],
            "a run on one group alone needs the validation losses",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(sweep, tmp_path, capfd, arguments, message):
    assert sweep(*arguments) == 2
    errors = capfd.readouterr().err.splitlines()
    assert errors[-1].startswith("titan-aioli: error: ") and message in errors[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--cover", "3"], "another cover (2 there, 3 now)"),
        (["--cover", "2", "--seed", "1"], "another seed (0 there, 1 now)"),
        (["--cover", "2", "--training.steps", "9"], "another flags"),
    ],
)
def test_other_settings_are_refused(sweep, capfd, changed, message):
    assert sweep("--cover", "2", "--dry-run") == 0
    assert sweep(*changed) == 2
    assert message in capfd.readouterr().err


def test_a_sweep_for_a_longer_run_is_not_continued_without(sweep, capfd):
    plain = ["--cover", "2", "--dry-run"]
    assert sweep(*plain, "--for-tokens", "1e6") == 0
    assert sweep(*plain) == 2
    assert "another for_tokens (1000000.0 there, none now)" in capfd.readouterr().err
    assert sweep(*plain, "--for-tokens", "1e6") == 0


def test_losses_that_no_table_needs_may_be_left_out(sweep):
    assert sweep("--cover", "2", *NO_TEST) == 0


def test_a_grid_of_other_groups_is_refused(tmp_path):
    path = tmp_path / "grid.csv"
    path.write_text("proportion.a,proportion.law\n0.5,0.5\n")
    with pytest.raises(ValueError, match=r"proportions of \['a', 'law'\], the config has \['a', 'b'\]"):
        read_mixtures(path, ["a", "b"])


def test_the_config_of_a_run_is_the_sweeps_but_for_its_mixture(tmp_path):
    tables = {
        "job": {"dump_folder": "outputs", "description": 'a "b"\\c\x7f\n\u00e9', "lr": 1e-05, "empty": {}},
        "mixing": {"groups": {"stack exchange": {"train": ["a", "b"]}, "b.c": {"weight": 3}}},
        "list": {"of": [[1, 2], [3.5]], "tables": [{"a": 1}]},
    }
    SweepRun(tmp_path, [0.1 + 0.2, 0.7]).write_config(tables, ["stack exchange", "b.c"])
    config = read_toml(tmp_path / "config.toml")
    assert config["job"] == {**tables["job"], "dump_folder": str(tmp_path)}
    assert config["list"] == tables["list"]
    assert config["mixing"]["groups"]["stack exchange"] == {"train": ["a", "b"], "weight": 0.1 + 0.2}
    assert config["mixing"]["groups"]["b.c"] == {"weight": 0.7}


def test_limits_on_repetition_do_not_change_the_mixture_of_a_run(tmp_path):
    mixing = {"when_used_up": "spread", "guards": {"max_step": 0.1}, "groups": {"a": {"max_epochs": 0.1}}}
    SweepRun(tmp_path, [1.0]).write_config({"mixing": mixing}, ["a"])
    config = read_toml(tmp_path / "config.toml")["mixing"]
    assert config["when_used_up"] == "repeat" and "guards" not in config
    assert config["groups"]["a"] == {"max_epochs": 0.1, "weight": 1.0}  # which only warns


def test_a_training_loop_of_ones_own_is_started_and_noted(tmp_path, stores):
    module = "tests.commands.toy_run"
    words = ["sweep", str(TINY), "--output", str(tmp_path), "--mixing.stores", str(stores), "--cover", "2"]
    with pytest.raises(SystemExit):  # it takes no flags of training
        main([*words, "--module", module])
    command = SweepRun(tmp_path / "cover-000", []).command(2, ["--x", "1"], module)
    assert command[command.index(module) - 1] == "-m" and command[-2:] == ["--x", "1"]
    assert json.loads((tmp_path / "sweep.json").read_text())["module"] == module


def test_training_flags_may_stand_anywhere():
    words = ["x.toml", "--training.steps", "5", "--cover", "2", "--mixing.method=odm", "--output", "a.b"]
    own, flags = split_flags(words)
    assert own == ["x.toml", "--cover", "2", "--output", "a.b"]
    assert flags == ["--training.steps", "5", "--mixing.method=odm"]


def test_real_runs_on_single_groups(sweep, tmp_path):
    grid = tmp_path / "grid.csv"
    grid.write_text("proportion.a,proportion.b,proportion.c\n0,1,0\n")
    steps = ["--training.steps", "3", "--mixing.evaluation.freq", "0", "--checkpoint.no-enable"]
    assert sweep("--grid", str(grid), "--training.local_batch_size", "8", *steps, real=True) == 0
    run = read_run(tmp_path / "out" / "grid-000")
    assert [record["step"] for record in run.losses] == [0, 3]
    assert run.results["epochs"][0] == run.results["epochs"][2] == 0.0
    table = read_table(tmp_path / "out" / "runs.csv")
    np.testing.assert_array_equal(table.losses, [run.results["validation_loss"]])


@pytest.mark.slow
def test_runs_on_single_groups_give_what_mixmin_plans_with(sweep, tmp_path):
    steps = ["--training.steps", "3", "--mixing.evaluation.freq", "0", "--checkpoint.no-enable"]
    assert sweep("--single-groups", "--nproc-per-node", "2", *steps, real=True) == 0
    found, table = (
        read_likelihoods(tmp_path / "out" / "likelihoods.json"),
        read_table(tmp_path / "out" / "runs.csv"),
    )
    assert found.groups == found.targets == ["a", "b", "c"]
    means = [-x.sum(axis=0) / n.sum() for x, n in zip(found.log_likelihoods, found.num_tokens, strict=True)]
    np.testing.assert_allclose(np.transpose(means), table.losses, rtol=1e-6)  # a run's row, a target's column
    main(
        ["plan", str(tmp_path / "out" / "runs.csv"), "--law", "mixmin", "--output", str(tmp_path / "p.json")]
    )
    np.testing.assert_allclose(read_plan(tmp_path / "p.json", ["a", "b", "c"]), mixmin(found.part(False)))


def test_a_recorded_ledger_trained_again_has_the_same_rows(tmp_path, stores):
    common = ["--training.steps", "12", "--mixing.evaluation.freq", "0", "--checkpoint.no-enable"]
    common += ["--training.local_batch_size", "8"]
    train(tmp_path / "first", stores, 1, *common)
    flags = ["--mixing.method", "replay", "--mixing.replay.ledger", tmp_path / "first" / "ledger.jsonl"]
    train(tmp_path / "again", stores, 1, *common, *flags)
    first, again = (read_run(tmp_path / name) for name in ("first", "again"))
    assert (again.folder / "rows.csv").read_bytes() == (first.folder / "rows.csv").read_bytes()
    assert again.results["validation_loss"] == first.results["validation_loss"]
    steps = [record["step"] for record in again.records]
    assert steps == sorted({record["step"] for record in first.records})
    described = json.loads((again.folder / "mixture.json").read_text())
    assert len(described["hyperparameters"]["schedule"]) == len(first.records)
