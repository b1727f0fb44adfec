"""`titan-aioli init`: its config is accepted, fits the stores, and is there whole or not at all."""

import shutil

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands.check.forecast import walk_through
from titan_aioli.commands.init.command import NEED_A_RUN
from titan_aioli.commands.init.found import fitting_flavors, longest_sequence
from titan_aioli.commands.init.settings import aioli_round, evaluation_budget
from titan_aioli.files import read_toml
from titan_aioli.hosts.installed import VERSION
from titan_aioli.methods import METHODS, build_method
from titan_aioli.stores.megatron import MegatronWriter

BIG_FLAVOR = "8B" if VERSION < (0, 3) else "1B"
"""The smallest of torchtitan's own Llama 3 models with 128,256 tokens."""


@pytest.fixture
def folder(stores, tmp_path, monkeypatch):
    """A folder to be in, with the toy stores in `stores`."""
    shutil.copytree(stores, tmp_path / "stores")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, largest, count=5000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with MegatronWriter(path, "int32") as writer:
        tokens = np.zeros(count, dtype=np.int32)
        tokens[-1] = largest
        writer.add(tokens)


def refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["init", *words])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("titan-aioli: error: ")


def test_the_methods_that_can_be_written_are_named(folder, capsys):
    message = refused(["stores", "--output", "my_run.toml", "--method", "magic"], capsys)
    names = [name for name in METHODS if name not in NEED_A_RUN]
    assert message == f"--method is 'magic': choose one of {', '.join(names)}"
    with pytest.raises(SystemExit):
        main(["init", "--help"])
    text = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert all(name in text.partition("the mixing method: ")[2].partition(";")[0] for name in names)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in NEED_A_RUN])
