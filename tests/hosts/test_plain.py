"""The plain loop: the session, loader, methods and files of torchtitan's host, resumed bit for bit."""

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from titan_aioli.cli import main
from titan_aioli.config import Mixing
from titan_aioli.config.read import read_mixing
from titan_aioli.errors import UserError
from titan_aioli.hosts.plain import PlainHost, train
from titan_aioli.hosts.plain.__main__ import command, read_schedule
from titan_aioli.hosts.plain.loop import Schedule
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.methods import METHODS
from titan_aioli.runs.read import read_run, read_sections
from titan_aioli.testing.forked import fork_module
from titan_aioli.testing.stores import VOCAB_SIZE, write_stores
from titan_aioli.testing.torchrun import TINY, environment, files

SCHEDULE = Schedule(num_steps=6, seq_len=16, batch_size=8, local_batch_size=4, log_freq=2, save_freq=6)


def launch(num_ranks, *words, **env):
    """Run killing_plain.py; the exit status."""
    return fork_module(num_ranks, "tests.ranks.trainers.killing_plain", *words, **env).returncode


def tiny_model():
    torch.manual_seed(0)
    model = Transformer(VOCAB_SIZE, SCHEDULE.seq_len, dim=16, num_layers=1, heads=2)
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


def mixing_of(stores, method):
    mixing = read_mixing(TINY)
    mixing.stores, mixing.method = str(stores), method
    mixing.aioli = replace(mixing.aioli, steps_per_mixture=1, steps_per_round=5)
    mixing.skill_it = replace(mixing.skill_it, steps_per_round=2)
    mixing.odm = replace(mixing.odm, steps_per_update=2)
    mixing.aioli_gradients = replace(mixing.aioli_gradients, steps_per_update=2, misfit=0.0)
    mixing.ado = replace(mixing.ado, steps_per_update=1, warmup_updates=4, ignored_updates=1)
    return mixing


@pytest.mark.parametrize(("num_ranks", "method"), [(1, "aioli"), (1, "aioli_gradients"), (2, "odm")])
def test_killed_and_resumed_equals_never_stopped(num_ranks, method, tmp_path, stores):
    assert launch(num_ranks, tmp_path / "whole", stores, method) == 0
    for step in ("3", "7", "10"):
        assert launch(num_ranks, tmp_path / "killed", stores, method, KILL_AT=step) != 0
    assert launch(num_ranks, tmp_path / "killed", stores, method) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    whole, killed = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed"))
    assert all(torch.equal(value, killed["model"][name]) for name, value in whole["model"].items())


@pytest.mark.parametrize(("num_ranks", "method"), [(1, "aioli"), (2, "aioli"), (2, "odm")])
def test_stopped_by_a_signal_and_resumed_equals_never_stopped(num_ranks, method, tmp_path, stores):
    assert launch(num_ranks, tmp_path / "whole", stores, method) == 0
    for step, number in (("5", signal.SIGUSR1), ("9", signal.SIGTERM)):
        status = launch(
            num_ranks, tmp_path / "run", stores, method, KILL_AT=step, KILL_SIGNAL=str(int(number))
        )
        assert status == (0 if number == signal.SIGUSR1 else 143)
        done = torch.load(tmp_path / "run" / "checkpoint.pt")["step"]
        assert int(step) <= done <= int(step) + 3
    assert launch(num_ranks, tmp_path / "run", stores, method) == 0
    assert files(tmp_path / "run") == files(tmp_path / "whole")


@pytest.fixture(scope="module")
def reference(stores, tmp_path_factory):
    """The checkpoint of a stratified run."""
    folder = tmp_path_factory.mktemp("stratified")
    train(*tiny_model(), mixing_of(stores, "stratified"), folder, SCHEDULE)
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_leaves_a_run(method, tmp_path, stores, reference, capsys):
    mixing = mixing_of(stores, method)
    mixing.doremi = replace(mixing.doremi, reference=str(reference))
    train(*tiny_model(), mixing, tmp_path / method, SCHEDULE)
    run = read_run(tmp_path / method)
    assert run.results and run.results["step"] == 6
    losses = [record["validation_loss"] for record in run.losses]
    assert sum(losses[-1]) < sum(losses[0])
    main(["rows", str(run.folder), "--check"])
    main(["report", str(run.folder), "--output", str(tmp_path / "report.png")])
    assert "48 rows" in capsys.readouterr().out


