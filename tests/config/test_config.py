"""Every config in train_configs parses; every bad value is refused by name, in one line."""

import dataclasses
import json
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from titan_aioli.config import Group, Mixing
from titan_aioli.config.hyperparameters import hyperparameters
from titan_aioli.config.methods import AioliBayesTable, AioliTable, ODMTable, StaticTable
from titan_aioli.config.sources import read_sweep_orders
from titan_aioli.config.validate import check_mixing_keys, check_types, is_hidden
from titan_aioli.errors import UserError
from titan_aioli.hosts.installed import load_config
from titan_aioli.methods import Objective, build_method
from titan_aioli.methods.walk import walk
from titan_aioli.proportions import normalize
from titan_aioli.runs.plan_file import write_plan
from titan_aioli.stores.metadata import write_sidecar
from titan_aioli.testing.forked import fork_ranks
from titan_aioli.testing.stores import write_stores
from titan_aioli.testing.torchrun import TINY

CONFIGS = sorted((Path(__file__).parents[2] / "train_configs").glob("*.toml"))


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


def test_every_default_may_be_written_in_the_file(tmp_path):
    def written(section):
        entries = {
            entry.name: getattr(section, entry.name)
            for entry in dataclasses.fields(section)
            if not is_hidden(entry)
        }
        return {
            key: written(value) if dataclasses.is_dataclass(value) else value
            for key, value in entries.items()
            if value is not None
        }

    default = Mixing()
    path = tmp_path / "all.toml"
    path.write_text(tomli_w.dumps({"mixing": written(default)}))  # a tuple becomes an array
    args = ["--job.config_file", str(path)]
    check_mixing_keys(args)
    mixing = load_config(args).mixing
    check_types(mixing, "mixing")
    assert list(mixing.aioli_bayes.looking) == list(default.aioli_bayes.looking)


def test_several_numbers_may_be_given_by_flag():
    flags = ["--mixing.aioli_bayes.looking", "0.2", "0.6", "--mixing.aioli_bayes.compare_at", "0.5"]
    table = load_config(["--job.config_file", str(TINY), *flags]).mixing.aioli_bayes
    assert (list(table.looking), list(table.compare_at)) == ([0.2, 0.6], [0.5])


@pytest.mark.parametrize("words", [["false"], ["False"]])
@pytest.mark.parametrize("joined", [True, False])
def test_switches_may_have_a_value(words, joined):
    flags = ["--mixing.evaluation.test", *words, "--mixing.progress", "true"]
    flags = [f"{flags[0]}={flags[1]}", f"{flags[2]}={flags[3]}"] if joined else flags
    mixing = load_config(["--job.config_file", str(TINY), *flags, "--mixing.seed", "4"]).mixing
    assert (mixing.evaluation.test, mixing.progress, mixing.seed) == (False, True, 4)


