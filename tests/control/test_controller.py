"""The controller: phases end where they should, and a run resumed at any point ends as if never stopped."""

import json
from itertools import pairwise

import numpy as np
import pytest

from tests.control.helpers import AIOLI, make_controller
from titan_aioli.control.ledger_file import read_ledger_file
from titan_aioli.control.state import pack, unpack
from titan_aioli.errors import ResumeRefused
from titan_aioli.methods import UNTIL_END, build_method

NUM_STEPS = 24


def held_out(step):
    """A loss of every group that depends on the step alone."""
    return np.array([5.0, 4.0, 3.0]) * (1 + 1 / (1 + step * np.array([0.1, 0.2, 0.3])))


def advance(controller, until, save_at=()):
    """Run to a step; states saved before and after the evaluation that ends a phase."""
    states = {}
    while True:
        if (controller.step, controller.phase_is_over) in save_at:
            states[controller.step, controller.phase_is_over] = controller.state_dict()
        if controller.phase_is_over:
            controller.finish_phase(held_out(controller.step))
        elif controller.step < until:
            controller.count_step()
        else:
            return states


def test_phases_of_a_round(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 12)
    seen = [(entry.step, entry.phase, entry.round) for entry in controller.ledger]
    learn = [(step, "learn_params", 0) for step in (0, 2, 4)]
    assert seen == [
        (0, "measure", 0),
        *learn,
        (6, "train", 0),
        (10, "learn_params", 1),
        (12, "learn_params", 1),
    ]


def test_saved_at_any_point_the_rest_is_the_same(tmp_path):
    """Also inside LearnParams, and between a phase's last step and its evaluation."""
    points = [(step, over) for step in range(NUM_STEPS) for over in (False, True)]
    whole = make_controller(tmp_path / "whole")
    whole.begin()
    states = advance(whole, NUM_STEPS, points)
    expected = whole.ledger_file.path.read_bytes()
    assert {over for _, over in states} == {False, True} and len(states) > NUM_STEPS
    for state in states.values():
        (tmp_path / "part").mkdir(exist_ok=True)
        (tmp_path / "part" / "ledger.jsonl").write_bytes(expected)  # what a killed run had written beyond
        resumed = make_controller(tmp_path / "part")
        resumed.load_state_dict(state)
        advance(resumed, NUM_STEPS)
        assert resumed.ledger_file.path.read_bytes() == expected
        assert resumed.digest() == whole.digest()


def test_stratified_has_one_phase_to_the_end(tmp_path):
    controller = make_controller(tmp_path, "stratified")
    controller.begin()
    assert controller.phase_end == UNTIL_END
    advance(controller, 1000)
    assert len(controller.ledger) == 1


