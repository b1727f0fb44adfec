"""MixingTrainer for scripts/layouts.py: writes each step's loss, gradient norm and per-group sums.

Every rank writes rankR.jsonl into the dump folder: {"step", "sums" [2, G], "grad_norm", "loss"}.
"""

import json
import sys

import torch.distributed as dist

from titan_aioli.hosts.installed import VERSION, launch
from titan_aioli.hosts.leaving import leave
from titan_aioli.train import MixingTrainer

from . import cpu_context_parallel


class LayoutTrainer(MixingTrainer):
    def __init__(self, job_config):
        super().__init__(job_config)
        log = self.metrics_processor.log

        def log_and_write(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
            record = {"step": step, "loss": global_avg_loss, "grad_norm": grad_norm}
            record["sums"] = self.session.log_stats.reduced().tolist()
            with open(self.folder / f"rank{dist.get_rank()}.jsonl", "a") as file:
                file.write(json.dumps(record) + "\n")
            log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)

        self.metrics_processor.log = log_and_write


if __name__ == "__main__":
    if VERSION < (0, 3):  # newer ones cut FlexAttention, for which their host has a CPU form
        cpu_context_parallel.install()
    leave(launch(LayoutTrainer, sys.argv[1:]))
