"""One run of the study: its config, and what it ended with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w

from titan_aioli.commands.replay import other_method
from titan_aioli.files import read_json
from titan_aioli.measure.budget import affordable_sequences, relative_overhead, rows_evaluated
from titan_aioli.methods.skill_it import skill_graph
from titan_aioli.runs.read import read_run
from titan_aioli.runs.run import Run as Recorded

from .one_rank import TORCHTITAN, train_one_rank
from .small_config import small_config
from .study_settings import Arm, Setting, Study

ENGINES = {"torchtitan": TORCHTITAN, "plain": "scripts.support.study_plain"}
LOG_FREQ = 100
MOST_MIXTURE_STEPS = 4
"""Steps on one perturbed mixture of aioli, where at most a quarter of the round then is LearnParams."""
ALONE = "only_"
"""Beginning of the names of the runs that Skill-It's graph is made from; a group's name follows."""
GRAPH = "skill_graph.json"
GRAPH_SHARE = 0.25
"""Length of the runs on single groups that Skill-It's graph is made from, in that of a run."""
DOGE_SEQUENCES = 4
"""Held-out sequences of each target in DoGE's held-out gradient."""


class Run(NamedTuple):
    """What sets a run apart; the arm is looked up by name among those of the setting."""

    setting: str
    batch_size: int
    arm: str
    seed: int


class Result(NamedTuple):
    """What a run ended with."""

    run: Run
    loss: float
    """Objective on the validation sets, mean over the last evaluations, nats per token."""
    groups: float
    """Mean over the groups of their validation losses, of the same evaluations."""
    test: float
    """Objective on the test sets after the last step."""
    extra: float
    """Compute beyond the steps, as a share of theirs: what the method measures, and Skill-It's graph."""
    proportions: dict[str, float]
    """What the method found (plan.json)."""