def test_a_run_that_is_only_tested_is_reported(tmp_path, stores, capsys):
    mixing = mixing_of(stores, "stratified")
    mixing.evaluation.validation, mixing.evaluation.at_start, mixing.evaluation.test = False, False, True
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    results = read_run(tmp_path).results
    assert len(results["test_loss"]) == 3 and results["test_loss_mean"] == np.mean(results["test_loss"])
    main(["report", str(tmp_path), "--output", str(tmp_path / "report.png")])
    assert f"{results['test_loss_mean']:.4f}" in capsys.readouterr().out


def test_training_is_the_same_with_and_without_evaluations(tmp_path, stores):
    weights = []
    for freq in (0, 1):
        mixing = mixing_of(stores, "stratified")
        mixing.evaluation.freq = freq
        model, optimizer = tiny_model()
        train(model, optimizer, mixing, tmp_path / str(freq), SCHEDULE)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_the_metrics_of_logged_steps_go_to_the_caller(tmp_path, stores):
    seen = {}
    train(
        *tiny_model(),
        mixing_of(stores, "stratified"),
        tmp_path,
        SCHEDULE,
        log_metrics=lambda metrics, step: seen.setdefault(step, set()).update(metrics),
    )
    assert set(seen) >= {1, 2, 4, 6}
    assert {"mixing/train_loss/a", "mixing/proportion/b", "mixing/epochs/c"} <= seen[2]


def test_a_reference_that_is_no_checkpoint_is_refused(tmp_path, stores):
    mixing = mixing_of(stores, "doremi")
    mixing.doremi = replace(mixing.doremi, reference=str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match=r"mixing.doremi.reference is .*none.pt"):
        train(*tiny_model(), mixing, tmp_path, SCHEDULE)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, stores, content):
    """As the reference of doremi, and as the checkpoint to resume from."""
    (tmp_path / "checkpoint.pt").write_bytes(content)
    mixing = mixing_of(stores, "doremi")
    mixing.doremi = replace(mixing.doremi, reference=str(tmp_path / "checkpoint.pt"))
    with pytest.raises(UserError, match=r"mixing.doremi.reference is .*checkpoint.pt"):
        train(*tiny_model(), mixing, tmp_path / "run", SCHEDULE)
    with pytest.raises(UserError, match=r"checkpoint.pt does not fit this run"):
        train(*tiny_model(), mixing_of(stores, "stratified"), tmp_path, SCHEDULE)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, stores):
    train(*tiny_model(), mixing_of(stores, "stratified"), tmp_path, SCHEDULE)
    other = torch.nn.Embedding(VOCAB_SIZE, VOCAB_SIZE)
    with pytest.raises(UserError, match=r"checkpoint.pt does not fit this run"):
        train(other, torch.optim.SGD(other.parameters()), mixing_of(stores, "stratified"), tmp_path, SCHEDULE)


@pytest.mark.parametrize("method", ["aioli", "aioli_gradients", "stratified"])
def test_a_held_out_set_that_is_another_one_at_a_resume_is_refused(tmp_path, method):
    """Where the method compares its losses, or follows its gradient; others train on."""
    stores, replaced = write_stores(tmp_path / "stores"), write_stores(tmp_path / "other", num_documents=30)
    train(
        *tiny_model(),
        mixing_of(stores, method),
        tmp_path / "run",
        SCHEDULE._replace(num_steps=3, save_freq=3),
    )
    for file in (replaced / "b").glob("validation*"):
        shutil.copy(file, stores / "b")
    again = (mixing_of(stores, method), tmp_path / "run", SCHEDULE)
    if method == "stratified":
        assert train(*tiny_model(), *again).controller.step == 6
        return
    with pytest.raises(UserError, match="was written with other held-out sets: point validation stores"):
        train(*tiny_model(), *again)


def test_a_group_that_is_used_up_ends_the_run(tmp_path, stores, caplog):
    mixing: Mixing = mixing_of(stores, "stratified")
    mixing.when_used_up, mixing.groups["a"].max_epochs = "stop", 0.01
    session = train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    step = session.controller.step
    assert 0 < step < 6 and torch.load(tmp_path / "checkpoint.pt")["step"] == step
    results = read_run(tmp_path).results
    assert results["step"] == step
    reason = results["out_of_data"]
    assert reason.startswith(f"out of data after step {step}: group a has been read 0.0")
    assert reason.endswith("times and may be read 0.01 times (max_epochs)")
    assert caplog.messages.count(f"mixing: {reason}") == 1


