"""A training loop with a mixture that changes on the way: what any loop has to call, and when."""

import logging
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch.optim.lr_scheduler import LRScheduler

from titan_aioli.config import Mixing
from titan_aioli.config.build import build_mixture
from titan_aioli.data.loader import Batch
from titan_aioli.errors import UserError
from titan_aioli.hosts.build import build_loader, build_session
from titan_aioli.hosts.plain.checkpoint import load_checkpoint, save_checkpoint
from titan_aioli.hosts.plain.host import PlainHost
from titan_aioli.hosts.stopping import Stopping, exit_status, stopped_line
from titan_aioli.session import LogMetrics, MixingSession, OutOfData

logger = logging.getLogger(__name__)


class Schedule(NamedTuple):
    """How long, and in which batches."""

    num_steps: int
    """Optimizer steps of the run."""
    seq_len: int
    """S, tokens of a sequence."""
    batch_size: int
    """B, sequences of one optimizer step over all ranks and micro-batches."""
    local_batch_size: int
    """Sequences of one micro-batch of one rank."""
    log_freq: int = 10
    """Steps between two logged steps."""
    save_freq: int = 0
    """Steps between two checkpoints; the last step is always saved. 0: no checkpoint."""


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    mixing: Mixing,
    folder: Path,
    schedule: Schedule,
    *,
    lr_scheduler: LRScheduler | None = None,
    vocab_size: int | None = None,
    device: torch.device | None = None,
    log_metrics: LogMetrics | None = None,
    after_step: Callable[[int], None] | None = None,
) -> MixingSession:
    """Train a model on the config's mixture; resume from FOLDER/checkpoint.pt if it is there.

    Args:
        model: maps ids [B, S] to logits [B, S, V]; on the device, in DDP where there are several ranks.
        optimizer: of the model's parameters.
        mixing: the `[mixing]` config, for example from `read_mixing`.
        folder: where the run leaves its files, for `titan-aioli report` and the others.
        schedule: how long, and in which batches.
        lr_scheduler: stepped after every optimizer step and saved with it.
        vocab_size: V, to refuse stores with other tokens. None: not checked.
        device: default: the CPU.
        log_metrics: called with ({name: value}, step) on every rank. Default: nowhere but the log.
        after_step: called with the number of steps done after each one.
    Returns: the session of the finished run.
    Raises:
        SystemExit: a signal has stopped the run, which is saved; see hosts/stopping.py.
        UserError: what is wrong with the config, the stores or the checkpoint.
    """
    device, write_metrics = device or torch.device("cpu"), log_metrics or (lambda metrics, step: None)
    host = PlainHost(model, schedule.local_batch_size, device, optimizer)
    session = _build_session(mixing, host, folder, schedule, vocab_size, write_metrics)
    parts = {"model": host.module, "optimizer": optimizer, "mixture": session, "dataloader": session.loader}
    if lr_scheduler is not None:
        parts["lr_scheduler"] = lr_scheduler
    path, step = folder / "checkpoint.pt", 0
    if schedule.save_freq and path.is_file():
        step = load_checkpoint(path, parts, device)
    batches, stopping = iter(session.loader), Stopping()
    while step < schedule.num_steps:
        try:
            session.before_step(step)
        except OutOfData:
            if schedule.save_freq:
                save_checkpoint(path, parts, step, is_writer=host.data_rank == 0)
            break
        _train_step(batches, host, session, schedule, optimizer)
        if lr_scheduler is not None:
            lr_scheduler.step()
        step += 1
        if after_step is not None:
            after_step(step)
        session.after_step()
        if step == 1 or step % schedule.log_freq == 0:
            _log(session.metrics(), step, write_metrics)
        stopped_by = 0 if step == schedule.num_steps else stopping.after_step(step)
        is_last = step == schedule.num_steps or bool(stopped_by)
        if schedule.save_freq and (step % schedule.save_freq == 0 or is_last):
            save_checkpoint(path, parts, step, is_writer=host.data_rank == 0)
        if stopped_by:
            logger.warning(stopped_line(stopped_by, step, bool(schedule.save_freq)))
            sys.exit(exit_status(stopped_by))
    stopping.close()
    session.finish()
    return session


def _build_session(
    mixing: Mixing,
    host: PlainHost,
    folder: Path,
    schedule: Schedule,
    vocab_size: int | None,
    log_metrics: LogMetrics,
) -> MixingSession:
    """The session of the run, with its loader.

    Raises: UserError: what is wrong with the config or the stores.
    """
    if mixing.separate_documents:
        raise UserError("mixing.separate_documents needs torchtitan 0.3: this loop has no masks by document")
    mixture = build_mixture(
        mixing,
        schedule.seq_len,
        vocab_size,
        num_steps=schedule.num_steps,
        batch_size=schedule.batch_size,
    )
    is_writer = host.data_rank == 0
    loader = build_loader(
        mixing,
        mixture,
        folder,
        batch_size=schedule.batch_size,
        local_batch_size=schedule.local_batch_size,
        rank=host.data_rank,
        num_ranks=host.num_data_ranks,
        is_writer=is_writer,
        device=host.device,
    )
    return build_session(
        mixing,
        mixture,
        host,
        loader,
        folder,
        num_steps=schedule.num_steps,
        log_freq=schedule.log_freq,
        log_metrics=log_metrics,
        is_writer=is_writer,
    )


def _train_step(
    batches: Iterator[Batch],
    host: PlainHost,
    session: MixingSession,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
) -> None:
    """One optimizer step, by the gradients of the step's mean loss per token."""
    # DDP divides the gradients by the number of ranks, so it is multiplied in here.
    scale = host.num_data_ranks / (schedule.batch_size * schedule.seq_len)
    optimizer.zero_grad(set_to_none=True)
    for batch, labels in islice(batches, session.loader.num_micro_batches):
        inputs, labels, group = (x.to(host.device) for x in (batch["input"], labels, batch["group"]))
        (host.loss(inputs, labels) * scale).backward()
        session.see(inputs, labels, group)
    optimizer.step()


def _log(metrics: dict[str, float], step: int, write_metrics: LogMetrics) -> None:
    """Write the metrics of a logged step, and show the training losses of the groups."""
    write_metrics(metrics, step)
    losses = {n.rpartition("/")[2]: v for n, v in metrics.items() if n.startswith("mixing/train_loss/")}
    logger.info(f"step {step}: " + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()))
