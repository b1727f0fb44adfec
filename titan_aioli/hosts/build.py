"""From the `[mixing]` config to the loader and the session of a run, for any host."""

import logging
from pathlib import Path

import torch
from tqdm import tqdm

from titan_aioli.config import Mixing
from titan_aioli.config.build import Mixture, build_controller, describe
from titan_aioli.config.limits import max_drawn
from titan_aioli.control.ledger import Ledger
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.measure.budget import affordable_sequences
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.observer import Settings
from titan_aioli.methods import Objective
from titan_aioli.runs.audit import AuditFile
from titan_aioli.runs.log import RunLog
from titan_aioli.runs.updates import Targets
from titan_aioli.session import LogMetrics, MixingSession, Options

logger = logging.getLogger(__name__)


def build_loader(
    mixing: Mixing,
    mixture: Mixture,
    folder: Path,
    *,
    batch_size: int,
    local_batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
    is_writer: bool = True,
    device: torch.device | None = None,
) -> MixtureLoader:
    """The loader of one data-parallel rank, with an empty ledger that the controller fills.

    Args:
        mixing, mixture: the config section and what `build_mixture` made of it.
        folder: of the run, for rows.csv.
        batch_size: B, rows of one step over all ranks and micro-batches.
        local_batch_size: rows of one micro-batch of one rank.
        rank, num_ranks: this rank's place among the data-parallel ranks.
        is_writer: whether this process writes the files of the run.
        device: that batches go to. None: the GPU where there is one.
    """
    audit = AuditFile(folder / "rows.csv", mixture.group_names) if mixing.audit and is_writer else None
    return MixtureLoader(
        mixture.train,
        Ledger(),
        batch_size=batch_size,
        local_batch_size=local_batch_size,
        rank=rank,
        num_ranks=num_ranks,
        seed=mixing.seed,
        read_ahead=mixing.read_ahead,
        on_step=audit.write_step if audit else None,
        max_drawn=max_drawn(mixing, mixture.train),
        pin_memory=torch.cuda.is_available() and (device is None or device.type == "cuda"),
    )


def build_session(
    mixing: Mixing,
    mixture: Mixture,
    host: Host,
    loader: MixtureLoader,
    folder: Path,
    *,
    num_steps: int,
    log_freq: int,
    log_metrics: LogMetrics,
    is_writer: bool = True,
) -> MixingSession:
    """The session of a run.

    Args:
        mixing, mixture: the config section and what `build_mixture` made of it.
        host: the trainer.
        loader: from `build_loader`.
        folder: of the run.
        num_steps: optimizer steps of the whole run.
        log_freq: steps between two logged steps.
        log_metrics: writes metrics where the host writes its own.
        is_writer: whether this process writes the files of the run and draws the progress bar.
    """
    host.row_loss.recording = mixing.train_losses
    for line in mixture.shared_stores() if is_writer else ():
        logger.warning(f"mixing: {line}")
    sequences, batch_size = mixing.evaluation.sequences, loader.schedule.batch_size
    num_seen = affordable_sequences(
        mixing.evaluation.budget,
        mixture.method,
        len(mixture.group_names),
        batch_size,
        largest=sequences,
        num_targets=len(mixture.target_names),
    )
    run_log = _run_log(mixing, mixture, folder, num_steps, num_seen < sequences, is_writer)
    held_out = HeldOut(
        host,
        mixture.validation,
        mixture.test,
        sequences,
        num_seen,
        on_validation=run_log.evaluated,
        targets=mixture.targets,
    )
    return MixingSession(
        host,
        build_controller(mixing, mixture, loader.ledger, batch_size, folder, is_writer),
        loader,
        held_out,
        run_log,
        describe(mixing, mixture, loader, num_steps),
        _options(mixing, mixture, log_freq, num_seen),
        log_metrics,
    )


def _run_log(
    mixing: Mixing, mixture: Mixture, folder: Path, num_steps: int, is_sampled: bool, is_writer: bool
) -> RunLog:
    """What the run writes of itself, and its progress bar.

    Args:
        is_sampled: whether the method sees fewer held-out sequences than the log.
    """
    progress = tqdm(
        total=num_steps,
        desc=mixing.method,
        unit="step",
        dynamic_ncols=True,
        mininterval=1.0,
        disable=not (mixing.progress and is_writer),
    )
    targets = None
    if mixture.targets is not None or mixture.objective != Objective():
        targets = Targets(mixture.target_names, mixture.objective, mixing.objective.unit)
    observes = _observed(mixture, is_sampled)
    return RunLog(folder, mixture.group_names, observes, is_writer, progress, targets)


def _observed(mixture: Mixture, is_sampled: bool) -> str:
    """What the method observes, as a key of OBSERVED in runs/updates.py."""
    observes = mixture.method.observes
    if observes == "validation" and (is_sampled or mixture.targets is not None):
        return "_".join(["target"] * (mixture.targets is not None) + ["sample"] * is_sampled)
    return observes


def _options(mixing: Mixing, mixture: Mixture, log_freq: int, num_seen: int) -> Options:
    """The settings of the config that the session acts on.

    Args:
        num_seen: sequences of each set that a measurement can afford.
    """
    doremi, max_epochs = mixing.doremi, {name: group.max_epochs for name, group in mixing.groups.items()}
    observing = Settings(
        doremi.reference,
        doremi.clip_tokens,
        mixing.doge.sequences,
        mixing.aioli_gradients.sequences or num_seen,
        mixture.objective,
    )
    return Options(
        log_freq=log_freq,
        evaluation_freq=mixing.evaluation.freq,
        evaluation_at_start=mixing.evaluation.at_start,
        sequence_losses=mixing.evaluation.sequence_losses,
        max_skipped_updates=mixing.max_skipped_updates,
        stop_when_used_up=mixing.when_used_up == "stop",
        max_epochs={name: most for name, most in max_epochs.items() if most},
        observing=observing,
    )