def test_check_accepts_what_is_written_for_every_method(method, folder, capsys):
    main(["init", "stores", "--output", "runs/my_run.toml", "--method", method])
    target, _, *commands = capsys.readouterr().out.splitlines()
    assert "left out 'd', which has no train store" in target and "[mixing.targets.d]" in target
    assert commands == [
        "  titan-aioli check runs/my_run.toml",
        "  torchrun --nproc_per_node=2 -m titan_aioli.train --job.config_file runs/my_run.toml",
    ]
    main(["check", "runs/my_run.toml", "--world-size", "2"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"method {method}" in out and "outputs/my_run/checkpoint" in out
    assert ("5, of" in out or "6, of" in out) or method != "aioli"


def test_what_is_written_fits_the_stores_and_can_be_resumed(folder):
    main(["init", "stores", "--output", "my_run.toml"])
    config = read_toml("my_run.toml")
    assert list(config["mixing"]["groups"]) == ["a", "b", "c"] and config["mixing"]["stores"] == "stores"
    assert config["model"] == {"name": "llama3", "flavor": "mixing_small"}  # 256 ids
    assert config["training"]["seq_len"] == 128  # 6 documents of 300 tokens: 14 sequences
    saving = config["checkpoint"]
    assert saving["enable"] and not saving["last_save_model_only"] and saving["interval"] == 100
    assert config["mixing"]["evaluation"]["test"] is True


def test_the_options_are_written(folder):
    options = ["--steps", "60", "--seq-len", "16", "--local-batch-size", "4"]
    main(["init", "stores", "--output", "my_run.toml", *options])
    config = read_toml("my_run.toml")
    training = config["training"]
    assert (training["steps"], training["seq_len"], training["local_batch_size"]) == (60, 16, 4)
    assert training["global_batch_size"] == 32
    assert config["mixing"]["aioli"]["steps_per_round"] <= 20


def test_a_group_without_test_turns_the_last_evaluation_off(folder, capsys):
    for suffix in "bin", "idx":
        (folder / f"stores/b/test.{suffix}").unlink()
    main(["init", "stores", "--output", "my_run.toml"])
    assert read_toml("my_run.toml")["mixing"]["evaluation"]["test"] is False
    assert "test = false  # no test store: b" in (folder / "my_run.toml").read_text()
    main(["check", "my_run.toml"])


def test_a_folder_without_validation_is_left_out_and_named(folder, capsys):
    (folder / "stores/c/validation.idx").unlink()
    (folder / "stores/c/validation.bin").unlink()
    (folder / "stores/notes").mkdir()
    main(["init", "stores", "--output", "my_run.toml"])
    assert "left out group 'c': no store stores/c/validation" in capsys.readouterr().out
    assert list(read_toml("my_run.toml")["mixing"]["groups"]) == ["a", "b"]


def test_names_that_toml_must_quote(folder, capsys):
    shutil.move(folder / "stores/a", folder / 'stores/wiki "de" \u00e9')
    main(["init", "stores", "--output", "my_run.toml"])
    assert list(read_toml("my_run.toml")["mixing"]["groups"]) == ["b", "c", 'wiki "de" \u00e9']
    main(["check", "my_run.toml"])


@pytest.mark.parametrize(
    ("largest", "flavor", "seq_len"),
    [
        (1024, "mixing_debug", 256),
        (4095, "mixing_debug", 256),
        (50256, "160M", 512),
        (100_000, BIG_FLAVOR, 512),
    ],
)
def test_the_smallest_flavor_that_holds_the_vocabulary(largest, flavor, seq_len, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in "train", "validation", "test":
        write(tmp_path / "stores/law" / split, largest)
    main(["init", "stores", "--output", "my_run.toml"])
    config = read_toml("my_run.toml")
    assert (config["model"]["flavor"], config["training"]["seq_len"]) == (flavor, seq_len)


def test_a_vocabulary_that_no_flavor_holds_lists_theirs(tmp_path, capsys):
    for split in "train", "validation":
        write(tmp_path / "stores/law" / split, 300_000)
    message = refused([str(tmp_path / "stores"), "--output", str(tmp_path / "a.toml")], capsys)
    assert "a vocabulary of 300001 tokens" in message and "mixing_debug 4096" in message
    assert not (tmp_path / "a.toml").exists()


def test_only_plain_attention_is_chosen():
    from titan_aioli.hosts.installed import flavors

    names = [flavor.name for flavor in fitting_flavors(flavors(), 2048)]
    assert names[:4] == ["mixing_debug", "mixing_debug_deep", "debugmodel", "160M"]
    assert not any("flex" in name or "varlen" in name for name in names)
    sizes = {flavor.name: flavor.num_parameters for flavor in fitting_flavors(flavors(), 1000)}
    assert sizes["8B"] == pytest.approx(8.03e9, rel=0.01) and sizes["160M"] == pytest.approx(162e6, rel=0.01)


@pytest.mark.parametrize("num_groups", [1, 2, 6, 40])
@pytest.mark.parametrize("steps", [150, 1000, 20_000])
def test_three_rounds_of_aioli_fit(num_groups, steps):
    settings = aioli_round(num_groups, steps)
    keys = ("num_sweeps", "steps_per_mixture", "steps_per_round")
    method = build_method("aioli", num_groups, **{key: getattr(settings, key) for key in keys})
    rounds = walk_through(method, num_groups, steps).rounds()
    assert len(rounds) >= 3 and rounds[2] == settings.steps_per_round
    assert settings.learn_params < settings.steps_per_round
    assert 3.0 <= evaluation_budget(settings, num_groups, 16) <= 20.0


def test_a_run_too_short_for_three_rounds_is_refused(folder, capsys):
    message = refused(["stores", "--output", "my_run.toml", "--steps", "11"], capsys)
    assert "--steps 11 is too few for 3 rounds of aioli with 3 groups: at least 12" in message
    main(["init", "stores", "--output", "my_run.toml", "--steps", "12"])


def test_sequences_are_shortened_until_some_fit():
    assert [longest_sequence(2048, tokens, 8) for tokens in (20_000, 16_385, 16_384, 1025, 3)] == [
        *(2048, 2048, 1024, 128, 16)
    ]


def test_a_file_that_is_there_is_kept_without_force(folder, capsys):
    (folder / "my_run.toml").write_text("mine")
    assert "replace it with --force" in refused(["stores", "--output", "my_run.toml"], capsys)
    assert (folder / "my_run.toml").read_text() == "mine"
    words = ["stores", "--output", "my_run.toml", "--force"]
    refused([*words, "--seq-len", "5000"], capsys)  # longer than the stores
    assert (folder / "my_run.toml").read_text() == "mine"
    main(["init", *words])
    assert "mixing" in read_toml("my_run.toml")
    assert sorted(path.name for path in folder.iterdir()) == ["my_run.toml", "stores"]


FAULTS = {
    "nowhere": (["nowhere"], "no folder nowhere"),
    "no group": (["stores/a"], "holds no group"),
    "method": (["stores", "--method", "aloli"], "--method is 'aloli': choose one of"),
    "doremi": (["stores", "--method", "doremi"], "needs the result of an earlier run"),
    "steps": (["stores", "--steps", "0"], "--steps is 0"),
    "odd": (["stores", "--seq-len", "15"], "training.seq_len is 15: it must be a multiple of"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line_and_writes_nothing(case, folder, capsys):
    words, message = FAULTS[case]
    assert message in refused([*words, "--output", "my_run.toml"], capsys)
    assert not list(folder.glob("my_run*"))


def test_the_walk_of_a_new_user(tmp_path, monkeypatch, capsys):
    """Text, a tokenizer, stores, a config, and what the run would do."""
    monkeypatch.chdir(tmp_path)
    for group in "law", "code":
        (tmp_path / group).mkdir()
        for number in range(60):
            (tmp_path / group / f"{number}.txt").write_text(f"{group} text number {number}\n" * 60)
    main(["train-tokenizer", "law", "code", "--output", "tokenizer", "--vocab-size", "400"])
    for group in "law", "code":
        words = ["tokenize", group, "--group", group, "--tokenizer", "tokenizer", "--output", "stores"]
        main([*words, "--val-share", "0.2", "--test-share", "0.2", "--processes", "1"])
    main(["init", "stores", "--output", "my_run.toml"])
    main(["check", "my_run.toml", "--world-size", "2"])
    assert "llama3 mixing_small" in capsys.readouterr().out
