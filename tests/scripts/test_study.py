"""The study's file, its derived stores, and its statistics."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from scripts.support.study_data import derive
from scripts.support.study_report import outcomes, read_csv, write_csv
from scripts.support.study_runs import Result, Run, final_losses
from scripts.support.study_settings import StopRule, read_study
from scripts.support.study_statistics import advice, compare, share_of_gap
from titan_aioli.errors import UserError
from titan_aioli.stores.megatron import MegatronWriter
from titan_aioli.stores.store import open_store

SETTINGS = Path(__file__).parents[2] / "scripts" / "study_settings.toml"
RULE = StopRule(standard_errors=2.0, pairs=3, most_pairs=12)


@pytest.fixture
def sources(tmp_path):
    """Stores of x and y whose tokens are all different: 100 documents of 10 tokens, and 60."""
    for first, (name, count) in zip((0, 5000), (("x", 100), ("y", 60)), strict=True):
        for split in ("train", "validation", "test"):
            with MegatronWriter(tmp_path / name / split, "uint16") as writer:
                for document in range(count):
                    writer.add(np.arange(10) + first + 10 * document)
    return tmp_path


def tokens(folder, name, split="train"):
    return np.array(open_store(folder / name / split).tokens[:])


def test_blends_share_no_token_and_have_their_shares(sources):
    recipes = {"a": {"blend": {"x": 0.7, "y": 0.3}}, "b": {"blend": {"x": 0.3, "y": 0.7}}}
    derive(sources, recipes, ["a", "b"])
    a, b = tokens(sources, "a"), tokens(sources, "b")
    assert len(np.unique(np.concatenate([a, b]))) == len(a) + len(b) == 1200  # of y's 600, and as many of x
    assert (a < 5000).mean() == pytest.approx(0.7, abs=0.02)
    assert (b < 5000).mean() == pytest.approx(0.3, abs=0.02)


def test_blends_that_take_more_than_a_source_has_are_refused(sources):
    recipes = {name: {"blend": {"x": 0.6, "y": 0.4}} for name in "ab"}
    with pytest.raises(UserError, match="more than the whole of x"):
        derive(sources, recipes, ["a"])


def test_a_cut_keeps_the_first_tokens_and_the_held_out_sets(sources):
    derive(sources, {"few": {"cut": {"x": 25}}}, ["few"])
    assert (tokens(sources, "few") == np.arange(25)).all()
    assert len(tokens(sources, "few", "test")) == 1000


def test_excerpts_are_each_of_another_document(sources, monkeypatch):
    monkeypatch.setattr("scripts.support.study_data.EXCERPT_TOKENS", 4)
    derive(sources, {"few": {"excerpts": {"x": 23}}}, ["few"])
    excerpts = tokens(sources, "few").reshape(5, 4)
    assert (np.diff(excerpts) == 1).all()
    assert (excerpts[:, 0] // 10 == excerpts[:, 3] // 10).all()
    assert len(np.unique(excerpts[:, 0] // 10)) == 5
    assert len(tokens(sources, "few", "test")) == 1000


def test_a_shuffled_store_has_the_tokens_in_another_order(sources):
    derive(sources, {"useless": {"shuffle": "x"}}, ["useless"])
    found = tokens(sources, "useless")
    assert (np.sort(found) == tokens(sources, "x")).all()
    assert (found[1:] - found[:-1] == 1).mean() < 0.1


def test_every_mixture_of_the_grids_is_one_and_no_two_are_the_same():
    for setting in read_study(SETTINGS).settings.values():
        mixtures = [[arm.weights[group] for group in setting.groups] for arm in setting.grid().values()]
        assert np.sum(mixtures, axis=1) == pytest.approx(np.ones(len(mixtures))) and np.min(mixtures) >= 0
        for one, other in combinations([*mixtures, np.full(len(setting.groups), 1 / len(setting.groups))], 2):
            assert not np.allclose(one, other)


def test_target_weights_are_an_arm_where_the_targets_are_groups():
    study = read_study(SETTINGS)
    having = {name for name, each in study.settings.items() if "target_weights" in each.arms(study.arms)}
    assert having == {"S1", "S3", "S4"}


def test_limits_on_repetition_are_an_arm_where_the_setting_says_which():
    study = read_study(SETTINGS)
    having = {
        name for name, each in study.settings.items() if "aioli_gradients_spread" in each.arms(study.arms)
    }
    assert having == {name for name, each in study.settings.items() if each.max_epochs} == {"S3"}
    assert all(set(each.max_epochs) <= set(each.groups) for each in study.settings.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("targets = { python = 1.0 }", "target = { python = 1.0 }", r"settings.S2.*unknown key 'target'"),
        ("legal = 0.70, python = 0.20", "legal = 0.90, python = 0.20", "at most 1 together"),
        ('method = "odm"', 'method = "odn"', "arms.odm.method is 'odn'"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, old, new, message):
    text = SETTINGS.read_text()
    assert old in text
    (tmp_path / "study.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_study(tmp_path / "study.toml")


def test_the_final_loss_is_the_mean_of_the_last_evaluations_for_the_log():
    lines = [{"step": step, "validation_loss": [step, 0.0]} for step in (0, 10, 20, 25, 30, 33)]
    assert final_losses(lines, freq=10, count=2)["validation_loss"].tolist() == [25.0, 0.0]


def test_paired_and_unpaired_spread_and_the_t_interval():
    found = compare(np.array([1.0, 2.0, 3.0]), np.array([1.1, 2.2, 3.3]))
    assert found.mean == pytest.approx(-0.2) and found.paired_sd == pytest.approx(0.1)
    assert found.unpaired_sd == pytest.approx(math.sqrt(1 + 1.21))
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3))  # t of 2 degrees of freedom


def difference(*values):
    return compare(np.array(values), np.zeros(len(values)))


def test_the_share_of_the_gap_is_only_said_where_there_is_one():
    seen, unseen = difference(-0.4, -0.5, -0.6), difference(-0.1, 0.1, -0.05)
    assert share_of_gap(difference(-0.2, -0.25, -0.3), seen, 2.0) == pytest.approx(0.5)
    assert share_of_gap(difference(-0.2, -0.25, -0.3), unseen, 2.0) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((-0.1, -0.2), "1 more"),
        ((-0.1, -0.11, -0.12), "decided"),
        ((-1.0, -2.0, 0.0), "1 more"),  # sd / mean = 1: 4 pairs in all
        ((-0.1, 0.12, 0.0), "stop, undecided"),
    ],
)
def test_the_stop_rule(values, said):
    assert advice(difference(*values), RULE) == said


def test_seeds_are_paired_whatever_their_order():
    def result(arm, seed, loss):
        return Result(Run("S", 16, arm, seed), loss, loss, loss, 0.0, {})

    runs = [result("stratified", 0, 1.0), result("stratified", 1, 2.0)]
    runs += [result("aioli", 1, 1.5), result("aioli", 0, 0.9)]
    found = outcomes(runs)["S", 16]
    assert list(found) == ["aioli", "stratified"]
    assert sorted(found["aioli"].loss.differences) == pytest.approx([-0.5, -0.1])


def test_reported_runs_come_back_from_the_csv(tmp_path):
    runs = [Run("S1", 16, "stratified", seed) for seed in (0, 1)]
    results = [Result(run, 1.25, 2.5, 1.5, 0.125, {"a": 0.25, "b": 0.75}) for run in runs]
    chosen = Result(Run("S1", 16, "static_a", 100), 1.0, 1.0, 1.0, 0.0, {"a": 1.0, "b": 0.0})
    write_csv(tmp_path / "study.csv", results, [chosen])
    assert read_csv(tmp_path / "study.csv") == results
