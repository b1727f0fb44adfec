"""What is checked of a run before training, on every rank: the layout, the batch, what the method observes.

The sections `training` and `parallelism` have the same names in every torchtitan that there is a host for.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed.pipelining.schedules import get_schedule_class

from titan_aioli.config.build import Mixture
from titan_aioli.errors import UserError
from titan_aioli.files import refuse_unwritable
from titan_aioli.measure.excess import check_reference
from titan_aioli.measure.gradients import check_gradient_layout
from titan_aioli.methods.checks import require_number
from titan_aioli.methods.protocol import OF_GRADIENTS
from titan_aioli.runs.checkpoints import LAST_WRITTEN, checkpoints

OPTIMIZERS = ("Adam", "AdamW")
"""Names of torchtitan's optimizers."""
LARGEST_COUNT = 1 << 31
"""Of steps, tokens, ranks: what is computed from them stays below 2^63."""
FIXED_DEGREES = (
    "data_parallel_replicate_degree",
    "context_parallel_degree",
    "tensor_parallel_degree",
    "pipeline_parallel_degree",
)
"""Degrees that a config gives; that of sharding may follow from the number of ranks."""


class Checked(NamedTuple):
    """A config that a run would accept."""

    config: Any
    """torchtitan's own, with our `mixing`."""
    mixture: Mixture
    world_size: int
    batch_size: int
    """B, rows of one optimizer step."""
    folder: Path
    """The dump folder."""
    model: str
    """Name and flavor."""


def check_job(config: Any, mixture: Mixture, world_size: int, folder: Path, model: str) -> Checked:
    """Check what a trainer would refuse, or would not notice.

    Args:
        config: torchtitan's, with our `mixing`; its counts were checked.
        mixture: what its `[mixing]` asks for.
        world_size: ranks that will run it. 0: as few as its layout allows.
        folder, model: of `Checked`.
    Raises: UserError: the first fault, in one line.
    """
    world_size, shard_degree, batch_size = _check_ranks(config, world_size)
    _check_schedule(config.parallelism)
    _check_observer(config, mixture.method.observes, shard_degree)
    _check_seed_checkpoint(config.checkpoint, world_size)
    _check_loading(config.checkpoint, folder / config.checkpoint.folder)
    writes = folder / config.checkpoint.folder if config.checkpoint.enable else folder
    refuse_unwritable(writes, f"{writes} (job.dump_folder, checkpoint.folder)")
    return Checked(config, mixture, world_size, batch_size, folder, model)


def check_counts(config: Any) -> None:
    """Refuse counts of a config that are none, before anything is computed from them.

    Raises: UserError: names the first.
    """
    training, layout = config.training, config.parallelism
    counts = {f"parallelism.{name}": getattr(layout, name) for name in FIXED_DEGREES}
    counts["parallelism.pipeline_parallel_microbatch_size"] = layout.pipeline_parallel_microbatch_size
    counts |= {f"training.{name}": getattr(training, name) for name in ("steps", "seq_len", "gc_freq")}
    counts["metrics.log_freq"] = config.metrics.log_freq
    if config.checkpoint.enable:
        counts["checkpoint.interval"] = config.checkpoint.interval
    for name, count in counts.items():
        if not 1 <= count < LARGEST_COUNT:
            raise UserError(f"{name} is {count}: at least 1, below {LARGEST_COUNT:,}")
    shard = layout.data_parallel_shard_degree
    if shard != -1 and shard < 1:
        raise UserError(
            f"parallelism.data_parallel_shard_degree is {shard}: at least 1, or -1 for the ranks left"
        )
    kept = config.checkpoint.keep_latest_k
    if config.checkpoint.enable and (kept < 0 or kept == 1):
        raise UserError(
            f"checkpoint.keep_latest_k is {kept}: at least 2, since the last one may not be whole yet, or 0 "
            "to keep all"
        )


def check_optimizer(optimizer: Any, max_norm: float) -> None:
    """Refuse settings of the optimizer that torch refuses, or that train nothing.

    Raises: UserError: names the key and the value.
    """
    check_learning_rate(optimizer.lr)
    if optimizer.name not in OPTIMIZERS:
        raise UserError(f"optimizer.name is {optimizer.name!r}: choose from {', '.join(OPTIMIZERS)}")
    try:
        for name in ("beta1", "beta2"):
            require_number(f"optimizer.{name}", getattr(optimizer, name), at_least=0, below=1)
        for name in ("eps", "weight_decay"):
            require_number(f"optimizer.{name}", getattr(optimizer, name), at_least=0)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not max_norm > 0:
        raise UserError(
            f"training.max_norm is {max_norm}, the norm that gradients are clipped to: above 0 (inf: they "
            "are not clipped)"
        )


def check_learning_rate(rate: Any) -> None:
    """Refuse a learning rate that no optimizer takes, or that makes every weight nan.

    Raises: UserError: names it.
    """
    try:
        require_number("optimizer.lr", rate, at_least=0)
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_ranks(config: Any, world_size: int) -> tuple[int, int, int]:
    """Number of ranks, how many of them share the weights, and B, rows of one optimizer step."""
    world_size, shard_degree = _check_layout(config.parallelism, world_size)
    batch_size = _check_batch(config, shard_degree * config.parallelism.data_parallel_replicate_degree)
    return world_size, shard_degree, batch_size