class Trainer:
    """Trains runs of a study in a folder, and reads them."""

    def __init__(self, study: Study, output: Path, engine: str, steps: int | None):
        """Args:
        study: settings and arms.
        output: folder with tokenizer and stores; gets `runs`.
        engine: a key of ENGINES.
        steps: of every run, instead of the study's.
        """
        self.study, self.output, self.engine, self._steps = study, output, engine, steps

    def steps(self, run: Run) -> int:
        """Optimizer steps."""
        setting = self.study.settings[run.setting]
        return self.study.training.steps_of(setting, run.batch_size, self._steps)

    def folder(self, run: Run) -> Path:
        words = (self.engine, run.setting, f"batch{run.batch_size}", f"{run.arm}_seed{run.seed}")
        return self.output.joinpath("runs", *words)

    def train(self, run: Run, arm: Arm) -> Result:
        """The result of a run: read if it is there, else trained first."""
        setting, steps = self.study.settings[run.setting], self.steps(run)
        config = self._config(run, arm, steps)
        train_one_rank(self.folder(run), tomli_w.dumps(config), ENGINES[self.engine])
        return self._result(run, arm, setting, read_run(self.folder(run)))

    def train_alone(self, run: Run) -> None:
        """A shorter run on one group alone, named by the run's arm (see ALONE), for Skill-It's graph."""
        config = self._config(
            run, Arm("static", weights={run.arm.removeprefix(ALONE): 1.0}), self._graph_steps(run)
        )
        config["mixing"]["evaluation"] |= {"at_start": True, "freq": 0}
        train_one_rank(self.folder(run), tomli_w.dumps(config), ENGINES[self.engine])

    def write_graph(self, alone: list[Run]) -> Path:
        """Skill-It's graph from the runs on every group alone, as a file that the method reads."""
        losses = []
        for run in alone:
            lines = read_run(self.folder(run)).losses
            key = "target_loss" if "target_loss" in lines[0] else "validation_loss"
            losses.append([lines[0][key], lines[-1][key]])
        start, end = np.array(losses)[0, 0], np.array(losses)[:, 1]
        setting = self.study.settings[alone[0].setting]
        content = {
            "groups": setting.groups,
            "targets": list(setting.targets) or setting.groups,
            "graph": skill_graph(start, end).tolist(),
        }
        path = self.folder(alone[0]).parent / GRAPH
        path.write_text(json.dumps(content))
        return path

    def _graph_steps(self, run: Run) -> int:
        return max(1, int(GRAPH_SHARE * self.steps(run)))

    def _config(self, run: Run, arm: Arm, steps: int) -> dict[str, Any]:
        """One TOML is one experiment."""
        training = self.study.training
        config = small_config(
            self.output, steps, run.batch_size, training.seq_len, training.learning_rate, LOG_FREQ, run.seed
        )
        return {**config, "mixing": self._mixing(run, arm, steps)}

    def _mixing(self, run: Run, arm: Arm, steps: int) -> dict[str, Any]:
        """The [mixing] section of a run's config."""
        training, setting = self.study.training, self.study.settings[run.setting]
        weights = arm.weights if isinstance(arm.weights, Mapping) else dict.fromkeys(setting.groups, 1.0)
        table = {**_times(arm, setting, steps), **arm.table}
        if arm.method == "skill_it":
            table["graph"] = str(self.folder(run).parent / GRAPH)
        groups = {group: {"weight": weights.get(group, 0.0)} for group in setting.groups}
        if arm.spread:
            for group, most in setting.max_epochs.items():
                groups[group]["max_epochs"] = most
        return {
            "method": arm.method,
            "seed": run.seed,
            "stores": str(self.output / "stores"),
            **({arm.method: table} if table else {}),
            "evaluation": {
                "sequences": training.sequences,
                "budget": training.budget,
                "freq": steps // training.evaluations,
            },
            "when_used_up": "spread" if arm.spread else "repeat",
            "groups": groups,
            "targets": {target: {"weight": weight} for target, weight in setting.targets.items()},
        }

    def _result(self, run: Run, arm: Arm, setting: Setting, found: Recorded) -> Result:
        assert found.results is not None, run
        steps, training = found.mixture["steps"], self.study.training
        last = final_losses(found.losses, steps // training.evaluations, training.final_evaluations)
        groups, plan = last["validation_loss"], read_json(found.folder / "plan.json", "what a run writes")
        weights = np.array(list(setting.targets.values()) or [1.0])
        targets = last["target_loss"] if setting.targets else groups.mean(keepdims=True)
        extra = extra_compute(found, training.budget, training.sequences)
        if arm.method == "skill_it":
            extra += len(setting.groups) * self._graph_steps(run) / steps
        return Result(
            run=run,
            loss=float(targets @ weights / weights.sum()),
            groups=float(groups.mean()),
            test=found.results["test_objective" if setting.targets else "test_loss_mean"],
            extra=extra,
            proportions=dict(zip(setting.groups, plan["proportions"], strict=True)),
        )


def final_losses(lines: list[dict[str, Any]], freq: int, count: int) -> dict[str, np.ndarray]:
    """Losses of each set, the mean over the last `count` evaluations at multiples of `freq` steps.

    Args:
        lines: of losses.jsonl. A method may have evaluated at other steps: those do not count.
    Returns: {"validation_loss": [G]}, and {"target_loss": [K]} where there are targets.
    """
    last = [line for line in lines if line["step"] and line["step"] % freq == 0][-count:]
    assert len(last) == count, (freq, count, [line["step"] for line in lines])
    return {key: np.mean([line[key] for line in last], axis=0) for key in last[0] if key != "step"}


def extra_compute(run: Recorded, budget: float, sequences: int) -> float:
    """What a method measured, as a share of the compute of the run's steps.

    The evaluations for the log, the same in every arm, do not count. DoGE: a forward and a backward pass over
    a step's rows for each group, and one over the held-out rows, at every update.

    Args:
        run: finished.
        budget: `mixing.evaluation.budget`, percent.
        sequences: `mixing.evaluation.sequences`.
    """
    method, mixture = other_method(run, run.mixture["method"], {}), run.mixture
    num_groups, num_targets = len(run.groups), len(run.target_names)
    batch_size, steps = mixture["batch_size"], mixture["steps"]
    num_observed = sum(record["observation"] is not None for record in run.records)
    if method.observes == "gradients":
        rows = num_groups * batch_size + num_targets * DOGE_SEQUENCES
        return num_observed * rows / (steps * batch_size)
    if method.observes not in ("validation", "alignment"):
        return 0.0
    seen = affordable_sequences(budget, method, num_groups, batch_size, sequences, num_targets)
    rows = seen * rows_evaluated(method, num_groups, num_targets)
    return relative_overhead(num_observed, rows, steps, batch_size)


def _times(arm: Arm, setting: Setting, steps: int) -> dict[str, Any]:
    """The keys of an arm's table that are numbers of steps: its rounds fill the run."""
    if arm.rounds is None:
        return {}
    num_groups, round_steps = len(setting.groups), max(1, steps // arm.rounds)
    if arm.method != "aioli":
        return {"steps_per_round": round_steps}
    mixture_steps = min(MOST_MIXTURE_STEPS, max(1, round_steps // (4 * num_groups)))
    round_steps = max(round_steps, 2 * num_groups * mixture_steps)
    return {"num_sweeps": 1, "steps_per_mixture": mixture_steps, "steps_per_round": round_steps}
