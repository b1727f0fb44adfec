"""The session's calls in torchtitan's training loop, whatever its version."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchtitan.components.dataloader import DataloaderExhaustedError
from torchtitan.tools.logging import logger

from titan_aioli.config import Mixing
from titan_aioli.config.build import Mixture
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.build import build_session
from titan_aioli.hosts.stopping import Stopping
from titan_aioli.hosts.titan.host import TitanHost
from titan_aioli.measure.losses import RowLoss
from titan_aioli.session import OutOfData


class MixtureTraining:
    """A base class ahead of torchtitan's Trainer; `session` decides what each step trains on.

    `stopped_by` is the number of the signal that ended training before its last step; 0 otherwise.
    """

    row_loss: RowLoss
    loader: MixtureLoader
    folder: Path
    """The dump folder."""
    step: int
    checkpointer: Any
    metrics_processor: Any

    def begin_mixing(self, config: Any, mixture: Mixture) -> None:
        """Build the session, when torchtitan's trainer is built and `row_loss`, `loader`, `folder` are set.

        Args:
            config: torchtitan's, with our `mixing`.
            mixture: what its `[mixing]` asks for.
        """
        mixing: Mixing = config.mixing
        self.local_batch_size: int = config.training.local_batch_size
        self.session = build_session(
            mixing,
            mixture,
            self.build_host(),
            self.loader,
            self.folder,
            num_steps=config.training.steps,
            log_freq=config.metrics.log_freq,
            log_metrics=self.metrics_processor.logger.log,
            is_writer=dist.get_rank() == 0,
        )
        self.stopping, self.stopped_by = Stopping(), 0
        self._num_steps, self._checkpoint = config.training.steps, config.checkpoint
        self._has_begun = False
        if config.checkpoint.enable:
            self.checkpointer.states["mixture"] = self.session
        self._show_mixture()
        self._finish_after_saving()

    def _show_mixture(self) -> None:
        """Add the mixture's metrics to torchtitan's; every rank logs a step, so they may be reduced."""
        log = self.metrics_processor.log

        def log_with_mixture(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
            extra = {**(extra_metrics or {}), **self.session.metrics()}
            log(step, global_avg_loss, global_max_loss, grad_norm, extra)

        self.metrics_processor.log = log_with_mixture

    def build_host(self) -> TitanHost:
        """What measuring sees of this trainer."""
        raise NotImplementedError

    def overruled(self) -> Iterable[str]:
        """A line for each setting of the config that a loaded checkpoint overrules."""
        raise NotImplementedError

    def wait_for_checkpoint(self) -> None:
        """Return when the checkpoint that is being written in the background, if any, is whole."""
        raise NotImplementedError

    def train_step(self, data_iterator: Any) -> None:
        """One optimizer step on the current phase's mixture; then whatever a phase's end asks for."""
        if not self._has_begun:
            self._has_begun, self._begun_at = True, self.step - 1
            self._warn_of_overruled()
        try:
            self.session.before_step(self.step - 1)  # torchtitan has counted the step that comes now
        except OutOfData:
            self.step -= 1
            self._save_without_data()
            raise DataloaderExhaustedError from None
        super().train_step(data_iterator)  # pyright: ignore
        self.session.after_step()
        if self.step == self._num_steps:
            return
        self.stopped_by = self.stopping.after_step(self.step)
        if self.stopped_by:
            self.checkpointer.interval = 1  # so that torchtitan saves this step, whole, as any other

    def _save_without_data(self) -> None:
        """The last checkpoint and the results of a run that ends before its last step.

        A checkpoint that is there already is not written again: it would be half a one if this were killed.
        """
        is_due = self.step == self._begun_at or self.step % self._checkpoint.interval == 0
        if self._checkpoint.enable and self.step and is_due:
            self.wait_for_checkpoint()
            self.session.finish()
        else:
            self.checkpointer.save(self.step, last_step=True)

    def _finish_after_saving(self) -> None:
        """Evaluate for the results only when the last checkpoint is saved: it can take long, and may fail."""
        save = self.checkpointer.save

        def save_and_finish(curr_step: int, last_step: bool = False) -> Any:
            saved = save(curr_step, last_step=last_step)
            if last_step and self._has_begun:
                self.session.finish()
            return saved

        self.checkpointer.save = save_and_finish

    def _warn_of_overruled(self) -> None:
        """Settings that were changed for this resume and have no effect, once, on rank 0."""
        if self.step > 1 and dist.get_rank() == 0:
            for line in self.overruled():
                logger.warning(line)

    def should_continue_training(self) -> bool:
        """torchtitan's, unless a signal says otherwise."""
        return not self.stopped_by and super().should_continue_training()  # pyright: ignore

    def close(self) -> None:
        """torchtitan's; a checkpoint that is being written in the background is waited for, also after an
        error: the process ends without its threads."""
        self.stopping.close()
        if self._checkpoint.enable:
            try:
                self.wait_for_checkpoint()
            except Exception as error:  # the error that ended the run is the one to show
                logger.warning(f"the checkpoint that was being written is not whole: {error}")
        super().close()  # pyright: ignore
