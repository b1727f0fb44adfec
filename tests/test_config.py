"""Every config in train_configs parses; every bad value is refused by name, in one line."""

import dataclasses
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from ranks import TINY, torchrun
from toy_stores import write_stores

from titan_aioli.config import Group, Mixing, check_types
from titan_aioli.data.sidecar import write_sidecar
from titan_aioli.errors import UserError
from titan_aioli.hyperparameters import hyperparameters
from titan_aioli.launch import launch, load_config
from titan_aioli.method_config import Aioli
from titan_aioli.methods import METHODS, build_method

CONFIGS = sorted((Path(__file__).parent.parent / "train_configs").glob("*.toml"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = write_stores(tmp_path_factory.mktemp("stores"), num_documents=4)
    data = (folder / "a" / "train.bin").read_bytes()
    for name in ("cut", "wide"):
        (folder / name).mkdir()
        for split in ("train", "validation", "test"):
            for suffix in ("bin", "idx"):
                (folder / name / f"{split}.{suffix}").write_bytes(
                    (folder / f"a/{split}.{suffix}").read_bytes()
                )
    (folder / "cut" / "train.bin").write_bytes(data[:-100])
    write_sidecar(str(folder / "wide" / "train"), {"vocab_size": 50304})
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_train_config_parses_and_its_method_can_be_built(path):
    config = load_config(["--job.config_file", str(path)])
    check_types(config.mixing, "mixing")
    mixing = config.mixing
    num_groups = len(mixing.groups)
    method = build_method(mixing.method, num_groups, **hyperparameters(mixing, [1] * num_groups))
    assert method.phase(method.init(num_groups)).proportions.sum() == pytest.approx(1)
    assert not config.checkpoint.enable or not config.checkpoint.last_save_model_only


def test_flags_override_the_file():
    flags = ["--mixing.method", "stratified", "--mixing.aioli.eta", "0.5", "--mixing.groups.a.weight", "5"]
    mixing = load_config(["--job.config_file", str(TINY), *flags]).mixing
    assert (mixing.method, mixing.aioli.eta, mixing.groups["a"].weight) == ("stratified", 0.5, 5.0)
    assert list(mixing.groups) == ["a", "b", "c"]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("stratified", "static")])
