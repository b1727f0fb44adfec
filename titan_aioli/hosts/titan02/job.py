"""The job of a run: its config, read from TOML and flags and checked on every rank before training."""

import contextlib
import io
import re
from typing import Any, NamedTuple

import torch
from torchtitan.config import ConfigManager

from titan_aioli.config.build import Mixture
from titan_aioli.config.validate import check_mixing_keys
from titan_aioli.errors import UserError
from titan_aioli.hosts.titan02.spec import global_batch_size, open_mixture, register_mixing_spec, vocab_size
from titan_aioli.measure.excess import check_reference
from titan_aioli.measure.gradients import check_doge_layout

CONFIG_MODULE = "titan_aioli.config"


class Checked(NamedTuple):
    """A config that a run would accept."""

    config: Any
    """torchtitan's JobConfig with our `mixing`."""
    mixture: Mixture
    world_size: int
    batch_size: int
    """B, rows of one optimizer step."""


def check_config(arguments: list[str], world_size: int = 0) -> Checked:
    """Read a config as a run would, open its stores, build its method, and check its layout.

    Args:
        arguments: of `python -m titan_aioli.train`.
        world_size: ranks that will run it. 0: as few as its layout allows.
    Raises: UserError: the first fault, in one line.
    """
    config = load_config(arguments)
    mixture = open_mixture(config)
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


def _check_observer(config: Any, observes: str, shard_degree: int) -> None:
    """What the trainer refuses when it builds the observer of the method."""
    mixing, layout = config.mixing, config.parallelism
    has_pipeline = layout.pipeline_parallel_degree > 1
    if observes == "excess":
        check_reference(mixing.doremi.reference, has_pipeline)
    if observes == "gradients":
        has_fsdp = shard_degree > 1 or layout.context_parallel_degree > 1
        check_doge_layout(has_pipeline, layout.data_parallel_replicate_degree > 1 and not has_fsdp)


def load_config(args: list[str]) -> Any:
    """torchtitan's JobConfig with our `[mixing]`, from a TOML file and flags.

    Raises: UserError: the file is missing or not TOML, or a key is unknown.
    """
    if not any("custom_config_module" in arg.replace("-", "_") for arg in args):
        args = [*args, f"--job.custom_config_module={CONFIG_MODULE}"]
    args = _with_plain_switches(args)
    check_mixing_keys(args)
    config = _parse(args)
    try:
        register_mixing_spec(config.model.name)
        vocab_size(config)
    except ValueError as error:
        raise UserError(f"model.name is {config.model.name!r}: {error}") from None
    except KeyError:
        raise UserError(
            f"model.flavor is {config.model.flavor!r}: model {config.model.name} has no such flavor"
        ) from None
    _refuse_known_faults(config)
    return config


def _with_plain_switches(args: list[str]) -> list[str]:
    """The arguments with `--a.b true` and `--a.b false` as the switches `--a.b` and `--a.no-b`."""
    words: list[str] = []
    for part in (part for arg in args for part in (arg.split("=", 1) if _is_switch(arg) else [arg])):
        if part.lower() not in ("true", "false") or not words or not words[-1].startswith("--"):
            words.append(part)
        elif part.lower() == "false":
            section, _, name = words[-1].rpartition(".")
            words[-1] = f"{section}.no-{name}" if section else f"--no-{words[-1].removeprefix('--')}"
    return words


def _is_switch(arg: str) -> bool:
    return arg.startswith("--") and arg.lower().endswith(("=true", "=false"))


def _parse(args: list[str]) -> Any:
    """torchtitan's JobConfig; what the parser of the flags writes about a bad one becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return ConfigManager().parse_args(args)
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UserError(_short_complaint(complaint.getvalue())) from None


def _short_complaint(text: str) -> str:
    """The first sentence in the box that tyro draws about a bad flag, and the flag that may be meant."""
    _, _, text = text.partition("\n")  # the box's title
    text = " ".join(re.sub(r"\x1b\[[\d;]*m|[^\x00-\x7f]+", " ", text).split())
    meant = re.search(r"Perhaps you meant: (--\S+)", text)
    sentence = re.split(r"Perhaps you meant|Argument helptext|For full helptext", text)[0].strip()
    return f"{sentence} (perhaps {meant[1]} is meant)" if meant else sentence


def _refuse_known_faults(config: Any) -> None:
    """Refuse what torchtitan 0.2.2 silently gets wrong.

    Raises: UserError: names the settings and what to change.
    """
    tensor_parallel = config.parallelism.tensor_parallel_degree > 1
    if config.compile.enable and tensor_parallel and torch.__version__.startswith("2.13."):
        raise UserError(
            "compile.enable with parallelism.tensor_parallel_degree above 1 gives wrong losses and gradients "
            "on torch 2.13 (a compiled graph of one rank is reused by another): set compile.enable = false, "
            "or use torch 2.11"
        )
