"""What a run shows of an update, and the files that it leaves."""

import json
import logging

import numpy as np
from tqdm import tqdm

from titan_aioli.methods import Objective
from titan_aioli.runs.log import RunLog
from titan_aioli.runs.results import result, target_result
from titan_aioli.runs.updates import Targets

RECORD = {"step": 8, "round": 1, "phase": "train", "proportions": [0.75, 0.25], "observation": [3.0, 2.0]}


def make_log(folder, observes="validation"):
    return RunLog(folder, ["law", "code"], observes, is_writer=True, progress=tqdm(disable=True))


def test_metrics_are_what_was_decided_seen_and_learned(tmp_path):
    learned = {"aioli/stderr": np.array([0.5, np.nan]), "mixing/predicted_drop": np.array([0.25, 0.5])}
    metrics = make_log(tmp_path).update_metrics(RECORD, learned)
    assert metrics == {
        "mixing/proportion/law": 0.75,
        "mixing/proportion/code": 0.25,
        "mixing/round": 1,
        "mixing/phase": 2,
        "mixing/validation_loss/law": 3.0,
        "mixing/validation_loss/code": 2.0,
        "mixing/validation_loss_mean": 2.5,
        "aioli/stderr/law": 0.5,
        "mixing/predicted_drop/law": 0.25,
        "mixing/predicted_drop/code": 0.5,
    }


def test_a_sample_of_the_held_out_sequences_has_a_metric_of_its_own(tmp_path):
    metrics = make_log(tmp_path, "sample").update_metrics(RECORD, {})
    assert metrics["mixing/sampled_validation_loss/law"] == 3.0
    assert "mixing/validation_loss_mean" not in metrics


def test_an_update_is_one_line_if_it_is_shown(tmp_path, caplog):
    log = make_log(tmp_path)
    drops = {"predicted_drop": [0.25, 0.5], "measured_drop": [0.5, 0.5]}
    with caplog.at_level(logging.INFO):
        log.show_update(RECORD, 4, is_shown=False)
        log.show_update({**RECORD, **drops, "note": "why"}, None, is_shown=True)
    assert caplog.messages == [
        "mixing: step 8, round 1: train to the end on law 0.750, code 0.250 | validation loss law 3.0000, "
        "code 2.0000, mean 2.5000 | drop predicted 0.3750, measured 0.5000 | why"
    ]


def test_what_a_method_judges_and_gains_is_shown(tmp_path, caplog):
    log, record = make_log(tmp_path), {**RECORD, "gain": np.array([0.12, 0.03]), "probability": 0.96}
    metrics = log.update_metrics(record, {})
    shown = {"aioli/gain": 0.12, "aioli/gain_stderr": 0.03, "aioli/probability": 0.96}
    assert shown.items() <= metrics.items()
    with caplog.at_level(logging.INFO):
        log.show_update(record, 4, is_shown=True)
    assert caplog.messages[0].endswith(" | gain +0.1200 \u00b1 0.0300, probability 0.960")


def test_a_measured_gain_is_shown(tmp_path, caplog):
    log, record = make_log(tmp_path), {**RECORD, "measured_gain": np.array([0.1, 0.02])}
    shown = {"aioli/measured_gain": 0.1, "aioli/measured_gain_stderr": 0.02}
    assert shown.items() <= log.update_metrics(record, {}).items()
    with caplog.at_level(logging.INFO):
        log.show_update(record, 4, is_shown=True)
    assert caplog.messages[0].endswith(" | measured gain +0.1000 \u00b1 0.0200")


def test_the_speed_that_gradients_say_is_shown(tmp_path, caplog):
    found = {"best": [0.5, 0.5], "trust": 0.5, "speed": np.array([1.25, 0.03])}
    found |= {"gain_steps": np.array([340.2, 50.7])}
    log, record = make_log(tmp_path), {**RECORD, **found}
    shown = {"aioli/trust": 0.5, "aioli/speed": 1.25, "aioli/speed_stderr": 0.03}
    shown |= {"aioli/gain_steps": 340.2, "aioli/gain_steps_stderr": 50.7}
    assert shown.items() <= log.update_metrics(record, {}).items()
    with caplog.at_level(logging.INFO):
        log.show_update(record, 4, is_shown=True)
    assert caplog.messages[0].endswith("speed 1.25 \u00b1 0.03 | gain +340 \u00b1 51 steps")