def test_mixing_can_begin_in_the_middle_of_a_run(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin(step=100)
    advance(controller, 107)
    assert [(entry.step, entry.first_row) for entry in controller.ledger][-1] == (106, 106 * 8)


def test_the_file_records_observation_and_matrix(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 10)
    records = read_ledger_file(tmp_path / "ledger.jsonl")
    assert records[0]["observation"] is None
    assert records[1]["observation"] == held_out(0).tolist()
    train = next(record for record in records if record["phase"] == "train")
    assert np.shape(train["raw_A"]) == np.shape(train["solved_A"]) == (3, 3)
    assert np.shape(records[-1]["predicted_drop"]) == (3,)


def test_a_recorded_run_is_replayed_from_its_file(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, NUM_STEPS)
    records = read_ledger_file(tmp_path / "ledger.jsonl")
    method = build_method("aioli", 3, **AIOLI)
    state = method.init(3)
    for record, following in pairwise(records):
        assert method.phase(state).proportions.tolist() == record["proportions"]
        state = method.update(state, np.array(following["observation"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"groups": ("a", "b", "x")},
            r"written with groups \['a', 'b', 'c'\], this run has \['a', 'b', 'x'\]",
        ),
        ({"name": "stratified"}, "written with method aioli, this run has stratified"),
        ({"limits": "stop after a 2 epochs"}, "with limits , this run has stop after a 2 epochs"),
        (
            {"split": "a 0.9/0.05/0.05"},
            "with split , this run has a 0.9/0.05/0.05: set mixing.groups.NAME.split",
        ),
        ({"stores": "t"}, "point the groups at the same token stores"),
        ({"mixture": "a 3"}, "with mixture a 1, this run has a 3: set the weights"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    controller = make_controller(tmp_path, mixture="a 1")
    change = {"mixture": "a 1", **change}
    controller.begin()
    with pytest.raises(ResumeRefused, match=message):
        make_controller(tmp_path / "other", **change).load_state_dict(controller.state_dict())


def test_other_weights_of_a_static_run_hold_from_a_resume_that_may_adapt(tmp_path):
    def controller_of(weights, **adapt):
        method = build_method("static", 3, proportions=weights)
        return make_controller(tmp_path, "static", method=method, mixture=str(weights), **adapt)

    controller = controller_of([1, 1, 2])
    controller.begin()
    advance(controller, 5)
    state = controller.state_dict()
    assert controller_of([1, 1, 2]).load_state_dict(state)
    other = controller_of([3, 1, 0], adapt=True)
    assert not other.load_state_dict(state)  # the method restarts
    record = other.begin(5)
    assert record["proportions"].tolist() == [0.75, 0.25, 0.0]
    assert "mixture [1, 1, 2] -> [3, 1, 0]" in record["reason"]
    older = {"controller": pack({k: v for k, v in unpack(state["controller"]).items() if k != "mixture"})}
    assert controller_of([1, 1, 2]).load_state_dict(older)  # a checkpoint of an earlier version


def test_another_batch_size_continues_with_the_next_row(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 5)
    resumed = make_controller(tmp_path, batch_size=16)
    assert resumed.load_state_dict(controller.state_dict())
    advance(resumed, 12)
    records = read_ledger_file(tmp_path / "ledger.jsonl")
    assert [r["reason"] for r in records if "reason" in r] == ["global batch size 8 -> 16"]
    assert [(r["step"], r["first_row"]) for r in records][4:7] == [(5, 40), (6, 56), (10, 120)]
    assert [resumed.ledger.batch_size_at(step) for step in (0, 4, 5, 6, 11)] == [8, 8, 16, 16, 16]


def test_groups_added_and_removed_at_a_resume(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 5)
    state = controller.state_dict()
    other = make_controller(tmp_path, groups=("c", "x", "a"), adapt=True)
    assert not other.load_state_dict(state)
    record = other.begin(5, 40, np.array([7, 0, 20]))
    assert record["reason"] == "resumed with changes: added x; removed b"
    advance(other, 12)
    again = make_controller(tmp_path, groups=("c", "x", "a"), adapt=True)
    again.load_state_dict(other.state_dict())
    assert again.digest() == other.digest() and again.ledger[0].step == 5
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert lines[4]["phase"] == "measure" and lines[4]["drawn"] == [7, 0, 20]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stores": "t", "limits": "stop after a 2 epochs"}, "other stores; other limits"),
        ({"groups": ("c", "b", "a")}, "another order of groups"),
        ({"name": "stratified"}, "method aioli -> stratified"),
        ({"targets": ("x", "c")}, "added targets x; removed targets a, b"),
    ],
)
def test_the_first_record_after_a_resume_says_what_changed(tmp_path, change, words):
    first = make_controller(tmp_path)
    first.begin()
    resumed = make_controller(tmp_path, adapt=True, **change)
    resumed.load_state_dict(first.state_dict())
    assert resumed.begin(0, 0, np.zeros(3))["reason"] == f"resumed with changes: {words}"


def finish_first_phase(controller, observation):
    controller.begin()
    return controller.finish_phase(np.array(observation))


def test_targets_are_observed_saved_and_compared_by_name(tmp_path):
    controller = make_controller(tmp_path, targets=("x", "c"))
    record = finish_first_phase(controller, [3.0, np.inf])
    assert record["note"].endswith("the held-out loss of target 'c' is not finite")
    state = controller.state_dict()
    again = make_controller(tmp_path, targets=("x", "c"))
    assert again.load_state_dict(state) and again.digest() == controller.digest()
    with pytest.raises(ResumeRefused, match=r"with targets \['x', 'c'\], this run has \['x', 'y'\]"):
        make_controller(tmp_path / "other", targets=("x", "y")).load_state_dict(state)
    with pytest.raises(ResumeRefused, match=r"with targets \['x', 'c'\], this run has \['a', 'b', 'c'\]"):
        make_controller(tmp_path / "other").load_state_dict(state)
    other = make_controller(tmp_path, targets=("c", "y", "x"), adapt=True)
    assert not other.load_state_dict(state)
    record = other.begin(0, 0, np.array([0, 0, 0]))
    assert record["reason"] == "resumed with changes: added targets y"


def test_a_checkpoint_of_before_targets_is_one_of_its_groups(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    saved = unpack(controller.state_dict()["controller"])
    old = {
        name: value for name, value in saved.items() if name not in ("targets", "method_state.target_memory")
    }
    assert make_controller(tmp_path).load_state_dict({"controller": pack(old)})


def test_a_group_that_is_used_up_leaves_its_share_to_the_others(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 4)
    assert controller.phase.name == "learn_params"
    record = controller.redistribute(np.array([1]))
    assert record["reason"] == "used up: b"
    expected = controller.phase.proportions * [1, 0, 1]
    assert controller.proportions == pytest.approx(expected / expected.sum())
    resumed = make_controller(tmp_path)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.digest() == controller.digest()
    advance(resumed, NUM_STEPS)
    assert all(entry.proportions[1] == 0 for entry in list(resumed.ledger)[4:])


def test_the_end_of_a_run_is_recorded_once(tmp_path):
    """Whether the checkpoint that it is resumed from was saved before the record or after it."""
    first = make_controller(tmp_path, "stratified")
    first.begin()
    advance(first, 3)
    before = first.state_dict()
    first.end("out of data")
    for saved in (before, first.state_dict()):
        resumed = make_controller(tmp_path, "stratified")
        resumed.load_state_dict(saved)
        resumed.end("out of data")
        records = read_ledger_file(tmp_path / "ledger.jsonl")
        assert [record.get("reason") for record in records] == [None, "out of data"]
    resumed.count_step()  # with more data
    resumed.end("out of data again")
    assert [record["step"] for record in read_ledger_file(tmp_path / "ledger.jsonl")] == [0, 3, 4]


def test_damaged_state_is_refused_not_executed(tmp_path):
    with pytest.raises(ResumeRefused, match="cannot be read"):
        make_controller(tmp_path).load_state_dict({"controller": b"cos\nsystem\n(S'true'\ntR."})


def test_one_bit_of_a_proportion_changes_the_digest(tmp_path):
    one, other = make_controller(tmp_path), make_controller(tmp_path)
    other.state = other.state._replace(proportions=np.nextafter(other.state.proportions, 1))
    assert one.digest() != other.digest()


def test_the_ledger_file_is_plain_json(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    line = (tmp_path / "ledger.jsonl").read_text()
    assert json.loads(line)["proportions"] == [1 / 3] * 3


def test_other_held_out_sets_are_refused_or_restart_the_method(tmp_path):
    """Losses before and after the resume would be of different texts."""
    first = make_controller(tmp_path, held_out="x")
    first.begin()
    advance(first, 3)
    saved = first.state_dict()
    assert make_controller(tmp_path, held_out="x").load_state_dict(saved)
    with pytest.raises(ResumeRefused, match="written with other held-out sets: point validation stores"):
        make_controller(tmp_path, held_out="y").load_state_dict(saved)
    adapted = make_controller(tmp_path, held_out="y", adapt=True)
    assert not adapted.load_state_dict(saved)
    reason = adapted.begin(3, 24, np.array([8, 8, 8]), np.zeros(3))["reason"]
    assert reason == "resumed with changes: other held-out sets"
    older = {name: array for name, array in unpack(saved["controller"]).items() if name != "held_out"}
    assert make_controller(tmp_path, held_out="y").load_state_dict({"controller": pack(older)})


def test_other_stores_are_named_by_their_groups(tmp_path):
    first = make_controller(tmp_path, stores="abc", group_stores=("a", "b", "c"))
    first.begin()
    other = make_controller(tmp_path / "other", stores="axy", group_stores=("a", "x", "y"))
    with pytest.raises(ResumeRefused, match=r"other stores of b, c: point .* and mixing.train_share, set"):
        other.load_state_dict(first.state_dict())
    assert first.digest() != other.digest()
    older = unpack(first.state_dict()["controller"])
    del older["group_stores"]
    with pytest.raises(ResumeRefused, match="with stores abc, this run has axy"):
        other.load_state_dict({"controller": pack(older)})


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 1}, "mixing.seed"), ({"seq_len": 8}, "training.seq_len")]
)
def test_what_rows_stand_for_never_changes_at_a_resume(tmp_path, change, key, adapt):
    first = make_controller(tmp_path)
    first.begin()
    saved = first.state_dict()
    with pytest.raises(ResumeRefused, match=rf"with {key} \d, this run has {next(iter(change.values()))}"):
        make_controller(tmp_path, adapt=adapt, **change).load_state_dict(saved)


