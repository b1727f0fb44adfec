"""What a run would do, from its config and its stores alone: shares, epochs, rounds, evaluations.

The method is walked through its phases with equal losses or gradients of all groups, so the shares of an
adaptive method are those it starts from, its measuring phases included. Lengths of phases do not depend on
what is observed.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from titan_aioli.commands.check.used_up import UsedUp, expected_rows
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.measure.budget import affordable_sequences, relative_overhead, rows_evaluated
from titan_aioli.methods import MixingMethod
from titan_aioli.methods.protocol import shape_observed
from titan_aioli.methods.walk import walk
from titan_aioli.runs.checkpoints import checkpoints

if TYPE_CHECKING:
    from titan_aioli.config.build import Mixture  # imports torch

Array = np.ndarray
MOST_PHASES = 20_000
"""Phases of a run that are walked."""


class Walk(NamedTuple):
    """A method's phases in a run of a given length."""

    shares: Array
    """[G], mean over the steps."""
    ends: list[int]
    """Steps at which a phase ends, and so the method is updated; of a long run, the first."""
    steps_by_phase: Counter[tuple[int, str]]
    """Steps of each (round, phase name)."""
    mixtures: list[tuple[int, Array]]
    """(steps, proportions [G]) of the phases, in order, over the whole run."""
    times: float = 1.0
    """Length of the run over what was walked of it: more than 1 after MOST_PHASES."""

    @property
    def num_phases(self) -> int:
        return round(self.times * len(self.ends))

    @property
    def num_rounds(self) -> int:
        return round(self.times * len(self.rounds()))

    def steps_in(self, phase: str) -> int:
        return round(self.times * sum(n for (_, name), n in self.steps_by_phase.items() if name == phase))

    def rounds(self) -> Counter[int]:
        """Steps of each round that was walked, a prior not counted."""
        counts: Counter[int] = Counter()
        for (number, name), steps in self.steps_by_phase.items():
            if name != "prior":
                counts[number] += steps
        return counts


class Measured(NamedTuple):
    """What a run measures on held-out sequences, and what that costs."""

    num_evaluations: int
    """Evaluations of the validation stores of groups and targets."""
    evaluated_sequences: int
    """Held-out sequences of one of them, over all groups and targets."""
    num_samples: int
    """Evaluations for the method alone: of the targets, or on fewer sequences; 0: those above serve it."""
    sampled_sequences: int
    """Held-out sequences of one of those, over all targets."""
    gradient_sequences: int
    """Sequences whose gradients are taken where a phase ends, of groups and targets together; 0: none."""
    test_sequences: int
    """Sequences of the evaluation at the end; 0: there is none."""
    cost: float
    """Of all evaluations and gradients, as a share of the training compute."""


class Forecast(NamedTuple):
    """What a run would do."""

    walk: Walk
    num_steps: int
    """Steps that would be trained: those of the config, or fewer (about) where groups are used up."""
    used_up: list[UsedUp]
    """Where groups can give no more, in order."""
    shares: Array
    """[G], of the rows of the run."""
    is_adaptive: bool
    """Whether the shares depend on what will be observed."""
    epochs: Array
    """[G], how often each group's training sequences would be read through."""
    measured: Measured


def forecast(config: Any, mixture: "Mixture", batch_size: int) -> Forecast:
    """What a run would do.

    Args:
        config: torchtitan's JobConfig with our `mixing`.
        mixture: its method and groups.
        batch_size: B, rows of one optimizer step.
    """
    from titan_aioli.config.limits import max_drawn  # imports torch

    mixing, method, num_targets = config.mixing, mixture.method, len(mixture.target_names)
    walked = walk_through(method, len(mixture.train), config.training.steps, num_targets)
    most, stops = max_drawn(mixing, mixture.train), mixing.when_used_up == "stop"
    drawn = expected_rows(walked.mixtures, batch_size, most, stops)
    steps, shares = config.training.steps, walked.shares
    if drawn.used_up:
        steps, shares = max(1, drawn.num_steps), drawn.rows / max(1.0, drawn.rows.sum())
        walked = walk_through(method, len(mixture.train), steps, num_targets)
    sizes = np.array([group.num_sequences for group in mixture.train])
    return Forecast(
        walk=walked,
        num_steps=steps,
        used_up=drawn.used_up,
        shares=shares,
        is_adaptive=method.observes != "nothing",
        epochs=shares * steps * batch_size / sizes,
        measured=_measured(mixing, mixture, walked, steps, batch_size),
    )