def test_what_is_seen_of_targets_is_named_by_target(tmp_path, caplog):
    targets = Targets(["math", "code", "all"], Objective(weights=[1, 3, 0]))
    log = RunLog(tmp_path, ["law", "code"], "target", True, tqdm(disable=True), targets)
    record = {**RECORD, "observation": [3.0, 2.0, 9.0]}
    drops = {"predicted_drop": [0.4, 0.8, 7.0], "measured_drop": [0.0, 0.4, 7.0]}
    learned = {"aioli/stderr": np.array([0.5, 0.5]), "mixing/predicted_drop": np.array([0.4, 0.8, 7.0])}
    metrics = log.update_metrics(record, learned, over_targets=["mixing/predicted_drop"])
    assert metrics["mixing/target_loss/math"] == 3.0 and metrics["mixing/objective"] == 2.25
    assert metrics["mixing/predicted_drop/all"] == 7.0 and metrics["aioli/stderr/law"] == 0.5
    assert not any(name.startswith("mixing/validation_loss") for name in metrics)
    with caplog.at_level(logging.INFO):
        log.show_update({**record, **drops}, 4, is_shown=True)
    assert caplog.messages == [
        "mixing: step 8, round 1: train for 4 steps on law 0.750, code 0.250 | target loss math 3.0000, "
        "code 2.0000, all 9.0000, objective 2.2500 | drop predicted 0.7000, measured 0.3000"
    ]
    log.evaluated(8, np.array([1.0, 2.0]), np.array([3.0, 2.0, 9.0]))
    line = json.loads((tmp_path / "losses.jsonl").read_text())
    assert line == {"step": 8, "validation_loss": [1.0, 2.0], "target_loss": [3.0, 2.0, 9.0]}
    found = target_result(targets, np.array([3.0, 2.0, 9.0]), None)
    assert found["objective"] == 2.25 and list(found["target_shares"]) == [0.25, 0.75, 0.0]


def test_a_finished_run_leaves_its_results_and_a_plan(tmp_path):
    log = make_log(tmp_path / "deep")
    losses = np.array([1.0, 2.0])
    content = result("aioli", ["law", "code"], 8, losses, losses, np.array([0.5, 2.0]), 1024)
    log.finished(content, {"law": "aioli", "groups": ["law", "code"], "proportions": np.array([0.75, 0.25])})
    results = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert results["perplexity"] == np.exp(1.5) and results["validation_loss"] == [1.0, 2.0]
    plan = (tmp_path / "deep" / "plan.json").read_text()
    assert plan.startswith('{\n "law": "aioli",\n "groups": [\n  "law",') and plan.endswith("}\n")


def test_evaluations_after_the_resumed_step_are_dropped(tmp_path):
    log = make_log(tmp_path)
    log.begin(0, {})
    for step in (2, 4):
        log.evaluated(step, np.array([1.0, 2.0]))
    make_log(tmp_path).begin(2, {})
    assert (tmp_path / "losses.jsonl").read_text() == '{"step": 2, "validation_loss": [1.0, 2.0]}\n'


def test_an_evaluation_of_the_resumed_step_takes_the_place_of_the_one_before(tmp_path):
    for value in (1.0, 2.0):
        log = make_log(tmp_path)
        log.begin(4, {})
        log.evaluated(4, np.array([value]))
        log.evaluated(6, np.array([value]))
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, "validation_loss": [2.0]} for step in (4, 6)]


def test_half_a_line_does_not_keep_a_run_from_resuming(tmp_path):
    log = make_log(tmp_path)
    log.begin(0, {})
    log.evaluated(2, np.array([1.0, 2.0]))
    kept = (tmp_path / "losses.jsonl").read_text()
    (tmp_path / "losses.jsonl").write_text(kept + '{"step": 4, "valid')
    make_log(tmp_path).begin(4, {})
    assert (tmp_path / "losses.jsonl").read_text() == kept


def test_a_run_that_goes_on_is_not_finished(tmp_path):
    log = make_log(tmp_path)
    log.begin(0, {})
    log.measured_sequences(["law"], [np.ones((3, 2))])
    log.finished({"step": 4}, {"law": "aioli", "groups": ["law"], "proportions": np.array([1.0])})
    before = {path.name for path in tmp_path.iterdir()}
    make_log(tmp_path).begin(4, {})
    after = {path.name for path in tmp_path.iterdir()}
    assert before - after == {"results.json", "plan.json", "sequences.json"}