@pytest.mark.parametrize("key", ["orders", "seed", "update_rule"])
def test_what_a_table_inherits_and_nobody_writes_is_no_key_and_no_flag(tmp_path, key):
    config = tmp_path / "config.toml"
    config.write_text(f"[mixing.aioli]\n{key} = 1\n")
    with pytest.raises(UserError, match=rf"unknown key '{key}'.*; it may have: num_sweeps, .*, update, "):
        check_mixing_keys(["--job.config_file", str(config)])
    with pytest.raises(UserError, match="Unrecognized options"):
        load_config(["--job.config_file", str(TINY), f"--mixing.aioli.{key}", "1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1.5}, "mixing.seed is 1.5: it must be a whole number"),
        ({"audit": "yes"}, "mixing.audit is 'yes': it must be true or false"),
        ({"aioli": AioliTable(eta="high")}, "mixing.aioli.eta is 'high': it must be a number"),
        (
            {"aioli": AioliTable(num_sweeps=True)},
            "mixing.aioli.num_sweeps is True: it must be a whole number",
        ),
        (
            {"aioli": AioliTable(update="sometimes")},
            "mixing.aioli.update is 'sometimes': it must be one of 'cumulative', 'restart'$",
        ),
        ({"groups": {"a": Group(train="x")}}, "mixing.groups.a.train is 'x': it must be a "),
        (
            {"aioli_bayes": AioliBayesTable(looking=[0.1, "x"])},
            r"mixing.aioli_bayes.looking is \[0.1, 'x'\]: it must be a list of numbers$",
        ),
        (
            {"odm": ODMTable(prior={"a": 1, "b": [2]})},
            "mixing.odm.prior is {'a': 1, 'b': .2.}: it must be a table of numbers$",
        ),
        (
            {"static": StaticTable(schedule=[{"weights": {"a": 1, "b": "x"}}])},
            r"mixing.static.schedule\[0\].weights is {'a': 1, 'b': 'x'}: it must be a table of numbers$",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named(change, message):
    with pytest.raises(UserError, match=message):
        check_types(Mixing(**change), "mixing")


def test_resume_with_other_groups_is_refused_on_every_rank(tmp_path, stores):
    common = ["--job.dump_folder", tmp_path, "--mixing.stores", stores, "--mixing.method", "stratified"]
    assert fork_ranks(2, *common, "--training.steps", "2").returncode == 0
    before = (tmp_path / "ledger.jsonl").read_bytes()
    other = tmp_path / "other.toml"
    other.write_text(TINY.read_text().replace("[mixing.groups.c]", "[mixing.groups.wide]"))
    (stores / "wide" / "train.json").unlink()
    done = fork_ranks(2, *common, "--training.steps", "4", config=other, timeout=60)
    assert done.returncode != 0
    assert "written with groups ['a', 'b', 'c'], this run has ['a', 'b', 'wide']" in done.stderr
    assert done.stderr.count("titan_aioli: error: ") == 1 and "[rank 0]" in done.stderr
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_a_store_that_is_a_pickle_is_not_executed(tmp_path):
    trap = tmp_path / "trap.npy"
    trap.write_bytes(pickle.dumps(np.array([{"a": 1}], dtype=object)))
    from titan_aioli.stores.store import open_store

    with pytest.raises(ValueError, match=r"trap\.npy"):
        open_store(trap)


@pytest.mark.parametrize("key", ["prior", "prior_plan"])
def test_a_prior_that_changes_nothing_is_refused(tmp_path, key):
    write_plan(tmp_path / "plan", law="static", groups=["law", "code"], proportions=np.array([0.2, 0.8]))
    prior = {"prior": {"law": 1.0, "code": 4.0}, "prior_plan": str(tmp_path / "plan")}

    def resolved(**written):
        mixing = Mixing(method="aioli", groups={"law": {}, "code": {}}, aioli=AioliTable(**written))
        return hyperparameters(mixing, [1, 1])["prior"]

    for used in ({"prior_steps": 5}, {"start": "prior"}):
        assert np.allclose(normalize(resolved(**{key: prior[key]}, **used)), [0.2, 0.8])
    with pytest.raises(UserError, match=f'aioli.{key} is set, but prior_steps is 0 and start is "uniform"'):
        resolved(**{key: prior[key]})
    with pytest.raises(UserError, match=r"aioli\.prior and prior_plan are both set: leave one out"):
        resolved(**prior, prior_steps=5)


def recorded_orders(folder, method="aioli", **hyperparameters):
    """A folder's ledger.jsonl and mixture.json of 40 phases of Aioli; the orders that it swept in."""
    aioli = build_method("aioli", 3, num_sweeps=2, **hyperparameters)
    phases = list(islice(walk(aioli, 3, lambda _: np.ones(3)), 40))
    records = [
        {"step": s.step, "first_row": 8 * s.step, "round": s.state.round, "phase": s.phase.name,
         "proportions": s.phase.proportions.tolist()}
        for s in phases
    ]  # fmt: skip
    described = {"method": method, "groups": ["a", "b", "c"], "hyperparameters": hyperparameters}
    (folder / "mixture.json").write_text(json.dumps(described))
    write_records(folder, records)
    return records, [list(aioli.sweep_order(round_, 3)) for round_ in range(phases[-1].state.round)]


def write_records(folder, records):
    (folder / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_orders_of_a_run_are_read_though_it_was_resumed(tmp_path):
    records, orders = recorded_orders(tmp_path, seed=4)
    ledger = tmp_path / "ledger.jsonl"
    assert len(orders) == 5 and read_sweep_orders(ledger) == orders
    write_records(
        tmp_path, [*records[:4], {**records[3], "reason": "global batch size 8 -> 16"}, *records[4:]]
    )
    assert read_sweep_orders(ledger) == orders
    later = [
        {**record, "step": record["step"] + 9, "first_row": record["first_row"] + 72} for record in records
    ]
    write_records(tmp_path, [*records[:3], *later])  # it started again with another method's state
    assert read_sweep_orders(ledger) == orders


def test_the_orders_of_a_run_whose_ledger_does_not_tell_them_are_refused(tmp_path):
    for kind in ("centred", "opposite"):
        recorded_orders(tmp_path, mixtures=kind)
        with pytest.raises(
            UserError, match=rf'ledger.jsonl is of a run with mixtures = "{kind}".* set mixing.seed'
        ):
            read_sweep_orders(tmp_path / "ledger.jsonl")
    recorded_orders(tmp_path, method="aioli_bayes")
    with pytest.raises(UserError, match="is of a run of aioli_bayes: give the ledger of an aioli run"):
        read_sweep_orders(tmp_path / "ledger.jsonl")


def anchored(anchor, targets=None, shares=None, **written):
    mixing = Mixing(
        method="aioli_bayes",
        groups={"law": Group(weight=3.0), "code": Group(), "math": Group()},
        aioli_bayes=AioliBayesTable(anchor=anchor, **written),
    )
    objective = Objective(weights=shares) if shares else None
    return hyperparameters(mixing, [10, 20, 70], targets, objective, num_steps=500)


def test_the_anchor_of_aioli_bayes_is_what_the_config_names(tmp_path):
    assert anchored("even")["anchor"] is None
    assert anchored("weight")["anchor"] == [3.0, 1.0, 1.0]
    assert anchored("tokens")["anchor"] == [10, 20, 70]
    assert anchored("targets", ["math", "law"], [3.0, 1.0])["anchor"] == [0.25, 0.0, 0.75]
    write_plan(
        tmp_path / "plan.json",
        law="static",
        groups=["law", "code", "math"],
        proportions=np.array([0.2, 0.3, 0.5]),
    )
    assert anchored("plan", plan=str(tmp_path / "plan.json"))["anchor"] == [0.2, 0.3, 0.5]
    assert anchored("even")["num_steps"] == 500
    with pytest.raises(UserError, match="the targets java are no groups: choose even"):
        anchored("targets", ["java", "law"], [1.0, 1.0])
    with pytest.raises(UserError, match=r"aioli_bayes\.plan names no file"):
        anchored("plan")
    with pytest.raises(UserError, match=r'aioli_bayes\.plan is set, but its anchor is "even", so it changes'):
        anchored("even", plan=str(tmp_path / "plan.json"))


def test_a_static_plan_that_would_not_be_used_is_refused():
    mixing = Mixing(
        method="static", static=StaticTable(plan="plan.json"), groups={"a": Group(), "b": Group()}
    )
    with pytest.raises(UserError, match=r'static\.plan is set, but mixing\.static\.by is "weight"'):
        hyperparameters(mixing, [1, 1], ["a", "b"])
