"""Counts what one unlogged training step asks of the device: ours and plain torchtitan, on two ranks.

Prints {"plain": {...}, "ours": {...}}: host syncs (`item`) and collectives.
"""

import json
import sys
from collections import Counter

import titan_aioli.hosts.titan  # noqa: F401, before the first import of torchtitan

# isort: split
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.support.plain_torchtitan import PlainTrainer, plain_config, sharing_ranks
from titan_aioli.hosts.installed import load_config
from titan_aioli.train import MixingTrainer


class CountOps(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if "_local_scalar_dense" in name:
            self.counts["item"] += 1
        if "c10d" in name and "wait" not in name:
            self.counts[name.split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def count(trainer_class, config, before):
    config.metrics.log_freq = 1000
    with sharing_ranks(before):
        trainer = trainer_class(config)
    batches = trainer.batch_generator(trainer.dataloader)
    for step in (1, 2, 3):
        trainer.step = step
        counter = CountOps()
        with counter:
            trainer.train_step(batches)
    return dict(sorted(counter.counts.items())), trainer


if __name__ == "__main__":
    plain, first = count(PlainTrainer, plain_config(sys.argv[1:]), None)
    ours, _ = count(MixingTrainer, load_config(sys.argv[1:]), first)
    found = {"plain": plain, "ours": ours}
    if dist.get_rank() == 0:
        print("COUNTS " + json.dumps(found), flush=True)
