"""`titan-aioli check`: the faults that a run would stop at, found without starting it, and what it would do.

The same loaders and builders as in a run read the config and open the stores; nothing is written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from titan_aioli.commands.check.contamination import (
    Options,
    contamination_lines,
    look_for_contamination,
    read_options,
    refuse_contamination,
)
from titan_aioli.commands.check.doubts import doubts
from titan_aioli.commands.check.forecast import Forecast, Measured, Walk, checkpoint_line, forecast
from titan_aioli.methods.protocol import outlook

if TYPE_CHECKING:
    from titan_aioli.config import Mixing
    from titan_aioli.config.build import Mixture
    from titan_aioli.hosts.titan.checks import Checked


def check(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    world_size: int = 0,
    scan: bool = False,
    contamination: bool = False,
    contamination_ngrams: int | None = None,
    tokenizer: Path | None = None,
    flags: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Find what is wrong with a training config without starting a run, and print what the run would do.

    Exit status 2 and one line for the first fault; otherwise groups, epochs, rounds, evaluations and their
    cost, checkpoints. Needs no accelerator. Further flags are those of training:

        titan-aioli check train_configs/debug_aioli.toml --world-size 2 --training.steps 480

    Args:
        config: TOML file, as for --job.config_file.
        world_size: ranks that will run it. Left out: as few as its layout allows.
        scan: also read every token of every store, to find ids that the model does not know.
        contamination: also read every training token, to find held-out documents that are trained on.
            mixing.objective.contamination says whether they are a fault.
        contamination_ngrams: tokens of an n-gram, such as 13: held-out documents also count as found if half
            of their n-grams are anywhere in the train stores.
        tokenizer: tokenizer.json or its folder; held-out documents are then compared as text, whatever their
            case and white space.
    """
    options = read_options(contamination, contamination_ngrams, tokenizer)
    from titan_aioli.hosts.installed import check_config  # torch

    checked = check_config(["--job.config_file", str(config), *flags], world_size)
    job = checked.config
    if scan:
        scan_stores(checked.mixture)
    expected = forecast(job, checked.mixture, checked.batch_size)
    console = Console()
    console.print(group_table(checked, expected))
    if checked.mixture.targets is not None:
        console.print(target_table(checked.mixture, job.mixing))
    console.print(run_table(checked, expected))
    if options.is_wanted:
        _check_contamination(checked, options)
    elif job.mixing.objective.contamination == "refuse":
        print('mixing.objective.contamination is "refuse": not looked for without --contamination')


def _check_contamination(checked: "Checked", options: Options) -> None:
    """Print what is held out and trained on.

    Raises: UserError: there is some, and the config refuses it.
    """
    held_out = look_for_contamination(checked.mixture, options)
    for line in contamination_lines(held_out, checked.mixture.train, options):
        print(line)
    if checked.config.mixing.objective.contamination == "refuse":
        refuse_contamination(held_out)


def scan_stores(mixture: "Mixture") -> None:
    """Read every token of the run's stores.

    Raises: UserError: an id is outside the model's vocabulary; says which.
    """
    from tqdm import tqdm

    targets = () if mixture.targets is None else (*mixture.targets.validation, *mixture.targets.test)
    groups = list(
        {
            id(group): group for group in (*mixture.train, *mixture.validation, *mixture.test, *targets)
        }.values()
    )
    total = sum(group.num_sequences for group in groups)
    with tqdm(total=total, desc="scan", unit=" sequences", unit_scale=True, disable=None) as bar:
        for group in groups:
            tokens = np.empty(group.seq_len + 1, dtype=np.int64)
            for sequence in range(group.num_sequences):
                group.read(sequence, tokens)
                bar.update()


