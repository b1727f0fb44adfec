"""MixingTrainer that writes down every training loss, and kills its rank where the test says.

KILL_AT=STEP: SIGKILL after the optimizer step, before its evaluation, update and checkpoint.
KILL_RANK=R: only that rank (default: all).
SIGNAL_AT=STEP, SIGNAL=NUMBER: that signal, which asks for a checkpoint and the end: SIGTERM to torchrun (or
whoever has started the ranks), SIGUSR1 to rank 1 alone, or to rank 0 where it is the only one.
KILL_ONCE=PATH: only if that file is not there yet; makes it (for restarts within one torchrun).
"""

import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from titan_aioli.hosts.installed import launch
from titan_aioli.hosts.leaving import leave
from titan_aioli.train import MixingTrainer


class KillingTrainer(MixingTrainer):
    def __init__(self, job_config):
        super().__init__(job_config)
        log = self.metrics_processor.log

        def log_and_write(step, global_avg_loss, *args, **kwargs):
            if dist.get_rank() == 0:
                with open(self.folder / "train_losses.txt", "a") as file:
                    file.write(f"{step} {global_avg_loss!r}\n")
            log(step, global_avg_loss, *args, **kwargs)

        self.metrics_processor.log = log_and_write

    def forward_backward_step(self, **kwargs):
        loss = super().forward_backward_step(**kwargs)
        victim = os.environ.get("KILL_RANK", str(dist.get_rank()))
        if str(self.step) == os.environ.get("KILL_AT") and victim == str(dist.get_rank()):
            once = os.environ.get("KILL_ONCE")
            if once is None or not Path(once).exists():
                Path(once or os.devnull).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if str(self.step) == os.environ.get("SIGNAL_AT"):
            self.send(int(os.environ["SIGNAL"]))
        return loss

    def send(self, number):
        if number == signal.SIGTERM and dist.get_rank() == 0:
            os.kill(os.getppid(), number)
        if number == signal.SIGUSR1 and dist.get_rank() == min(1, dist.get_world_size() - 1):
            os.kill(os.getpid(), number)


if __name__ == "__main__":
    leave(launch(KillingTrainer, sys.argv[1:]))
