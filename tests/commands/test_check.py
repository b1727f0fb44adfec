"""`titan-aioli check`: numbers by hand, and faults that a run would stop at, without starting one."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.bad_input.cases import TRAINING as BAD_INPUT
from tests.bad_input.faults import copy_stores
from titan_aioli.cli import main
from titan_aioli.commands.check.command import _run_lines, group_table, run_table, short, target_table
from titan_aioli.commands.check.doubts import doubts
from titan_aioli.commands.check.forecast import MOST_PHASES, forecast, walk_through
from titan_aioli.commands.check.used_up import UsedUp, expected_rows
from titan_aioli.config.build import Mixture
from titan_aioli.hosts.installed import VERSION, Checked, check_config, load_config
from titan_aioli.methods import METHODS, UNTIL_END, build_method
from titan_aioli.runs.plan_file import write_plan
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.store import open_store
from titan_aioli.testing.stores import numbered_group
from titan_aioli.testing.text import save_tokenizer
from titan_aioli.testing.torchrun import TINY

AIOLI = {"num_sweeps": 1, "steps_per_mixture": 5, "steps_per_round": 100}


def lines(renderable, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_the_phases_of_aioli():
    walked = walk_through(build_method("aioli", 2, **AIOLI), 2, 250)
    assert walked.ends == [0, 5, 10, 100, 105, 110, 200, 205, 210]
    assert walked.rounds() == {0: 100, 1: 100, 2: 50}
    assert walked.steps_in("learn_params") == 30
    np.testing.assert_allclose(walked.shares, [0.5, 0.5])


def test_the_phases_of_aioli_after_a_prior_on_one_group():
    walked = walk_through(build_method("aioli", 2, **AIOLI, prior=[1, 0], prior_steps=50), 2, 150)
    assert walked.steps_in("prior") == 50 and sum(walked.rounds().values()) == 100
    assert walked.shares[0] > 0.5


@pytest.mark.parametrize("name", METHODS)
def test_every_step_of_a_run_is_in_one_phase(name):
    walked = walk_through(build_method(name, 3), 3, 1234)
    assert sum(walked.steps_by_phase.values()) == 1234
    assert walked.shares.sum() == pytest.approx(1)
    assert walked.ends == sorted(walked.ends) and all(end <= 1234 for end in walked.ends)


@pytest.mark.parametrize(
    ("name", "settings", "phases"),
    [("aioli", AIOLI, 3e7), ("odm", {}, 1e9), ("skill_it", {"steps_per_round": 10}, 1e8)],
)
def test_a_long_run_is_forecast_by_its_beginning(name, settings, phases):
    walked = walk_through(build_method(name, 2, **settings), 2, 10**9)
    assert len(walked.ends) <= MOST_PHASES
    assert walked.num_phases == pytest.approx(phases, rel=1e-3)
    assert walked.shares.sum() == pytest.approx(1)
    assert sum(steps for steps, _ in walked.mixtures) == pytest.approx(1e9, rel=1e-3)


def test_evaluations_of_a_long_run_are_counted_not_listed(stores):
    flags = ["--mixing.stores", str(stores), "--training.steps", "1000000000", "--mixing.method", "static"]
    checked = check_config(["--job.config_file", str(TINY), *flags, "--mixing.evaluation.freq", "2"])
    assert forecast(checked.config, checked.mixture, checked.batch_size).measured.num_evaluations == 5 * 10**8


def test_a_replayed_schedule_is_forecast_exactly():
    schedule = [[0, "train", 0, [1.0, 0.0]], [30, "train", 1, [0.0, 1.0]]]
    walked = walk_through(build_method("replay", 2, schedule=schedule), 2, 100)
    np.testing.assert_allclose(walked.shares, [0.3, 0.7])
    assert walked.ends == [30] and UNTIL_END not in walked.ends


def test_epochs_and_the_cost_of_evaluations_by_hand(stores):
    """3 groups, 20 steps x 8 rows: measured at 0, each of 3 mixtures and the end of 2 rounds: 1 + 2 x 4."""
    flags = ["--mixing.stores", str(stores), "--mixing.evaluation.freq", "0"]
    checked = check_config(["--job.config_file", str(TINY), *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    assert (checked.batch_size, checked.world_size) == (8, 2)
    assert (expected.measured.num_evaluations, expected.measured.evaluated_sequences) == (9, 36)
    assert expected.measured.cost == pytest.approx((9 + 1) * 36 / (3 * 20 * 8))
    sequences = np.array([group.num_sequences for group in checked.mixture.train])
    np.testing.assert_allclose(expected.epochs, 160 / 3 / sequences)


def test_a_budget_bounds_what_the_method_is_shown_and_not_what_is_logged(stores):
    """30 % of 3 x 160 rows are 144: 9 evaluations of 3 groups get 5 sequences of each; the log has 12."""
    flags = [
        "--mixing.stores",
        str(stores),
        "--mixing.evaluation.freq",
        "0",
        "--mixing.evaluation.budget",
        "30",
    ]
    checked = check_config(["--job.config_file", str(TINY), *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    assert (expected.measured.num_samples, expected.measured.sampled_sequences) == (9, 15)
    assert (expected.measured.num_evaluations, expected.measured.evaluated_sequences) == (1, 36)
    assert expected.measured.cost == pytest.approx((9 * 15 + 2 * 36) / (3 * 20 * 8))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--mixing.method", "stratified"], 20),
        (["--mixing.method", "stratified", "--mixing.evaluation.at_start"], 1 + 20),
        (["--mixing.evaluation.freq", "7"], 9 + 1),
        (["--mixing.evaluation.freq", "10"], 9),
    ],
)
def test_evaluations_at_the_same_step_are_counted_once(stores, flags, expected):
    defaults = ["--job.config_file", str(TINY), "--mixing.stores", str(stores)]
    checked = check_config([*defaults, *flags])
    assert forecast(checked.config, checked.mixture, checked.batch_size).measured.num_evaluations == expected


def mixture(steps, shares):
    return steps, np.array(shares)


def test_where_a_run_stops_by_hand():
    """8 rows a step, half of them of each group: 36 rows of the first are 9 steps, in the second phase."""
    mixtures, most = [mixture(5, [0.5, 0.5]), mixture(30, [0.5, 0.5])], np.array([36, 1000])
    drawn = expected_rows(mixtures, 8, most, stops=True)
    assert (drawn.num_steps, drawn.used_up) == (9, [UsedUp(9, [0])])
    np.testing.assert_allclose(drawn.rows, [36, 36])


def test_where_a_share_goes_to_the_others_by_hand():
    """After 9 steps the others get 8 rows a step: 84 left of 120 are 10 whole steps."""
    drawn = expected_rows([mixture(35, [0.5, 0.5])], 8, np.array([36, 120]), stops=False)
    assert drawn.used_up == [UsedUp(9, [0]), UsedUp(19, [1])] and drawn.num_steps == 19
    drawn = expected_rows([mixture(35, [0.5, 0.5])], 8, np.array([36, 1000]), stops=False)
    assert drawn.used_up == [UsedUp(9, [0])] and drawn.num_steps == 35
    np.testing.assert_allclose(drawn.rows, [36, 36 + 26 * 8])


def test_without_a_limit_the_rows_are_the_shares():
    drawn = expected_rows([mixture(4, [1.0, 0.0]), mixture(6, [0.0, 1.0])], 8, None, stops=True)
    assert (drawn.num_steps, drawn.used_up) == (10, [])
    np.testing.assert_allclose(drawn.rows, [32, 48])


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("stop", ["a (max_epochs 0.05); the run ends there, not at step 40", "about {} of 40 steps"]),
        ("redistribute", ["a (max_epochs 0.05); its share goes to the other groups", "40 steps x 8"]),
        (
            "spread",
            ["a: a share of {:.3g} at most, with which max_epochs 0.05 last to the end", "40 steps x 8"],
        ),
        ("repeat", ["times, more than max_epochs 0.05: a warning", "40 steps x 8"]),
    ],
)
def test_the_command_names_what_a_limit_does(when, expected, stores, capsys):
    flags = ["--mixing.stores", str(stores), "--mixing.method", "stratified", "--training.steps", "40"]
    flags += ["--mixing.when_used_up", when, "--mixing.groups.a.max_epochs", "0.05"]
    sequences = check_config(["--job.config_file", str(TINY), *flags]).mixture.train[0].num_sequences
    rows = int(0.05 * sequences)
    stop = rows * 3 // 8
    main(["check", str(TINY), "--world-size", "2", *flags])
    text = " ".join(capsys.readouterr().out.split())
    for part in expected:
        assert part.format(rows / (40 * 8) if when == "spread" else stop) in text
    assert (f"about step {stop}: a" in text) == ("about step" in text) == (when in ("stop", "redistribute"))


def test_eight_groups_fit_eighty_columns():
    names = [f"stack_exchange_{k}" for k in range(8)]
    groups = [numbered_group(name, 0, 123_456) for name in names]
    config = load_config(["--job.config_file", str(TINY), "--mixing.method", "stratified"])
    mixture = Mixture(build_method("aioli", 8), groups, groups, groups, hyperparameters={})
    checked = Checked(config, mixture, 1, 8, Path("outputs"), "llama3 mixing_debug")
    expected = forecast(config, mixture, 8)
    shown = lines(group_table(checked, expected)) + lines(run_table(checked, expected))
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    for name in [*names, "123k", "494k", "LearnParams", "checkpoints"]:
        assert name in text


def test_short_counts():
    assert [short(n) for n in (0, 9999, 12_345, 1_234_567, 15_400_000_000, 2e12)] == [
        *("0", "9999", "12.3k", "1.23M", "15.4B", "2T")
    ]


def test_the_command_prints_what_the_run_would_do(stores, capsys, tmp_path):
    for step in (6, 8):
        (tmp_path / "checkpoint" / f"step-{step}").mkdir(parents=True)
    (tmp_path / "checkpoint" / "step-6" / ".metadata").touch()  # step 8 is half-written
    flags = ["--job.dump_folder", str(tmp_path), "--mixing.stores", str(stores)]
    main(["check", str(TINY), "--world-size", "2", *flags])
    text = " ".join(capsys.readouterr().out.split())
    for part in ("20 steps x 8 sequences x 16 tokens", "12 steps, 60.0% of all", "resume from step 6"):
        assert part in text


INTERVAL = (
    "checkpoint.interval is 0: at least 1"
    if VERSION < (0, 3)
    else "error: Error parsing checkpoint: Checkpoint interval needs to be at least 1 step."  # torchtitan's
)
FAULTS = {
    "batch": (["--world-size", "3"], "training.global_batch_size is 8: it must be a multiple of"),
    "ranks": (
        ["--world-size", "3", "--parallelism.tensor_parallel_degree", "2"],
        "3 ranks do not fit the layout",
    ),
    "degree": (["--parallelism.context_parallel_degree", "0"], "context_parallel_degree is 0: at least 1"),
    "seq_len": (["--training.seq_len", "15"], "training.seq_len is 15: it must be a multiple of"),
    "steps": (["--training.steps", "0"], "training.steps is 0: at least 1"),
    "world size": (["--world-size", "-2"], "--world-size is -2: at least 1, or 0 for as few as"),
    "checkpoint": (["--checkpoint.interval", "0"], INTERVAL),
    "log": (["--metrics.log_freq", "0"], "metrics.log_freq is 0: at least 1"),
    "flag": (["--training.stepz", "3"], "--training.stepz, 3 (perhaps --training.steps is meant)"),
    "value": (["--training.steps", "x"], "Error parsing --training.steps"),
    "reference": (["--mixing.method", "doremi"], "mixing.doremi.reference is ''"),
    "schedule": (
        ["--parallelism.pipeline_parallel_degree", "2", "--parallelism.pipeline_parallel_schedule", "2F2B"],
        "parallelism.pipeline_parallel_schedule: Unknown schedule name '2F2B'. The valid options are",
    ),
    "pipeline": (
        ["--mixing.method", "doge", "--parallelism.pipeline_parallel_degree", "2"],
        "not with pipeline parallelism",
    ),
    "train losses": (
        ["--mixing.method", "odm", "--mixing.no-train_losses"],
        "needs mixing.train_losses = true",
    ),
    "no plan": (
        ["--mixing.method", "static", "--mixing.static.by", "plan", "--mixing.static.plan", "nowhere.json"],
        "nowhere.json",
    ),
    "no graph": (["--mixing.method", "skill_it", "--mixing.skill_it.graph", "nowhere.json"], "nowhere.json"),
    "no ledger": (["--mixing.method", "replay", "--mixing.replay.ledger", "nowhere.jsonl"], "nowhere.jsonl"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line_and_status_2(case, stores, tmp_path, capfd):
    flags, message = FAULTS[case]
    common = ["--mixing.stores", str(stores), "--job.dump_folder", str(tmp_path / "run")]
    assert_refused(["check", str(TINY), *flags, *common], message, capfd)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(VERSION >= (0, 3), reason="torchtitan 0.3 refuses it by itself")
def test_the_interval_of_checkpoints_that_are_not_written_may_be_anything(stores, capsys):
    flags = ["--mixing.stores", str(stores), "--checkpoint.no-enable", "--checkpoint.interval", "0"]
    main(["check", str(TINY), *flags])
    assert "starts over (checkpoint.enable)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("case", list(BAD_INPUT)[::4])
def test_what_a_run_refuses_is_refused(case, tmp_path, stores, capfd):
    words = BAD_INPUT[case].make(copy_stores(stores, tmp_path))
    assert words[0] == "--job.config_file"
    assert_refused(["check", *words[1:]], BAD_INPUT[case].message, capfd, is_pattern=True)


def assert_refused(words, message, capfd, is_pattern=False):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1 and errors[0].startswith("titan-aioli: error: ")
    if is_pattern:
        with pytest.raises(ValueError, match=message):
            raise ValueError(errors[0])
    else:
        assert message in errors[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a", "b", "law"]}, "does not describe a run of the groups a, b, c"),
        ({"groups": 3}, "does not describe a run of the groups a, b, c"),
        (None, "line 1: proportions are"),
    ],
)
def test_a_ledger_of_other_groups_is_refused(change, message, stores, tmp_path):
    record = {"step": 0, "first_row": 0, "proportions": [0.5, 0.5], "phase": "train", "round": 0}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(record) + "\n")
    if change is not None:
        (tmp_path / "mixture.json").write_text(json.dumps(change))
    flags = ["--mixing.method", "replay", "--mixing.replay.ledger", str(tmp_path / "ledger.jsonl")]
    with pytest.raises(ValueError, match=message):
        check_config(["--job.config_file", str(TINY), "--mixing.stores", str(stores), *flags])


DOUBTS = {
    "nothing": ([], 3, None),
    "LearnParams": (["--training.steps", "5"], 3, "ends inside its first LearnParams"),
    "one group": ([], 1, "aioli has one group"),
    "a long round": (
        ["--mixing.method", "skill_it", "--mixing.skill_it.steps_per_round", "20"],
        3,
        "a round of 20 steps is not over",
    ),
    "an anchor without strength": (["--mixing.guards.anchor_plan", "PLAN"], 3, "anchor_strength 0"),
    "no limit": (["--mixing.when_used_up", "stop"], 3, 'when_used_up is "stop", and no group has max_epochs'),
    "evaluations": (
        ["--mixing.evaluation.budget", "3", "--mixing.evaluation.freq", "1"],
        3,
        "evaluations cost",
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_what_is_hardly_meant_is_named(case, stores, tmp_path):
    flags, num_groups, message = DOUBTS[case]
    write_plan(tmp_path / "plan.json", law="mine", groups=["a", "b", "c"], proportions=np.ones(3) / 3)
    flags = [flag.replace("PLAN", str(tmp_path / "plan.json")) for flag in flags]
    checked = check_config(["--job.config_file", str(TINY), "--mixing.stores", str(stores), *flags])
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    found = list(doubts(checked.config, num_groups, expected))
    assert len(found) == (message is not None) and (message or "") in "".join(found)
    shown = " ".join("\n".join(lines(run_table(checked, expected))).split())
    assert num_groups == 1 or ("warning" in shown) == bool(found)


def test_targets_are_counted_and_shown(stores, tmp_path):
    """As above, with 2 targets in place of 3 groups for the method, and 4 sets for the log."""
    config = tmp_path / "config.toml"
    tables = "[mixing.targets.b]\nweight = 3.0\n[mixing.targets.d]\n"
    config.write_text(f"{TINY.read_text()}\n{tables}")
    flags = ["--mixing.stores", str(stores), "--mixing.evaluation.freq", "0"]
    checked = check_config(["--job.config_file", str(config), *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    assert (expected.measured.num_evaluations, expected.measured.evaluated_sequences) == (1, 4 * 12)
    assert (expected.measured.num_samples, expected.measured.sampled_sequences) == (9, 2 * 12)
    shown = [line.split() for line in lines(target_table(checked.mixture, checked.config.mixing))]
    assert ["target", "group", "counts", "validation", "test"] in shown
    assert ["b", "yes", "0.7500"] in [words[:3] for words in shown]
    assert ["d", "-", "0.2500"] in [words[:3] for words in shown]
    static = check_config(["--job.config_file", str(config), *flags, "--mixing.method", "odm"], 2)
    expected = forecast(static.config, static.mixture, static.batch_size)
    (line,) = (line for line in doubts(static.config, 3, expected) if "odm does not look at targets" in line)
    assert "aioli_gradients, aioli_bayes, aioli, skill_it and doge look at them" in line


@pytest.mark.parametrize("method", ["aioli_bayes", "aioli_gradients"])
@pytest.mark.parametrize(
    ("targets", "anchor", "is_doubted"),
    [("b", "even", True), ("b", "targets", False), ("d", "even", False), ("abc", "even", False)],
)
def test_an_even_start_is_doubted_where_targets_are_groups(
    stores, tmp_path, method, targets, anchor, is_doubted
):
    """The groups are a, b and c."""
    config = tmp_path / "config.toml"
    config.write_text(TINY.read_text() + "".join(f"\n[mixing.targets.{name}]\n" for name in targets))
    flags = ["--mixing.method", method, f"--mixing.{method}.anchor", anchor]
    checked = check_config(["--job.config_file", str(config), "--mixing.stores", str(stores), *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    found = [line for line in doubts(checked.config, 3, expected) if "even mixture" in line]
    assert bool(found) == is_doubted


@pytest.mark.parametrize(
    ("method", "epochs", "flags", "is_doubted"),
    [
        ("aioli_bayes", [9.0, 1.0, 1.0], [], True),
        ("aioli_bayes", [9.0, 1.0, 1.0], ["--mixing.groups.a.max_epochs", "20"], True),
        (
            "aioli_bayes",
            [9.0, 1.0, 1.0],
            ["--mixing.groups.a.max_epochs", "20", "--mixing.when_used_up", "spread"],
            False,
        ),
        ("aioli_gradients", [9.0, 1.0, 1.0], [], False),  # counts with repetition itself
        ("aioli_bayes", [4.0, 1.0, 1.0], [], False),
        ("aioli_bayes", [9.0, 8.0, 7.0], [], False),  # all are small: the run is what it is
    ],
)
def test_a_small_group_that_nothing_bounds_is_doubted(stores, method, epochs, flags, is_doubted):
    words = ["--job.config_file", str(TINY), "--mixing.stores", str(stores), "--mixing.method", method]
    checked = check_config([*words, *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)._replace(epochs=np.array(epochs))
    found = [line for line in doubts(checked.config, 3, expected) if "a: read more than 4 times" in line]
    assert bool(found) == is_doubted


@pytest.mark.parametrize(
    ("method", "when", "flags", "is_doubted"),
    [
        ("aioli", "redistribute", ["--mixing.groups.a.max_epochs", "2"], True),
        ("aioli_bayes", "redistribute", ["--mixing.groups.a.max_epochs", "2"], True),
        ("aioli", "spread", ["--mixing.groups.a.max_epochs", "2"], False),
        ("aioli", "redistribute", [], False),
        ("odm", "redistribute", ["--mixing.groups.a.max_epochs", "2"], False),
    ],
)
def test_mixtures_that_would_not_be_trained_are_doubted(stores, method, when, flags, is_doubted):
    words = ["--job.config_file", str(TINY), "--mixing.stores", str(stores), "--mixing.method", method]
    checked = check_config([*words, "--mixing.when_used_up", when, *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    found = [line for line in doubts(checked.config, 3, expected) if line.startswith("a: once read")]
    assert bool(found) == is_doubted


def test_what_gradients_cost_is_counted(stores, tmp_path):
    """Groups a, b and c, one target: 8 sequences of a group, 24 held-out ones, 10 times in 1,000 steps."""
    config = tmp_path / "config.toml"
    config.write_text(TINY.read_text() + "\n[mixing.targets.d]\n")
    flags = ["--mixing.method", "aioli_gradients", "--mixing.aioli_gradients.sequences", "8"]
    flags += ["--training.steps", "1000", "--mixing.evaluation.freq", "0", "--mixing.evaluation.no-test"]
    checked = check_config(["--job.config_file", str(config), "--mixing.stores", str(stores), *flags], 2)
    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    assert (expected.measured.gradient_sequences, len(expected.walk.ends)) == (48, 10)
    gradients = 10 * 48 / (1000 * checked.batch_size)
    evaluation = expected.measured.evaluated_sequences / (3 * 1000 * checked.batch_size)  # one, at the end
    assert expected.measured.cost == pytest.approx(gradients + evaluation)
    shown = dict(_run_lines(checked, expected))
    assert shown["gradients"] == "10 x those of 48 sequences"
    assert shown["measures"] == "10 times, after 100, 114, 128, 240, 352, ... steps"
    assert shown["rounds"] == "11, of 14 to 112 steps" and "values differ by" in shown["can see"]


def contaminated(stores, folder):
    """A copy of the stores in which document 2 of target d's validation is trained on in b; and a config."""
    copied = copy_stores(stores, folder) / "stores"
    held, trained = open_store(copied / "d" / "validation"), open_store(copied / "b" / "train")
    with MegatronWriter(copied / "b" / "train", "uint16") as writer:
        for start in range(0, trained.num_tokens, 300):
            writer.add(trained.tokens[start : start + 300].copy())
        writer.add(held.tokens[600:900].copy())
    config = folder / "targets.toml"
    config.write_text(f"{TINY.read_text()}\n[mixing.targets.d]\n")
    return [str(config), "--mixing.stores", str(copied)]