def test_a_checkpoint_that_knows_no_seed_is_taken(tmp_path):
    first = make_controller(tmp_path)
    first.begin()
    arrays = {
        k: v for k, v in unpack(first.state_dict()["controller"]).items() if k not in ("seed", "seq_len")
    }
    assert make_controller(tmp_path, seed=5).load_state_dict({"controller": pack(arrays)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"num_sweeps": 2, "steps_per_round": 20},
            "aioli.num_sweeps was 1 and is 2, and the checkpoint holds measurements",
        ),
        ({"steps_per_mixture": 1}, "aioli.steps_per_mixture was 2 and is 1"),
        ({"one_hot_factor": 0.9}, "aioli.one_hot_factor was 0.75 and is 0.9"),
        ({"mixtures": "centred", "pooling": 0.5}, "aioli.mixtures was one_hot and is centred"),
        ({"orders": [[0, 1, 2], [1, 0, 2]]}, "aioli.orders was"),
    ],
)
def test_settings_of_learn_params_may_change_between_rounds_only(tmp_path, change, words):
    def saved_after(num_steps):
        controller = make_controller(tmp_path / str(num_steps))
        controller.begin()
        advance(controller, num_steps)
        return controller.state_dict()

    def other(folder):
        return make_controller(folder, method=build_method("aioli", 3, **{**AIOLI, **change}))

    for num_steps in (1, 3, 13):
        with pytest.raises(ResumeRefused, match=words):
            other(tmp_path / "other").load_state_dict(saved_after(num_steps))
    changed = other(tmp_path / "8")
    assert changed.load_state_dict(saved_after(8))
    assert changed.phase.name == "train"


