"""Mixtures by step in a real loop: the rows that a schedule asks for, killed and resumed."""

import csv

import pytest

from tests.hosts.test_plain import SCHEDULE, mixing_of, tiny_model
from titan_aioli.config.methods import StaticTable
from titan_aioli.hosts.plain import train
from titan_aioli.runs.read import read_run
from titan_aioli.testing.torchrun import files

STAGES = [
    {"start_step": 0, "weights": {"a": 3.0, "b": 1.0}},
    {"start_step": 2, "weights": {"a": 1.0, "c": 1.0}},
    {"start_step": 5, "weights": {"c": 1.0}},
]


def scheduled(stores):
    mixing = mixing_of(stores, "static")
    mixing.static = StaticTable(schedule=[dict(stage) for stage in STAGES])
    return mixing


class Killed(Exception):
    """The process dies here."""


def test_a_group_begins_at_its_stage_and_a_killed_run_has_the_same_rows(tmp_path, stores):
    schedule = SCHEDULE._replace(save_freq=1)
    train(*tiny_model(), scheduled(stores), tmp_path / "whole", schedule)

    def kill_after(step):
        def after_step(done):
            if done == step:
                raise Killed

        return after_step

    for step in (1, 3, 5):  # the last checkpoint is of the step before
        with pytest.raises(Killed):
            train(
                *tiny_model(),
                scheduled(stores),
                tmp_path / "killed",
                schedule,
                after_step=kill_after(step),
            )
    train(*tiny_model(), scheduled(stores), tmp_path / "killed", schedule)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    run = read_run(tmp_path / "whole")
    assert [(record["step"], record["round"]) for record in run.records] == [(0, 0), (2, 1), (5, 2)]
    with open(tmp_path / "whole" / "rows.csv") as file:
        rows = [(int(row["step"]), row["group"]) for row in csv.DictReader(file)]
    groups = [{group for at, group in rows if at == step} for step in range(6)]
    assert groups == [{"a", "b"}] * 2 + [{"a", "c"}] * 3 + [{"c"}]
