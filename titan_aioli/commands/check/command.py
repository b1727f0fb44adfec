"""`titan-aioli check`: the faults that a run would stop at, found without starting it, and what it would do.

The same loaders and builders as in a run read the config and open the stores; nothing is written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from titan_aioli.commands.check.forecast import Forecast, checkpoint_line, forecast
from titan_aioli.config.build import Mixture, build_mixture
from titan_aioli.errors import UserError


class Checked(NamedTuple):
    """A config that a run would accept."""

    config: Any
    """torchtitan's JobConfig with our `mixing`."""
    mixture: Mixture
    world_size: int
    batch_size: int
    """B, rows of one optimizer step."""


def check(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    world_size: int = 0,
    flags: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Find what is wrong with a training config without starting a run, and print what the run would do.

    Exit status 2 and one line for the first fault; otherwise groups, epochs, rounds, evaluations and their
    cost, checkpoints. Needs no accelerator. Further flags are those of training:

        titan-aioli check train_configs/debug_aioli.toml --world-size 2 --training.steps 480

    Args:
        config: TOML file, as for --job.config_file.
        world_size: ranks that will run it. Left out: as few as its layout allows.
    """
    checked = check_config(["--job.config_file", str(config), *flags], world_size)
    job = checked.config
    expected = forecast(job, checked.mixture, checked.batch_size)
    console = Console()
    console.print(group_table(checked, expected))
    console.print(run_table(checked, expected))


def check_config(arguments: list[str], world_size: int = 0) -> Checked:
    """Read a config as a run would, open its stores, build its method, and check its layout.

    Args:
        arguments: of `python -m titan_aioli.train`.
        world_size: ranks that will run it. 0: as few as its layout allows.
    Raises: UserError: the first fault, in one line.
    """
    from titan_aioli.hosts.titan02.launch import load_config  # torch
    from titan_aioli.hosts.titan02.spec import vocab_size

    config = load_config(arguments)
    mixture = build_mixture(config.mixing, config.training.seq_len, vocab_size(config))
    if config.training.steps < 1:
        raise UserError(f"training.steps is {config.training.steps}: at least 1")
    world_size, shard_degree = _check_layout(config.parallelism, world_size)
    batch_size = _check_batch(config, shard_degree * config.parallelism.data_parallel_replicate_degree)
    _check_observer(config, mixture.method.observes, shard_degree)
    return Checked(config, mixture, world_size, batch_size)


def _check_layout(layout: Any, world_size: int) -> tuple[int, int]:
    """Number of ranks, and how many of them share the weights (data_parallel_shard_degree)."""
    names = ("data_parallel_replicate", "context_parallel", "tensor_parallel", "pipeline_parallel")
    fixed = 1
    for name in names:
        degree = getattr(layout, f"{name}_degree")
        if degree < 1:
            raise UserError(f"parallelism.{name}_degree is {degree}: at least 1")
        fixed *= degree
    shard = layout.data_parallel_shard_degree
    if shard != -1 and shard < 1:
        raise UserError(
            f"parallelism.data_parallel_shard_degree is {shard}: at least 1, or -1 for the ranks left"
        )
    world_size = world_size or fixed * max(shard, 1)
    if world_size % fixed or (shard != -1 and fixed * shard != world_size):
        wanted = f"a multiple of {fixed}" if shard == -1 else f"{fixed * shard}"
        degrees = ", ".join(f"{name}_degree {getattr(layout, f'{name}_degree')}" for name in names)
        raise UserError(
            f"{world_size} ranks do not fit the layout ({degrees}, data_parallel_shard_degree {shard}): "
            f"start {wanted} of them, or change the degrees"
        )
    return world_size, world_size // fixed


def _check_batch(config: Any, dp_degree: int) -> int:
    """B, rows of one optimizer step."""
    training, layout = config.training, config.parallelism
    rows = training.local_batch_size * dp_degree
    batch_size = rows if training.global_batch_size < 0 else training.global_batch_size
    if training.local_batch_size < 1 or batch_size < 1 or batch_size % rows:
        raise UserError(
            f"training.global_batch_size is {batch_size}: it must be a multiple of local_batch_size "
            f"{training.local_batch_size} x {dp_degree} data-parallel ranks = {rows}"
        )
    divisor = layout.tensor_parallel_degree * 2 * layout.context_parallel_degree
    if training.seq_len % divisor:
        raise UserError(
            f"training.seq_len is {training.seq_len}: it must be a multiple of tensor_parallel_degree x 2 x "
            f"context_parallel_degree = {divisor}"
        )
    microbatch_size = layout.pipeline_parallel_microbatch_size
    if layout.pipeline_parallel_degree > 1 and training.local_batch_size % microbatch_size:
        raise UserError(
            f"training.local_batch_size is {training.local_batch_size}: it must be a multiple of "
            f"parallelism.pipeline_parallel_microbatch_size {microbatch_size}"
        )
    return batch_size


def _check_observer(config: Any, observes: str, shard_degree: int) -> None:
    """What the trainer refuses when it builds the observer of the method."""
    from titan_aioli.measure.excess import check_reference  # torch
    from titan_aioli.measure.gradients import check_doge_layout

    mixing, layout = config.mixing, config.parallelism
    has_pipeline = layout.pipeline_parallel_degree > 1
    if observes == "excess":
        check_reference(mixing.doremi.reference, has_pipeline)
    if observes == "gradients":
        has_fsdp = shard_degree > 1 or layout.context_parallel_degree > 1
        check_doge_layout(has_pipeline, layout.data_parallel_replicate_degree > 1 and not has_fsdp)


def group_table(checked: Checked, expected: Forecast) -> Table:
    """A line for each group: what it has, and how often the run would read it."""
    mixture = checked.mixture
    table = Table(title="groups", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("group", overflow="fold")
    for name in ("tokens", "sequences", "share", "epochs", "validation", "test"):
        table.add_column(name, justify="right")
    for index, group in enumerate(mixture.train):
        epochs = expected.epochs[index]
        table.add_row(
            group.name,
            short(group.num_tokens),
            short(group.num_sequences),
            f"{expected.walk.shares[index]:.4f}",
            f"{epochs:.2f}" if epochs == 0 or epochs >= 0.01 else "< 0.01",
            short(mixture.validation[index].num_sequences),
            short(mixture.test[index].num_sequences) if mixture.test else "-",
        )
    table.caption = "share: mean over the run" + (
        ", LearnParams included, if the losses of all groups stayed equal" if expected.is_adaptive else ""
    )
    return table


def run_table(checked: Checked, expected: Forecast) -> Table:
    """What the run would do, a line for each matter."""
    table = Table(title="the run", box=SIMPLE_HEAD, padding=(0, 1), show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", overflow="fold")
    for what, how_much in _run_lines(checked, expected):
        table.add_row(what, how_much)
    return table


def _run_lines(checked: Checked, expected: Forecast) -> Iterator[tuple[str, str]]:
    job, steps, walk = checked.config, checked.config.training.steps, expected.walk
    rows = steps * checked.batch_size
    yield "method", job.mixing.method
    yield "model", f"{job.model.name} {job.model.flavor}"
    yield "ranks", str(checked.world_size)
    tokens = f"{job.training.seq_len} tokens = {short(rows * job.training.seq_len)} tokens"
    yield "training", f"{steps:,} steps x {checked.batch_size} sequences x {tokens}"
    if expected.is_adaptive:
        rounds = walk.rounds()
        yield "phases", f"{len(walk.ends):,}, each ended by an observation"
        yield "rounds", f"{len(rounds):,}, of {max(rounds.values(), default=0):,} steps each"
    for phase, name in (("learn_params", "LearnParams"), ("prior", "prior")):
        if count := walk.steps_in(phase):
            yield name, f"{count:,} steps, {count / steps:.1%} of all"
    held_out = f"{expected.num_evaluations:,} x {expected.evaluated_sequences:,} validation sequences"
    if expected.num_samples:
        held_out += f", {expected.num_samples:,} x {expected.sampled_sequences:,} of them for the method"
    if expected.test_sequences:
        held_out += f", 1 x {expected.test_sequences:,} test sequences"
    yield "evaluations", held_out
    yield "their cost", f"{expected.evaluation_cost:.2%} of the training compute"
    yield "checkpoints", checkpoint_line(job)


def short(number: float) -> str:
    """A count in few characters: 1234, 56.7k, 8.91M, 1.2B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size or (letter != "k" and number >= size):
            return f"{number / size:.3g}{letter}"
    return str(int(number))