def _measured(mixing: Any, mixture: "Mixture", walked: Walk, steps: int, batch_size: int) -> Measured:
    """What a run of that many steps measures."""
    method, targets, evaluation = mixture.method, mixture.targets, mixing.evaluation
    num_groups, num_targets = len(mixture.train), len(mixture.target_names)
    per_target = affordable_sequences(
        evaluation.budget, method, num_groups, batch_size, evaluation.sequences, num_targets
    )
    evaluated = _sequences(_sets(mixture.validation, targets and targets.validation), evaluation.sequences)
    sampled = _sequences(targets.validation if targets else mixture.validation, per_target)
    tested = _sequences(_sets(mixture.test, targets and targets.test), evaluation.sequences)
    asked = walked.ends if method.observes == "validation" else []
    aligned = 0  # rows that pass forward: a backward pass is twice as much
    if method.observes == "alignment":
        aligned = (mixing.aioli_gradients.sequences or per_target) * rows_evaluated(method, num_groups)
    is_one = per_target == evaluation.sequences and targets is None
    num_evaluations = _num_evaluations(evaluation, walked, asked if is_one else [], steps)
    num_samples = 0 if is_one or not asked else walked.num_phases
    rows = num_evaluations * evaluated + num_samples * sampled + walked.num_phases * aligned + tested
    return Measured(
        num_evaluations=num_evaluations,
        evaluated_sequences=evaluated,
        num_samples=num_samples,
        sampled_sequences=sampled,
        gradient_sequences=aligned // 3,
        test_sequences=tested,
        cost=relative_overhead(1, rows, steps, batch_size),
    )


def _num_evaluations(evaluation: Any, walked: Walk, asked: list[int], steps: int) -> int:
    """Evaluations of the validation stores; two at the same step are one.

    Args:
        evaluation: the config's section.
        walked: the phases.
        asked: steps at which the method asks for one, of the part that was walked.
        steps: of the run.
    """
    if not evaluation.validation:
        return 0
    freq, ends = evaluation.freq, {0, steps} if evaluation.at_start else {steps}
    regular = range(freq, steps + 1, freq) if freq else range(0)
    of_method = sum(step not in regular for step in set(asked) - ends)
    return len(regular) + sum(step not in regular for step in ends) + round(walked.times * of_method)


def walk_through(
    method: MixingMethod, num_groups: int, num_steps: int, num_targets: int | None = None
) -> Walk:
    """The phases of a run of `num_steps`; after MOST_PHASES the rest is taken to continue alike.

    Methods that observe training, and doge, have phases of one length; theirs are counted, not walked,
    because an update may be expensive.
    """
    ends: list[int] = []
    mixtures: list[tuple[int, Array]] = []
    shares, steps_by_phase = np.zeros(num_groups), Counter()
    if method.observes not in ("validation", "alignment", "nothing"):
        phase = method.phase(method.init(num_groups, num_targets))
        starts = range(0, num_steps, phase.num_steps)[:MOST_PHASES]
        for number, start in enumerate(starts):
            steps_by_phase[number, phase.name] = min(phase.num_steps, num_steps - start)
        ends = [start + phase.num_steps for start in starts if start + phase.num_steps <= num_steps]
        times = num_steps / steps_by_phase.total()
        return Walk(phase.proportions, ends, steps_by_phase, [(num_steps, phase.proportions)], times)
    equal = np.ones(shape_observed(method, num_groups, num_targets))
    observation = None if method.observes == "nothing" else equal
    for step, trained, phase, state in walk(
        method, num_groups, lambda _: observation, num_steps, num_targets
    ):
        shares += trained * phase.proportions
        if trained:
            mixtures.append((trained, phase.proportions))
            steps_by_phase[state.round, phase.name] += trained
        if trained == phase.num_steps:
            ends.append(step + trained)
        if len(ends) == MOST_PHASES:
            break
    walked = steps_by_phase.total()
    times = num_steps / walked
    mixtures = [(round(times * trained), proportions) for trained, proportions in mixtures]
    return Walk(shares / walked, ends, steps_by_phase, mixtures, times)


def checkpoint_line(saving: Any, dump_folder: Path, steps: int) -> str:
    """Which checkpoints a run of `steps` would write, and whether it would resume from one that is there.

    Args:
        saving: the config's section `checkpoint`.
        dump_folder: of the run.
        steps: optimizer steps of the run.
    """
    if not saving.enable:
        return "none: a run that is stopped starts over (checkpoint.enable)"
    folder = dump_folder / saving.folder
    count = -(-steps // saving.interval) + (saving.enable_first_step_checkpoint and saving.interval > 1)
    kept = f", the newest {saving.keep_latest_k} kept" if saving.keep_latest_k else ", all kept"
    line = f"{count} in {folder}, every {saving.interval} steps and at the end{kept}"
    if saving.last_save_model_only:
        line += "; the last holds the model alone (checkpoint.last_save_model_only)"
    found = checkpoints(folder)
    return line + (f"; the run would resume from step {max(found)}, which is there" if found else "")


def _sets(groups: Sequence[HeldOutSet], targets: Sequence[HeldOutSet] | None) -> list[HeldOutSet]:
    """The held-out sets of the groups, and those of targets that are no group."""
    return [*groups, *(target for target in targets or () if not any(target is group for group in groups))]


def _sequences(groups: Sequence[HeldOutSet], per_group: int) -> int:
    """Held-out sequences of one evaluation: a group with fewer gives all it has."""
    return sum(min(per_group, group.num_sequences) for group in groups)
