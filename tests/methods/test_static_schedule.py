"""A schedule of mixtures by step: the phases, the config, and what cannot be."""

import json

import numpy as np
import pytest

from titan_aioli.config import Mixing
from titan_aioli.config.hyperparameters import guard_arguments, hyperparameters
from titan_aioli.config.methods import StaticTable
from titan_aioli.errors import UserError
from titan_aioli.files import read_toml
from titan_aioli.hosts.installed import load_config
from titan_aioli.methods import UNTIL_END, build_method
from titan_aioli.methods.walk import walk
from titan_aioli.testing.methods import check_method
from titan_aioli.testing.torchrun import TINY

STAGES = [[0, [3, 1, 0]], [10, [1, 1, 2]], [16, [0, 0, 1]]]


def test_each_stage_lasts_up_to_the_next():
    method = build_method("static", 3, schedule=STAGES)
    check_method(method, 3)
    stretches = list(walk(method, 3, lambda _: None, num_steps=20))
    assert [(s.step, s.num_steps, s.state.round) for s in stretches] == [(0, 10, 0), (10, 6, 1), (16, 4, 2)]
    mixtures = [s.phase.proportions.tolist() for s in stretches]
    assert mixtures == [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 0, 1]]
    assert stretches[-1].phase.num_steps == UNTIL_END


def test_one_mixture_is_one_phase():
    method = build_method("static", 2, proportions=[3, 1])
    assert method.phase(method.init(2)).num_steps == UNTIL_END


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([], "static.schedule begins at no step: its first stage must have start_step 0"),
        ([[5, [1, 1]]], r"static.schedule begins at \[5\]"),
        (
            [[0, [1, 1]], [0, [1, 2]]],
            r"schedule\[1\].start_step is 0: .* at least 1 \(stages are in the order",
        ),
        ([[0, [1, 1]], [4.5, [1, 2]]], r"schedule\[1\].start_step is 4.5: it must be a whole number"),
        ([[0, [1]]], r"schedule\[0\].weights has 1 numbers for 2 groups"),
        ([[0, [0, 0]]], r"schedule\[0\].weights sum to 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        build_method("static", 2, schedule=schedule)


def config_with(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(TINY.read_text() + text)
    return path


SCHEDULE = """
[[mixing.static.schedule]]
start_step = 0
weights = {a = 3.0, b = 1.0}
[[mixing.static.schedule]]
start_step = 6
plan = "PLAN"
"""


@pytest.fixture
def plan(tmp_path):
    """Path of a plan for the groups of the tiny config."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"groups": ["c", "a", "b"], "proportions": [0.5, 0.25, 0.25]}))
    return path


def test_stages_are_written_by_group_or_as_a_plan(tmp_path, plan):
    path = config_with(tmp_path, SCHEDULE.replace("PLAN", str(plan)))
    mixing = load_config(["--job.config_file", str(path), "--mixing.method", "static"]).mixing
    values = hyperparameters(mixing, [1, 1, 1])
    assert values["schedule"] == [[0, [3.0, 1.0, 0.0]], [6, [0.25, 0.25, 0.5]]]
    assert build_method("static", 3, **values).init(3).proportions.tolist() == [0.75, 0.25, 0]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"start": 0}], r"schedule\[0\] has an unknown key 'start' .*; it may have: start_step, weights"),
        ([3], r"schedule\[0\] is 3: it must be a table \[\[mixing.static.schedule\]\]"),
        ([{"weights": {"web": 1.0}}], r"schedule\[0\].weights names an unknown group 'web'"),
        ([{"weights": {"a": 1.0}, "plan": "x"}], r"schedule\[0\] needs either weights or a plan"),
        ([{}], r"schedule\[0\] needs either weights or a plan"),
    ],
)
def test_stages_that_cannot_be_are_refused_by_number(stages, message):
    with pytest.raises(UserError, match=message):
        table = StaticTable(schedule=stages)
        hyperparameters(Mixing(method="static", groups={"a": {}, "b": {}}, static=table), [1, 1])


def test_a_schedule_beside_another_source_is_refused():
    table = StaticTable(by="tokens", schedule=[{"weights": {"a": 1.0}}])
    with pytest.raises(UserError, match="leave out one of the two"):
        hyperparameters(Mixing(method="static", groups={"a": {}, "b": {}}, static=table), [1, 1])


def test_a_plan_first_and_aioli_around_it_is_one_config(tmp_path, plan):
    text = f'''
prior_plan = "{plan}"
prior_steps = 8
[mixing.guards]
anchor_plan = "{plan}"
anchor_strength = 0.5
'''
    path = tmp_path / "config.toml"
    path.write_text(
        TINY.read_text().replace("num_sweeps = 1", text.partition("[mixing.guards]")[0] + "num_sweeps = 1")
    )
    path.write_text(path.read_text() + "[mixing.guards]" + text.partition("[mixing.guards]")[2])
    mixing = load_config(["--job.config_file", str(path)]).mixing
    assert read_toml(path)["mixing"]["aioli"]["prior_steps"] == 8
    method = build_method("aioli", 3, **hyperparameters(mixing, [1, 1, 1]))
    first = method.phase(method.init(3))
    assert (first.name, first.num_steps, first.proportions.tolist()) == ("prior", 8, [0.25, 0.25, 0.5])
    bounds = guard_arguments(mixing)
    assert bounds is not None and bounds["anchor"] == [0.25, 0.25, 0.5]
    mixing.guards.anchor = {"a": 1.0}
    with pytest.raises(UserError, match="anchor and anchor_plan are both set"):
        guard_arguments(mixing)


def test_no_guard_is_no_guard():
    assert guard_arguments(Mixing(groups={"a": {}})) is None
    np.testing.assert_array_equal(build_method("static", 1).init(1).proportions, [1.0])