@pytest.mark.parametrize("method", ["stratified", "aioli"])
def test_a_group_that_is_spread_lasts_to_the_end(tmp_path, stores, method):
    mixing: Mixing = mixing_of(stores, method)
    mixing.when_used_up, mixing.groups["a"].max_epochs = "spread", 0.01
    session = train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    most = int(0.01 * session.loader.schedule.num_sequences[0])
    num_rows = SCHEDULE.num_steps * SCHEDULE.batch_size
    trained = [r["proportions"][0] for r in read_run(tmp_path).records if r["phase"] == "train"]
    assert 0 < most < num_rows / 3 and session.controller.step == SCHEDULE.num_steps
    assert max(trained) <= most / num_rows + 1e-12
    assert session.loader.position.drawn[0] == most


def test_aioli_gradients_knows_how_often_each_group_has_been_read(tmp_path, stores):
    session = train(*tiny_model(), mixing_of(stores, "aioli_gradients"), tmp_path, SCHEDULE)
    state, rows = session.controller.state, session.loader.schedule.num_sequences
    assert state.step == SCHEDULE.num_steps - 1  # it measured after all steps but the last
    in_last_step = SCHEDULE.batch_size * state.proportions
    np.testing.assert_allclose(state.epochs * rows, session.loader.position.drawn - in_last_step, atol=2)
    assert (state.epochs * rows).sum() == pytest.approx(state.step * SCHEDULE.batch_size)


def test_a_run_with_a_spread_group_is_replayed_as_recorded(tmp_path, stores, capsys):
    mixing: Mixing = mixing_of(stores, "odm")
    mixing.when_used_up, mixing.groups["a"].max_epochs = "spread", 0.02
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    main(["replay", str(tmp_path), "--output", str(tmp_path / "replay.png")])
    assert "decided as recorded" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("max_epochs", "message"),
    [
        (0.01, r"the groups give \d+ rows, and the run trains on \d+: raise max_epochs"),
        (1e-6, r"mixing.groups.a.max_epochs is 1e-06: not one of the group's \d+ sequences"),
    ],
)
def test_groups_that_cannot_last_for_the_run_are_refused(tmp_path, stores, max_epochs, message):
    mixing: Mixing = mixing_of(stores, "stratified")
    mixing.when_used_up = "spread"
    for group in mixing.groups.values():
        group.max_epochs = max_epochs
    with pytest.raises(UserError, match=message):
        train(*tiny_model(), mixing, tmp_path, SCHEDULE)


def test_the_results_of_a_run_that_does_not_run_out_say_nothing_of_it(tmp_path, stores):
    train(*tiny_model(), mixing_of(stores, "stratified"), tmp_path, SCHEDULE)
    assert "out_of_data" not in read_run(tmp_path).results


def test_the_command_trains_from_a_toml(tmp_path):
    stores = write_stores(tmp_path / "stores")
    words = [str(TINY), "--folder", str(tmp_path / "run"), "--stores", str(stores), "--steps", "4"]
    command = [sys.executable, "-m", "titan_aioli.hosts.plain", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_run(tmp_path / "run").last_step == 4


@pytest.mark.parametrize(
    ("training", "ranks", "batch_size"),
    [
        ({}, 3, 24),
        ({"global_batch_size": -1, "local_batch_size": 2}, 3, 6),
        ({"global_batch_size": 16}, 2, 16),
    ],
)
def test_the_batch_is_as_given_or_one_micro_batch_of_every_rank(training, ranks, batch_size):
    assert read_schedule(training, ranks).batch_size == batch_size


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("global_batch_size = 7", "a global batch of 7 rows cannot be split over 1 data-parallel ranks"),
        ("global_batch_size = 0", "training.global_batch_size is 0: .* or -1 for one micro-batch of every"),
        ('local_batch_size = "x"', "training.local_batch_size is 'x': it must be a whole number, at least 1"),
        ("seq_len = 1.5", "training.seq_len is 1.5: it must be a whole number, at least 1"),
        ("steps = -3", "training.steps is -3: it must be a whole number, at least 1"),
    ],
)
def test_a_training_section_that_cannot_be_is_one_line(line, message, tmp_path, stores, capsys):
    key = line.partition(" ")[0]
    config = re.sub(rf"(?m)^{key} = .*$", line, TINY.read_text())
    (tmp_path / "config.toml").write_text(config)
    words = [str(tmp_path / "config.toml"), "--folder", str(tmp_path / "run"), "--stores", str(stores)]
    assert re.search(message, refusal(words, capsys))


