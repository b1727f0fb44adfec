"""What-if: a recorded ledger fed to its own method, to other hyperparameters, to another method."""

import json
import re
from itertools import islice

import numpy as np
import pytest

from titan_aioli.cli import main
from titan_aioli.commands import replay as command
from titan_aioli.commands.replay import other_method, what_if
from titan_aioli.commands.simulate.linear import LinearWorld
from titan_aioli.methods import Guarded, build_method
from titan_aioli.methods.walk import walk
from titan_aioli.runs.read import read_run


def record(name, num_entries, guards=None, **hyperparameters):
    """A ledger as a run writes it, from a world of two groups."""
    method, world = build_method(name, 2, **hyperparameters), LinearWorld(2, 100_000, noise=1e-4)
    method = Guarded(method, **guards) if guards else method
    losses, seen, records = world.start, None, []

    def observe(stretch):
        nonlocal losses, seen
        proportions = stretch.phase.proportions
        before, losses = losses, world.train(losses, proportions, stretch.step, stretch.num_steps)
        seen = world.observe(method.observes, before, losses, proportions, len(records) - 1, stretch.step)
        return seen

    for step, _, phase, state in islice(walk(method, 2, observe), num_entries):
        records.append(
            {
                "step": step,
                "first_row": 8 * step,
                "round": state.round,
                "phase": phase.name,
                "proportions": phase.proportions.tolist(),
                "observation": None if seen is None else seen.tolist(),
                **{key: value.tolist() for key, value in method.report(state).items() if key == "centre"},
            }
        )
    return records


AIOLI = {"num_sweeps": 2, "eta": 0.5, "seed": 3}


def through_json(records):
    return [json.loads(json.dumps(entry)) for entry in records]


@pytest.mark.parametrize(
    "name", ["aioli", "aioli_bayes", "aioli_gradients", "skill_it", "doremi", "doge", "odm", "ado"]
)
def test_a_run_replayed_through_its_own_method_decides_as_recorded(name):
    records = through_json(record(name, 80))
    assert what_if(records, name, build_method(name, 2)).is_same


def test_records_of_what_else_has_changed_are_passed_over():
    """A resume with another batch size, a group that is used up, the end of the data."""
    records = through_json(record("aioli", 40))
    for at in (30, 12, 7):
        aside = {**records[at], "observation": None, "reason": "global batch size 8 -> 16"}
        records.insert(at + 1, aside)
    result = what_if(records, "aioli", build_method("aioli", 2))
    assert result.is_same and len(result.steps) == 40


STAGES = {"static": [[0, [3, 1]], [10, [1, 1]]], "replay": [[0, "train", 0, [1, 0]], [9, "prior", 1, [0, 1]]]}


@pytest.mark.parametrize("name", STAGES)
def test_a_schedule_is_replayed_at_the_steps_of_the_entries(name):
    records = through_json(record(name, 2, schedule=STAGES[name]))
    ended = {**records[-1], "step": 40}  # as where the data end
    assert what_if([*records, ended], name, build_method(name, 2, schedule=STAGES[name])).is_same
    assert not what_if([*records, ended], name, build_method("stratified", 2)).is_same


def test_of_perturbed_stretches_what_they_are_around_is_shown():
    records = through_json(record("aioli_bayes", 80))
    result = what_if(records, "aioli_bayes", build_method("aioli_bayes", 2))
    kept, mixtures = result.recorded.mixtures()
    perturbed = [n for n, entry in enumerate(records) if entry["phase"] == "learn_params"]
    assert len(set(perturbed) & set(kept)) > 40  # all but those before the first evidence
    for n, mixture in zip(kept, mixtures, strict=True):
        assert mixture.tolist() == records[n].get("centre", records[n]["proportions"])
    np.testing.assert_array_equal(result.other.mixtures()[1], mixtures)


def test_another_eta_moves_the_proportions_further_and_measures_the_same():
    records = record("aioli", 30, **AIOLI)
    result = what_if(records, "aioli", build_method("aioli", 2, **{**AIOLI, "eta": 1.0}))
    assert not result.is_same and result.other.phases == result.recorded.phases
    trained = np.array([phase == "train" for phase in result.other.phases])
    np.testing.assert_array_equal(result.other.proportions[~trained], result.recorded.proportions[~trained])
    # A is the same, so the log odds of the first training phase double
    before, after = (
        np.log(p[trained][0, 0] / p[trained][0, 1])
        for p in (result.recorded.proportions, result.other.proportions)
    )
    assert after == pytest.approx(2 * before)


