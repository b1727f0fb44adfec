"""The plain loop on a tiny model: FOLDER STORES METHOD. KILL_AT=STEP: SIGKILL after that optimizer step.

KILL_SIGNAL=NUMBER: another signal in its place, to the last rank alone.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from titan_aioli.config.read import read_mixing
from titan_aioli.hosts.plain.loop import Schedule, train
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.testing.stores import VOCAB_SIZE
from titan_aioli.testing.torchrun import TINY


def kill(step):
    if str(step) != os.environ.get("KILL_AT"):
        return
    number = int(os.environ.get("KILL_SIGNAL", signal.SIGKILL))
    is_last = not dist.is_initialized() or dist.get_rank() == dist.get_world_size() - 1
    if is_last or number == signal.SIGKILL:
        os.kill(os.getpid(), number)


def main(folder, stores, method):
    mixing = read_mixing(TINY)
    mixing.stores, mixing.method = stores, method
    mixing.odm = replace(mixing.odm, steps_per_update=3)
    torch.manual_seed(0)
    model = Transformer(VOCAB_SIZE, 16, dim=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    schedule = Schedule(num_steps=16, seq_len=16, batch_size=8, local_batch_size=2, save_freq=2)
    kwargs = {"lr_scheduler": lr_scheduler, "vocab_size": VOCAB_SIZE, "after_step": kill}
    train(model, optimizer, mixing, Path(folder), schedule, **kwargs)


if __name__ == "__main__":
    main(*sys.argv[1:])
    if dist.is_initialized():
        dist.destroy_process_group()  # after the model is gone: DDP's destructor hangs without the group