def test_a_folder_that_is_a_file_is_one_line(tmp_path, stores, capsys):
    (tmp_path / "run").touch()
    words = [str(TINY), "--folder", str(tmp_path / "run"), "--stores", str(stores), "--steps", "2"]
    assert str(tmp_path / "run") in refusal(words, capsys)


def refusal(words, capsys):
    """The one line that the command prints."""
    with pytest.raises(SystemExit) as stopped:
        command(words)
    assert stopped.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "titan_aioli: error: " in line)
    return line


def test_gradients_need_one_rank():
    host = PlainHost(torch.nn.Linear(1, 1), 1, torch.device("cpu"))
    host.num_data_ranks = 2
    with pytest.raises(UserError, match="doge and aioli_gradients run on one rank"):
        host.backward(torch.zeros((1, 1)), torch.zeros((1, 1)), 1.0)


def test_the_rows_of_a_run_that_went_on_with_another_method_are_known(tmp_path, stores, capsys):
    schedule = SCHEDULE._replace(num_steps=3)
    mixing, folder = mixing_of(stores, "static"), tmp_path / "run"
    for name, weight in zip(mixing.groups, (5.0, 3.0, 2.0), strict=True):  # rows are carried over
        mixing.groups[name].weight = weight
    train(*tiny_model(), mixing, folder, schedule)
    train(*tiny_model(), replace(mixing, method="stratified", on_resume="adapt"), folder, SCHEDULE)
    before, after = read_sections(folder)
    assert (before.mixture["method"], before.last_step) == ("static", 3)
    assert (after.mixture["method"], after.last_step) == ("stratified", 6)
    assert np.abs(after.start().carry).max() > 0.1
    main(["rows", str(folder), "--check"])
    assert "48 rows" in capsys.readouterr().out


def test_a_run_of_other_groups_from_a_step_on_is_not_replayed(tmp_path, stores):
    mixing, folder = mixing_of(stores, "static"), tmp_path / "run"
    train(*tiny_model(), mixing, folder, SCHEDULE._replace(num_steps=3))
    backwards = dict(reversed(mixing.groups.items()))
    train(*tiny_model(), replace(mixing, groups=backwards, on_resume="adapt"), folder, SCHEDULE)
    mixing.method, mixing.replay = "replay", replace(mixing.replay, ledger=str(folder / "ledger.jsonl"))
    with pytest.raises(UserError, match="at step 3 the run was resumed from other groups"):
        train(*tiny_model(), mixing, tmp_path / "again", SCHEDULE)


@pytest.mark.parametrize("max_epochs", [None, 0.01])
def test_a_finished_run_started_again_leaves_the_same_files(max_epochs, tmp_path, stores):
    mixing: Mixing = mixing_of(stores, "stratified")
    mixing.when_used_up, mixing.groups["a"].max_epochs = "stop", max_epochs
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    before = files(tmp_path)
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    assert files(tmp_path) == before


@pytest.mark.parametrize("num_steps", [12, 30])
def test_a_finished_run_is_extended(num_steps, tmp_path, stores):
    mixing = mixing_of(stores, "aioli_gradients")
    mixing.aioli_gradients = replace(mixing.aioli_gradients, steps_per_update=None)
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    train(*tiny_model(), mixing, tmp_path, SCHEDULE._replace(num_steps=num_steps))
    run = read_run(tmp_path)
    assert run.results and run.results["step"] == num_steps and run.records[-1]["step"] > 6


def test_a_phase_that_a_resume_makes_shorter_than_it_is_ends_at_once(tmp_path, stores):
    mixing = mixing_of(stores, "skill_it")
    mixing.skill_it = replace(mixing.skill_it, steps_per_round=9)
    train(*tiny_model(), mixing, tmp_path, SCHEDULE)
    mixing.skill_it = replace(mixing.skill_it, steps_per_round=4)
    train(*tiny_model(), mixing, tmp_path, SCHEDULE._replace(num_steps=10))
    assert [record["step"] for record in read_run(tmp_path).records if record["round"]] == [6, 10]


def test_modules_that_are_frozen_stay_so_through_an_evaluation():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout(), torch.nn.Linear(1, 1))
    model[0].eval()
    with PlainHost(model, 1, torch.device("cpu")).evaluating():
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [False, True, True] and model.training