def test_a_method_and_its_config_table_have_the_same_knobs_and_defaults(name):
    method = build_method(name, 3)
    per_group = {"prior", "orders", "graph", "seed", "schedule"}
    knobs = {field.name for field in dataclasses.fields(method)} - per_group
    table = {"update_rule" if k == "update" else k: v for k, v in vars(getattr(Mixing(), name)).items()}
    assert knobs <= set(table)
    assert {knob: table[knob] for knob in knobs} == {knob: getattr(method, knob) for knob in knobs}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1.5}, "mixing.seed is 1.5: it must be int"),
        ({"audit": "yes"}, "mixing.audit is 'yes': it must be bool"),
        ({"aioli": Aioli(eta="high")}, "mixing.aioli.eta is 'high': it must be float"),
        ({"aioli": Aioli(num_sweeps=True)}, "mixing.aioli.num_sweeps is True: it must be int"),
        ({"aioli": Aioli(update="sometimes")}, "mixing.aioli.update is 'sometimes'"),
        ({"groups": {"a": Group(train="x")}}, "mixing.groups.a.train is 'x'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(change, message):
    with pytest.raises(UserError, match=message):
        check_types(Mixing(**change), "mixing")


# What is written into the TOML or given as flags, and what the one line must say.
BAD_INPUT = {
    "unknown method": (
        ["--mixing.method", "magic"],
        "mixing.method is 'magic': choose one of stratified, static",
    ),
    "unknown key": (
        "[mixing]\nmethodd = 1\n",
        r"\[mixing\] has an unknown key 'methodd'; it may have: method",
    ),
    "unknown key of a group": (
        "[mixing.groups.a]\nweigth = 1.0\n",
        "mixing.groups.a has an unknown key 'weigth'; it may have: train",
    ),
    "unknown group": (
        "[mixing.aioli.prior]\nlaw = 1.0\n",
        "mixing.aioli.prior names an unknown group 'law'; the groups are: a, b, c",
    ),
    "no groups": ("NO GROUPS", "no data groups: add a table"),
    "missing store": ("[mixing.groups.nowhere]\n", "nowhere/train.*titan-aioli tokenize"),
    "truncated store": ("[mixing.groups.cut]\n", "cut/train.bin"),
    "proportions without a positive one": (
        ["--mixing.method", "static"]
        + [word for name in "abc" for word in (f"--mixing.groups.{name}.weight", "0")],
        "static.proportions sum to 0.0: at least one weight must be positive",
    ),
    "one_hot_factor too small": (
        ["--mixing.aioli.one_hot_factor", "0.25"],
        r"aioli.one_hot_factor is 0.25: with 3 groups it must be above 1/3 = 0.3333",
    ),
    "LearnParams longer than the round": (
        ["--mixing.aioli.steps_per_round", "6"],
        r"aioli.steps_per_round is 6, but LearnParams alone takes .* 1 x 2 x 3 = 6 steps",
    ),
    "vocabulary larger than the model's": (
        "[mixing.groups.wide]\n",
        r"group 'wide': .*wide/train uses a vocabulary of 50304 tokens, the model has 4096",
    ),
    "no such config file": (["--job.config_file", "nowhere.toml"], "nowhere.toml cannot be read"),
    "not TOML": ("[mixing\n", "is not valid TOML"),
    "no such flavor": (["--model.flavor", "900B"], "model.flavor is '900B'"),
    "wrong type in TOML": ("[mixing]\nseed = 'x'\n", "mixing.seed is 'x': it must be int"),
    "seq_len longer than the data": (["--training.seq_len", "9999999"], "has no sequence of seq_len 9999999"),
}


def command(case, folder, stores):
    """The arguments of a case; text is a change of the tiny config."""
    change, message = BAD_INPUT[case]
    config = TINY.read_text()
    if isinstance(change, str):
        if change == "NO GROUPS":
            config = "\n".join(line for line in config.splitlines() if not line.startswith("[mixing.groups"))
        elif change.startswith("[mixing]\n"):
            config = config.replace("[mixing]\n", change)
        else:
            config = (
                config.replace("[mixing.groups.a]\n", "") + change if ".a]" in change else config + change
            )
        change = []
    path = folder / "config.toml"
    path.write_text(config)
    common = [
        "--job.config_file",
        str(path),
        "--job.dump_folder",
        str(folder / "run"),
        "--mixing.stores",
        str(stores),
    ]
    if "--job.config_file" in change:
        common = common[2:]
    return [*common, *change], message


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_that_says_what_to_do(case, tmp_path, stores, capfd):
    arguments, message = command(case, tmp_path, stores)
    assert launch(None, arguments) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("titan_aioli: error:")]
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]
    assert not (tmp_path / "run").exists()  # nothing half-written


@pytest.mark.xdist_group("ranks")
def test_bad_input_ends_every_rank(tmp_path, stores):
    arguments, _ = command("LearnParams longer than the round", tmp_path, stores)
    done = torchrun(2, *arguments[2:], config=arguments[1], timeout=30)
    assert done.returncode != 0
    for rank in (0, 1):
        assert f"[rank {rank}]" in done.stderr


@pytest.mark.xdist_group("ranks")
def test_resume_with_other_groups_is_refused_on_every_rank(tmp_path, stores):
    common = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, "--mixing.method", "stratified"]
    assert torchrun(2, *common, "--training.steps", "2").returncode == 0
    before = (tmp_path / "ledger.jsonl").read_bytes()
    other = tmp_path / "other.toml"
    other.write_text(TINY.read_text().replace("[mixing.groups.c]", "[mixing.groups.wide]"))
    (stores / "wide" / "train.json").unlink()
    done = torchrun(2, *common, "--training.steps", "4", config=other, timeout=60)
    assert done.returncode != 0
    assert "written with groups ['a', 'b', 'c'], this run has ['a', 'b', 'wide']" in done.stderr
    assert "[rank 0]" in done.stderr and "[rank 1]" in done.stderr
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_a_store_that_is_a_pickle_is_not_executed(tmp_path, stores):
    trap = tmp_path / "trap.npy"
    trap.write_bytes(pickle.dumps(np.array([{"a": 1}], dtype=object)))
    from titan_aioli.data.tokens import open_store

    with pytest.raises(ValueError, match=r"trap\.npy"):
        open_store(trap)