def test_held_out_documents_that_are_trained_on_are_found(stores, tmp_path, capsys):
    words = contaminated(stores, tmp_path)
    main(["check", *words])
    assert "are in the train stores" not in capsys.readouterr().out
    main(["check", *words, "--contamination"])
    out = capsys.readouterr().out
    assert "d validation: 1 of 8 documents are in the train stores of b\n  document 2: [" in out
    assert "d test: 0 of 6 documents are in the train stores\n" in out
    main(["check", *words, "--contamination-ngrams", "300"])
    assert "d validation: 1 of 8 documents are in the train stores of b\n" in capsys.readouterr().out
    main(["check", *words, "--contamination-ngrams", "13"])  # the toy stores count alike, so more is shared
    assert "of its n-grams): [" in capsys.readouterr().out


def test_contamination_is_refused_where_the_config_says_so(stores, tmp_path, capfd):
    words = [*contaminated(stores, tmp_path), "--mixing.objective.contamination", "refuse"]
    main(["check", *words])
    assert "not looked for without --contamination" in capfd.readouterr().out
    message = "d validation: 1 of 8 documents are in the train stores of b, the first is document 2"
    assert_refused(["check", *words, "--contamination"], message, capfd)


def test_without_targets_the_held_out_documents_of_the_groups_are_compared(stores, capfd):
    flags = ["--mixing.stores", str(stores), "--mixing.objective.contamination", "refuse", "--contamination"]
    trained, held_out = (open_store(stores / "a" / split) for split in ("train", "validation"))
    documents = {trained.tokens[at : at + 300].tobytes() for at in range(0, trained.num_tokens, 300)}
    copies = [at for at in range(8) if held_out.tokens[300 * at : 300 * at + 300].tobytes() in documents]
    message = (
        f"a validation: {len(copies)} of 8 documents are in the train stores of a, the first is document"
    )
    assert_refused(["check", str(TINY), *flags], f"{message} {copies[0]}: take", capfd)
    shared = ["--mixing.groups.a.validation", str(stores / "a" / "train")]
    message = "a validation: 40 of 40 documents are in the train stores of a"
    assert_refused(["check", str(TINY), *flags, *shared], message, capfd)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--contamination-ngrams", "0"], "--contamination-ngrams is 0: from 1 to"),
        (["--tokenizer", "t"], "--tokenizer is read for --contamination only"),
        (["--contamination", "--tokenizer", "nowhere"], "no tokenizer at nowhere"),
        (["--mixing.objective.contamination", "deny"], "'deny' for argument"),
    ],
)
def test_what_contamination_cannot_be_looked_for_with(flags, message, stores, capfd):
    assert_refused(["check", str(TINY), "--mixing.stores", str(stores), *flags], message, capfd)