def group_table(checked: "Checked", expected: Forecast) -> Table:
    """A line for each group: what it has, and how often the run would read it."""
    mixture = checked.mixture
    table = Table(title="groups", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("group", overflow="fold")
    for name in ("tokens", "sequences", "share", "epochs", "validation", "test"):
        table.add_column(name, justify="right")
    for index, group in enumerate(mixture.train):
        epochs = expected.epochs[index]
        table.add_row(
            escape(group.name),
            short(group.num_tokens),
            short(group.num_sequences),
            f"{expected.shares[index]:.4f}",
            f"{epochs:.2f}" if epochs == 0 or epochs >= 0.01 else "< 0.01",
            short(mixture.validation[index].num_sequences) if mixture.validation else "-",
            short(mixture.test[index].num_sequences) if mixture.test else "-",
        )
    table.caption = "share: mean over the run" + (
        ", LearnParams included, if the losses of all groups stayed equal" if expected.is_adaptive else ""
    )
    return table


def target_table(mixture: "Mixture", mixing: "Mixing") -> Table:
    """A line for each target: whether it is a group, what it counts, how many held-out sequences it has."""
    assert mixture.targets is not None
    table = Table(title="targets", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("target", overflow="fold")
    for name in ("group", "counts", "validation", "test"):
        table.add_column(name, justify="right")
    shares = mixture.objective.shares(len(mixture.target_names))
    for index, name in enumerate(mixture.target_names):
        is_guard = mixing.targets[name].role == "guard"
        table.add_row(
            escape(name),
            "yes" if name in mixing.groups else "-",
            "guard" if is_guard else f"{shares[index]:.4f}" if shares[index] else "watched",
            short(mixture.targets.validation[index].num_sequences),
            short(mixture.targets.test[index].num_sequences) if mixture.targets.test else "-",
        )
    table.caption = f"group: whether it is one; counts: share in the objective; unit {mixing.objective.unit}"
    return table


def run_table(checked: "Checked", expected: Forecast) -> Table:
    """What the run would do, a line for each matter."""
    table = Table(title="the run", box=SIMPLE_HEAD, padding=(0, 1), show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", overflow="fold")
    for what, how_much in _run_lines(checked, expected):
        table.add_row(what, how_much)
    return table


def _run_lines(checked: "Checked", expected: Forecast) -> Iterator[tuple[str, str]]:
    job, steps, walk = checked.config, expected.num_steps, expected.walk
    rows = steps * checked.batch_size
    yield "method", job.mixing.method
    yield "model", checked.model
    yield "ranks", str(checked.world_size)
    tokens = f"{job.training.seq_len} tokens = {short(rows * job.training.seq_len)} tokens"
    asked = f"about {steps:,} of {job.training.steps:,}" if steps < job.training.steps else f"{steps:,}"
    yield "training", f"{asked} steps x {checked.batch_size} sequences x {tokens}"
    for line in _limit_lines(checked, expected):
        yield "used up", line
    if expected.is_adaptive:
        rounds = walk.rounds()
        lengths = list(rounds.values()) or [0]
        least, most = min(lengths[:-1] or lengths), max(lengths)  # the end of the run cuts the last one short
        yield "phases", f"{walk.num_phases:,}, each ended by an observation"
        of = f"{least:,} to {most:,} steps" if least < most else f"{most:,} steps each"
        yield "rounds", f"{walk.num_rounds:,}, of {of}"
    said = outlook(checked.mixture.method, len(checked.mixture.train))
    yield from said.items()
    for phase, name in () if said else (("learn_params", "LearnParams"), ("prior", "prior")):
        if count := walk.steps_in(phase):
            yield name, f"{count:,} steps, {count / steps:.1%} of all"
    yield from _measuring_lines(walk, expected.measured)
    yield "checkpoints", checkpoint_line(job.checkpoint, checked.folder, steps)
    for line in (*doubts(job, len(checked.mixture.train), expected), *checked.mixture.shared_stores()):
        yield "warning", line


def _measuring_lines(walk: Walk, measured: Measured) -> Iterator[tuple[str, str]]:
    held_out = f"{measured.num_evaluations:,} x {measured.evaluated_sequences:,} validation sequences"
    if measured.num_samples:
        held_out += f", {measured.num_samples:,} x {measured.sampled_sequences:,} of them for the method"
    if measured.test_sequences:
        held_out += f", 1 x {measured.test_sequences:,} test sequences"
    yield "evaluations", held_out
    if measured.gradient_sequences:
        yield "gradients", f"{walk.num_phases:,} x those of {measured.gradient_sequences:,} sequences"
    yield "their cost", f"{measured.cost:.2%} of the training compute"


def _limit_lines(checked: "Checked", expected: Forecast) -> Iterator[str]:
    """What `max_epochs` would do to the run, a line for each time that it does something."""
    mixing, names = checked.config.mixing, checked.mixture.group_names
    limits = {name: group.max_epochs for name, group in mixing.groups.items() if group.max_epochs}
    largest = (checked.mixture.guards or {}).get("max_share")
    for name, share in zip(names, largest or (), strict=largest is not None):
        if name in limits:
            most = f"max_epochs {limits[name]:g}"
            yield f"{name}: a share of {share:.3g} at most, with which {most} last to the end"
    for step, groups in expected.used_up:
        who = ", ".join(f"{names[group]} (max_epochs {limits[names[group]]:g})" for group in groups)
        is_end = (step, groups) == expected.used_up[-1] and max(1, step) == expected.num_steps
        yield f"about step {step:,}: {who}; " + (
            f"the run ends there, not at step {checked.config.training.steps:,}: raise max_epochs, or set "
            "mixing.when_used_up"
            if is_end
            else "its share goes to the other groups"
        )
    if mixing.when_used_up == "repeat":
        for name, epochs in zip(names, expected.epochs, strict=True):
            if epochs > limits.get(name, float("inf")):
                yield f"{name} is read {epochs:.2f} times, more than max_epochs {limits[name]:g}: a warning"


def short(number: float) -> str:
    """A count in few characters: 1234, 56.7k, 8.91M, 1.2B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size or (letter != "k" and number >= size):
            return f"{number / size:.3g}{letter}"
    return str(int(number))