def _check_layout(layout: Any, world_size: int) -> tuple[int, int]:
    """Number of ranks, and how many of them share the weights (data_parallel_shard_degree)."""
    fixed = math.prod(getattr(layout, name) for name in FIXED_DEGREES)
    shard = layout.data_parallel_shard_degree
    if world_size < 0:
        raise UserError(f"--world-size is {world_size}: at least 1, or 0 for as few as the layout allows")
    world_size = world_size or fixed * max(shard, 1)
    if world_size % fixed or (shard != -1 and fixed * shard != world_size):
        wanted = f"a multiple of {fixed}" if shard == -1 else f"{fixed * shard}"
        degrees = ", ".join(f"{name} {getattr(layout, name)}" for name in FIXED_DEGREES)
        raise UserError(
            f"{world_size} ranks do not fit the layout ({degrees}, data_parallel_shard_degree {shard}): "
            f"start {wanted} of them, or change the degrees"
        )
    return world_size, world_size // fixed


def _check_batch(config: Any, dp_degree: int) -> int:
    """B, rows of one optimizer step."""
    training, layout = config.training, config.parallelism
    rows = training.local_batch_size * dp_degree
    batch_size = global_batch_size(training, dp_degree)
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


def _check_schedule(layout: Any) -> None:
    """The name of the schedule of pipeline stages, where no file gives their plan."""
    if layout.pipeline_parallel_degree == 1 or layout.pipeline_parallel_schedule_csv:
        return
    try:
        get_schedule_class(layout.pipeline_parallel_schedule)
    except ValueError as error:
        raise UserError(f"parallelism.pipeline_parallel_schedule: {error}") from None


def _check_observer(config: Any, observes: str, shard_degree: int) -> None:
    """What the trainer refuses when it builds the observer of the method."""
    mixing, layout = config.mixing, config.parallelism
    has_pipeline = layout.pipeline_parallel_degree > 1
    if observes == "excess":
        check_reference(mixing.doremi.reference, has_pipeline)
    if observes in OF_GRADIENTS:
        has_fsdp = shard_degree > 1 or layout.context_parallel_degree > 1
        check_gradient_layout(has_pipeline, layout.data_parallel_replicate_degree > 1 and not has_fsdp)
        if getattr(config.optimizer, "early_step_in_backward", False):
            raise UserError(
                f"optimizer.early_step_in_backward makes a step of every backward pass, and method "
                f"{mixing.method} measures with backward passes: set it to false"
            )


def _check_seed_checkpoint(checkpoint: Any, world_size: int) -> None:
    """A seed checkpoint is that of the whole model, made by one rank."""
    if checkpoint.create_seed_checkpoint and not checkpoint.enable:
        raise UserError("checkpoint.create_seed_checkpoint saves nothing: set checkpoint.enable = true")
    if checkpoint.create_seed_checkpoint and world_size > 1:
        raise UserError(
            "checkpoint.create_seed_checkpoint needs the whole model on one rank, and there are "
            f"{world_size}: start one (--nproc_per_node=1), with every degree of parallelism 1"
        )


def _check_loading(checkpoint: Any, folder: Path) -> None:
    """What is to be loaded is there, and would be: torchtitan may start from random weights instead.

    Args:
        folder: of the run's checkpoints.
    """
    step, start = checkpoint.load_step, checkpoint.initial_load_path
    found = checkpoints(folder)
    if not checkpoint.enable and (step != -1 or start):
        key = "load_step" if step != -1 else "initial_load_path"
        raise UserError(f"checkpoint.{key} loads nothing: set checkpoint.enable = true")
    if step != -1 and step not in found:
        there = f"those of steps {', '.join(map(str, sorted(found)))} are" if found else "none is"
        raise UserError(
            f"checkpoint.load_step is {step}: no whole checkpoint of that step is in {folder} ({there}); -1 "
            "loads the newest"
        )
    if not start or found:
        return
    if folder.exists():
        raise UserError(
            f"checkpoint.initial_load_path is {start!r}, and {folder} is there without a whole checkpoint: "
            "torchtitan would load neither: remove that folder"
        )
    is_whole = any((Path(start) / name).is_file() for name in LAST_WRITTEN)
    if not (Path(start).is_dir() if checkpoint.initial_load_in_hf else is_whole):
        raise UserError(
            f"checkpoint.initial_load_path is {start!r}: no whole checkpoint; name its folder "
            "(.../checkpoint/step-N)"
        )


def expected_batch_size(config: Any, world_size: int) -> int:
    """B, rows of one optimizer step on that many ranks; 0: on as few as the layout allows.

    Raises: UserError: they do not fit the layout.
    """
    *_, batch_size = _check_ranks(config, world_size)
    return batch_size


def global_batch_size(training: Any, num_data_ranks: int) -> int:
    """B, rows of one optimizer step: as given, or one micro-batch of every rank."""
    if training.global_batch_size < 0:
        return training.local_batch_size * num_data_ranks
    return training.global_batch_size