def test_texts_of_contaminated_documents_are_shown(tmp_path, stores, capsys):
    words = contaminated(stores, tmp_path)
    tokenizer = save_tokenizer(tmp_path / "words", [f"W{number}" for number in range(256)])
    main(["check", *words, "--contamination", "--tokenizer", str(tokenizer)])
    first = open_store(tmp_path / "stores" / "d" / "validation").tokens[600]
    assert f"  document 2: w{first} w" in capsys.readouterr().out


def test_a_store_of_another_tokenizer_is_named(tmp_path, stores, capfd):
    words = contaminated(stores, tmp_path)
    tokenizer = save_tokenizer(tmp_path / "words", [f"W{number}" for number in range(256)])
    (tmp_path / "stores" / "d" / "test.json").write_text(
        '{"tokenizer": "0123", "format": "titan_aioli token store 1"}'
    )
    message = "d/test was made with another tokenizer than"
    (tmp_path / "stores" / "a" / "train.json").write_text(
        '{"tokenizer": "4567", "format": "titan_aioli token store 1"}'
    )
    assert_refused(["check", *words, "--contamination"], f"{message} {tmp_path}/stores/a/train", capfd)
    (tmp_path / "stores" / "a" / "train.json").unlink()
    assert_refused(["check", *words, "--contamination", "--tokenizer", str(tokenizer)], message, capfd)