def test_another_method_with_the_same_kind_of_observation_can_be_asked():
    records = record("aioli", 20, **AIOLI)
    skill_it = build_method("skill_it", 2, steps_per_round=1, window=1, eta=1.0)
    result = what_if(records, "aioli", skill_it)
    last = np.array(records[-1]["observation"])
    np.testing.assert_allclose(result.other.proportions[-1], np.exp(last) / np.exp(last).sum())
    even = what_if(records, "aioli", build_method("stratified", 2)).other
    assert even.proportions[-1].tolist() == [0.5, 0.5]


def test_what_was_not_recorded_cannot_be_asked():
    records = record("aioli", 20, **AIOLI)
    with pytest.raises(ValueError, match="recorded validation, the other method needs gradients"):
        what_if(records, "aioli", build_method("doge", 2))
    with pytest.raises(
        ValueError, match=r"line 2: the other method would measure the mixture .* not what was measured"
    ):
        what_if(records, "aioli", build_method("aioli", 2, **{**AIOLI, "one_hot_factor": 0.9}))
    records[5]["observation"] = None
    with pytest.raises(ValueError, match="line 6 has no observation"):
        what_if(records, "aioli", build_method("aioli", 2, **AIOLI))


def dump(folder, records, **more):
    (folder / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in records))
    mixture = {"method": "aioli", "groups": ["web", "code"], "hyperparameters": AIOLI, **more}
    (folder / "mixture.json").write_text(json.dumps(mixture))


def test_the_command_reads_a_dump_folder(tmp_path, capsys):
    dump(tmp_path, record("aioli", 30, **AIOLI))
    figure = tmp_path / "replay.png"
    main(f"replay {tmp_path} --output {figure}".split())
    assert "decided as recorded" in capsys.readouterr().out and figure.is_file()
    main(f"replay {tmp_path} --output {figure} --set aioli.eta=1.0".split())
    assert "recorded -> aioli" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recorded", "flags", "message"),
    [
        ("aioli", ["--method", "magic"], "--method is 'magic': choose one of stratified"),
        ("magic", [], r"the method in .*mixture\.json is 'magic': choose one of"),
    ],
)
def test_an_unknown_method_is_one_line(tmp_path, capsys, recorded, flags, message):
    dump(tmp_path, record("aioli", 5, **AIOLI), method=recorded, objective={"weights": [2.0, 1.0]})
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(tmp_path), *flags])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_figure_shows_the_last_phase_to_the_end_of_the_run(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(command, "save", lambda figure, output: figures.append(figure))
    (tmp_path / "results.json").write_text('{"step": 900}')
    for num_entries in (1, 30):
        records = record("aioli", num_entries, **AIOLI)
        dump(tmp_path, records)
        assert records[-1]["step"] < 900
        main(["replay", str(tmp_path)])
        for axis in figures.pop().axes:
            assert all(line.get_xdata()[-1] == 900 for line in axis.lines) and axis.lines


def test_names_are_no_markup(tmp_path, capsys):
    dump(tmp_path, record("aioli", 30, **AIOLI), groups=["web[en]", "code"])
    main(["replay", str(tmp_path), "--set", "aioli.eta=1.0", "--output", str(tmp_path / "x[a].png")])
    out = capsys.readouterr().out
    assert "web[en]" in out and out.endswith(f"figure: {tmp_path}/x[a].png\n")


def test_guards_of_the_run_stay_on(tmp_path):
    guards = {"min_share": 0.1, "max_change": 0.01, "anchor": None, "anchor_strength": 0.0}
    records = record("aioli", 30, guards, **AIOLI)
    dump(tmp_path, records, guards=guards)
    assert what_if(records, "aioli", other_method(read_run(tmp_path), "aioli", {})).is_same
    assert not what_if(records, "aioli", build_method("aioli", 2, **AIOLI)).is_same


@pytest.mark.parametrize(
    ("more", "flags", "message"),
    [
        ({"hyperparameters": {"eta": "x"}}, [], "mixture.json: aioli.eta is 'x': it must be a number"),
        ({"hyperparameters": {"eta": -1}}, [], "mixture.json: aioli.eta is -1: "),
        ({"guards": {"least": 1}}, [], "mixture.json: guards has no hyperparameter 'least'"),
        (
            {},
            ["--set", "aioli.prior=3"],
            "mixture.json and --set: aioli.prior is 3: it must be a list of numbers",
        ),
    ],
)
def test_hyperparameters_that_the_method_refuses_are_one_line(tmp_path, capsys, more, flags, message):
    dump(tmp_path, record("aioli", 5, **AIOLI), **more)
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(tmp_path), *flags])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
