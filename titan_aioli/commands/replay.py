"""`titan-aioli replay`: what another method, or other hyperparameters, would have decided.

The observations that a run recorded are fed to a method, one per ledger entry. They were measured under the
mixtures of the recorded run, so the answer is about the decisions, not about the losses that would have
followed. Fed to its own method unchanged, a run gives its own proportions back: a check of the record.
(To train again on a recorded ledger as a fixed schedule, use mixing.method = "replay".)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.figures import (
    check_suffix,
    draw_legend,
    draw_proportions,
    first_and_last,
    largest,
    save,
    subplots,
    trained,
)
from titan_aioli.commands.settings import parse_settings
from titan_aioli.methods import METHODS, Guarded, MixingMethod, Objective, build_method
from titan_aioli.methods.checks import require_fields
from titan_aioli.methods.walk import Stretch, walk
from titan_aioli.runs.read import read_run
from titan_aioli.runs.run import Run

Array = np.ndarray
MAX_LINES = 12
"""Number of training phases shown in the table; of more, the first and the last ones."""


class Decisions(NamedTuple):
    """What a method decided, for each of E ledger entries."""

    phases: list[str]
    proportions: Array
    """[E, G], what is trained on."""
    centres: list[Array | None]
    """[E] of [G], what those are perturbed around, of a method that says so."""

    def mixtures(self) -> tuple[list[int], Array]:
        """The entries that show what the method holds for the best, and what that is: [N, G].

        Measuring and LearnParams are left out, unless the method says what the perturbed mixtures are around.
        """
        told = [n for n, centre in enumerate(self.centres) if centre is not None]
        kept = sorted({*trained(self.phases), *told}) or [0]
        shares = [self.proportions[n] if self.centres[n] is None else self.centres[n] for n in kept]
        return kept, np.array(shares)


class WhatIf(NamedTuple):
    """Recorded and alternative decisions, one for each of E ledger entries."""

    steps: Array
    """[E]."""
    recorded: Decisions
    other: Decisions

    @property
    def is_same(self) -> bool:
        """Whether every phase and every proportion is as recorded."""
        return self.other.phases == self.recorded.phases and np.array_equal(
            self.other.proportions, self.recorded.proportions
        )


def replay(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    method: str = "",
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    output: Path = Path("replay.png"),
) -> None:
    """Feed a run's recorded observations to another method, or to the same one with other hyperparameters.

        titan-aioli replay outputs/demo/aioli --set aioli.eta=1.0 aioli.ema=0.5

    Nothing is trained. To train again on the recorded mixtures as a fixed schedule:

        ... --mixing.method replay --mixing.replay.ledger outputs/demo/aioli/ledger.jsonl

    Args:
        run: dump folder of a run (job.dump_folder).
        method: name of the method. Left out: the one that was run, with the hyperparameters it had.
        settings: hyperparameters to change, as METHOD.NAME=VALUE.
        output: the figure; the suffix chooses the format (.png, .pdf, .svg).
    """
    check_suffix(output, "--output")
    loaded = read_run(run)
    recorded = loaded.mixture["method"]
    name = method or recorded
    for what, given in ((f"the method in {run / 'mixture.json'}", recorded), ("--method", name)):
        if given not in METHODS:
            raise ValueError(f"{what} is {given!r}: choose one of {', '.join(METHODS)}")
    changed = parse_settings(settings, [name]).get(name, {})
    result = what_if(loaded.records, recorded, other_method(loaded, name, changed))
    if result.is_same:
        print(f"all {len(result.steps)} entries of {run / 'ledger.jsonl'} are decided as recorded")
    else:
        Console(emoji=False).print(difference_table(result, loaded.groups, name))
    titles = f"{loaded.name} ({recorded})", f"what if: {name}"
    draw(result, loaded.groups, titles, loaded.last_step, output)
    print(f"figure: {output}")


def other_method(run: Run, name: str, changed: Mapping[str, Any]) -> MixingMethod:
    """The method to ask: with the recorded hyperparameters where it is the recorded one, changed as told.

    The run's guards (`guards` in mixture.json, the fields of Guarded) stay on.
    """
    kept = run.mixture["hyperparameters"] if name == run.mixture["method"] else {}
    if run.objective != Objective() and "objective" in [entry.name for entry in fields(METHODS[name])]:
        kept = {**kept, "objective": run.objective}
    num_targets = None if run.targets is None else len(run.targets)
    guards = run.mixture.get("guards") or {}
    try:
        method = build_method(name, len(run.groups), num_targets, **{**kept, **changed})
        require_fields("guards", Guarded, guards)
        guarded = Guarded(method, **guards)
        guarded.check(len(run.groups), num_targets)
    except ValueError as error:
        raise ValueError(f"{run.mixture.where}{' and --set' * bool(changed)}: {error}") from None
    return guarded if guards else method


def what_if(records: Sequence[Mapping[str, Any]], recorded_method: str, method: MixingMethod) -> WhatIf:
    """What `method` decides from the observations of a ledger.

    Args:
        records: of ledger.jsonl, oldest first; the first has no observation, nor have those that say what
            else changed (the batch size, the end of a run), which are passed over.
        recorded_method: name of the method that wrote them.
        method: built for the same groups and targets.
    Raises: ValueError: the method needs what was not recorded: another kind of observation, or losses after
        other perturbed mixtures.
    """
    observed = METHODS[recorded_method].observes
    if method.observes not in (observed, "nothing"):
        raise ValueError(
            f"the run of {recorded_method} recorded {observed}, the other method needs {method.observes}"
        )
    lines = [at for at, each in enumerate(records) if at == 0 or not _is_aside(each)]
    records = [records[at] for at in lines]
    recorded = np.array([record["proportions"] for record in records], dtype=np.float64)
    phases, proportions, centres = [], [], []

    def observe(stretch: Stretch) -> Array:
        record = records[len(phases)]  # it begins with what was observed in the phase before
        if record.get("observation") is None:
            raise ValueError(
                f"ledger.jsonl, line {lines[len(phases)] + 1} has no observation, so it cannot be replayed"
            )
        return np.array(record["observation"], dtype=np.float64)

    losses = [record["observation"] for record in records if record.get("observation") is not None]
    num_targets = len(losses[0]) if losses and observed == "validation" else None
    if method.observes == "nothing":
        stretches = _at_steps(walk(method, recorded.shape[1], lambda _: None), [r["step"] for r in records])
    else:
        stretches = walk(method, recorded.shape[1], observe, num_targets=num_targets)
    for number, (record, (_, _, phase, state)) in enumerate(zip(records, stretches, strict=False)):
        measures_as_recorded = record["phase"] == "learn_params" and np.allclose(
            phase.proportions, recorded[number]
        )
        if phase.name == "learn_params" and not measures_as_recorded:
            raise ValueError(
                f"ledger.jsonl, line {lines[number] + 1}: the other method would measure the mixture "
                f"{phase.proportions.round(4).tolist()}, the run did {record['phase']} on "
                f"{recorded[number].round(4).tolist()}: a what-if can change how an estimate is used (eta, "
                "ema, update, normalize, diagonal), not what was measured"
            )
        phases.append(phase.name)
        proportions.append(phase.proportions)
        centres.append(method.report(state).get("centre"))
    return WhatIf(
        np.array([record["step"] for record in records]),
        Decisions([r["phase"] for r in records], recorded, [r.get("centre") for r in records]),
        Decisions(phases, np.array(proportions), centres),
    )


def _is_aside(record: Mapping[str, Any]) -> bool:
    """Whether a record says what else has changed, and not that a phase is over."""
    return "reason" in record and record.get("observation") is None


def _at_steps(stretches: Iterator[Stretch], steps: Sequence[int]) -> Iterator[Stretch]:
    """The stretch in which each of these steps lies; they ascend."""
    stretch = next(stretches)
    for step in steps:
        while step >= stretch.step + stretch.num_steps:
            stretch = next(stretches)
        yield stretch


def difference_table(result: WhatIf, groups: Sequence[str], name: str) -> Table:
    """Recorded and alternative share of every group, for each phase of training."""
    table = Table(title=f"recorded -> {name}")
    table.add_column("from step", justify="right")
    for group in groups:
        table.add_column(escape(group), justify="right")
    kept, recorded = result.recorded.mixtures()
    others = dict(zip(*result.other.mixtures(), strict=True))
    shared = [(n, before) for n, before in zip(kept, recorded, strict=True) if n in others]
    for n, before in first_and_last(shared, MAX_LINES):
        pairs = zip(before, others[n], strict=True)
        table.add_row(str(result.steps[n]), *(f"{old:.4f} -> {new:.4f}" for old, new in pairs))
    return table


def draw(
    result: WhatIf, groups: Sequence[str], titles: tuple[str, str], last_step: int, output: Path
) -> None:
    """Proportions of the recorded run and of the other method, side by side; measuring phases left out.

    Args:
        result: what both decided.
        groups: [G], names.
        titles: of the recorded run and of the other method.
        last_step: of the run, where the last phase ends.
        output: the file.
    """
    figure, axes = subplots(1, 2, (10, 4), sharey=True)
    drawn, tops = largest(result.recorded.proportions[-1]), []
    for axis, title, decisions in zip(axes[0], titles, (result.recorded, result.other), strict=True):
        kept, shares = decisions.mixtures()
        draw_proportions(axis, result.steps[kept], last_step, shares, groups, drawn)
        axis.set(title=title)
        tops.append(shares[:, drawn].max())
    axes[0, 0].set_ylim(0, 1.05 * max(tops))  # of both: the axis is shared
    axes[0, 0].set_ylabel("proportion")
    draw_legend(figure, axes[0, 0], 6)
    save(figure, output)