@pytest.mark.parametrize("num_steps", [0, 8, 64, 65])
def test_the_stretches_of_aioli_bayes_stay_as_long_when_a_run_gets_longer(tmp_path, num_steps):
    """Also at the end of a run and in its first steps, where no stretch is perturbed."""

    def make(folder, **settings):
        return make_controller(tmp_path / folder, method=build_method("aioli_bayes", 3, **settings))

    first = make("first", num_steps=1024)
    first.begin()
    advance(first, num_steps)
    saved = first.state_dict()
    with pytest.raises(ResumeRefused, match=r"steps_per_stretch was 8 and is 16.* set it to 8"):
        make("second", num_steps=2048).load_state_dict(saved)
    assert make("third", num_steps=2048, steps_per_stretch=8).load_state_dict(saved)


def test_a_ledger_file_that_is_lost_is_written_again_as_long_as_it_was(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 9)
    first, path = controller.state_dict(), tmp_path / "ledger.jsonl"
    steps = [record["step"] for record in read_ledger_file(path)]
    path.unlink()
    second = make_controller(tmp_path)
    second.load_state_dict(first)
    assert [record["step"] for record in read_ledger_file(path)] == steps
    state = second.state_dict()
    advance(second, 20)
    third = make_controller(tmp_path)
    third.load_state_dict(state)
    assert [record["step"] for record in read_ledger_file(path)] == steps
    path.unlink()
    other = make_controller(tmp_path, "stratified", adapt=True)  # another method: the old lines are kept too
    other.load_state_dict(first)
    other.begin(9, 72)
    assert [record["step"] for record in read_ledger_file(path)] == [*steps, 9]


def test_a_lost_ledger_file_keeps_what_was_drawn_before_a_resume_with_a_change(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    advance(controller, 5)
    changed = make_controller(tmp_path, stores="t", adapt=True)
    changed.load_state_dict(controller.state_dict())
    changed.begin(5, 40, np.array([7, 13, 20]), np.array([0.1, -0.3, 0.2]))
    advance(changed, 8)
    path, before = tmp_path / "ledger.jsonl", len(controller.ledger)
    first, state = read_ledger_file(path)[before], changed.state_dict()
    for _ in range(2):
        path.unlink()
        again = make_controller(tmp_path, stores="t")
        again.load_state_dict(state)
        assert read_ledger_file(path)[0] == first
        state = again.state_dict()


def test_a_checkpoint_that_does_not_know_how_its_ledger_began_is_taken(tmp_path):
    controller = make_controller(tmp_path)
    controller.begin()
    arrays = unpack(controller.state_dict()["controller"])
    del arrays["begun_with"]
    assert make_controller(tmp_path).load_state_dict({"controller": pack(arrays)})


@pytest.mark.parametrize(
    ("schedule", "step", "share", "phase_end"),
    [([[0, [3, 1]], [6, [1, 1]]], 8, 0.5, UNTIL_END), ([[0, [3, 1]], [6, [1, 1]], [9, [1, 3]]], 8, 0.5, 9)],
)
def test_a_schedule_that_begins_in_the_middle_is_at_its_stage(tmp_path, schedule, step, share, phase_end):
    method = build_method("static", 2, schedule=schedule)
    controller = make_controller(tmp_path, groups=("a", "b"), method=method)
    controller.begin(step)
    assert controller.proportions[0] == share and controller.phase_end == phase_end


def test_a_replay_that_begins_in_the_middle_keeps_the_recorded_steps(tmp_path):
    recorded = [[100, "train", 0, [0.75, 0.25]], [110, "train", 1, [0.5, 0.5]]]
    method = build_method("replay", 2, schedule=recorded)
    for begin, share, phase_end in ((0, 0.75, 110), (105, 0.75, 110), (110, 0.5, UNTIL_END)):
        controller = make_controller(tmp_path, groups=("a", "b"), method=method)
        controller.begin(begin)
        assert controller.proportions[0] == share and controller.phase_end == phase_end
