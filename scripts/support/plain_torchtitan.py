"""Plain torchtitan (its trainer, loss and metrics) on the sequences that a one-group mixture draws.

Only the CPU enablement and a loader of fixed sequences are ours; every loss is written down.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from titan_aioli.hosts.installed import VERSION

# isort: split
import torch
from torchtitan.tools.logging import init_logger

from titan_aioli.data.schedule import Position, Schedule
from titan_aioli.stores.store import open_store

if VERSION < (0, 3):
    from torchtitan.train import Trainer
else:
    from torchtitan.trainer import Trainer


class FixedSequences:
    """The sequences of group `a`, in the order of the schedule."""

    def __init__(self, config, dp_world_size: int, dp_rank: int):
        """Args:
        config: torchtitan's, with our `mixing`.
        dp_world_size, dp_rank: number of data-parallel ranks, and this one's place among them.
        """
        training = config.training
        self.tokens = open_store(Path(config.mixing.stores) / "a" / "train").tokens
        self.seq_len, batch_size = training.seq_len, training.local_batch_size * dp_world_size
        num_sequences = (len(self.tokens) - 1) // self.seq_len
        plan = Schedule(["a"], [num_sequences], batch_size, 0).plan(
            Position.start(1), torch.ones(1).numpy(), training.steps
        )
        mine = slice(dp_rank * training.local_batch_size, (dp_rank + 1) * training.local_batch_size)
        self.sequences = plan.sequences[:, mine]

    def __iter__(self):
        for sequences in self.sequences:
            rows = [self.tokens[k * self.seq_len : k * self.seq_len + self.seq_len + 1] for k in sequences]
            batch = torch.stack([torch.from_numpy(row.astype("int64")) for row in rows])
            inputs = {"input": batch[:, :-1].contiguous()}
            if VERSION >= (0, 3):
                inputs["positions"] = torch.arange(self.seq_len).expand(len(batch), -1).contiguous()
            yield inputs, batch[:, 1:].contiguous()

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class PlainTrainer(Trainer):
    """torchtitan's trainer; rank 0 writes the loss of each logged step into train_losses.txt."""

    def __init__(self, config):
        super().__init__(config)
        folder = Path(config.job.dump_folder if VERSION < (0, 3) else config.dump_folder)
        log = self.metrics_processor.log

        def log_and_write(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
            if os.environ["RANK"] == "0":
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / "train_losses.txt", "a") as file:
                    file.write(f"{step} {global_avg_loss!r}\n")
            log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)

        self.metrics_processor.log = log_and_write


@contextmanager
def sharing_ranks(trainer: Any) -> Iterator[None]:
    """Inside the block a second trainer of this process is built on the ranks of the first.

    Args:
        trainer: the first; None: there is none yet.
    """
    if trainer is None:
        yield
        return
    with mock.patch.object(Trainer, "init_distributed", lambda self: trainer.parallel_dims):
        yield


def plain_config(arguments: list[str]):
    """The config of a `PlainTrainer`, from the arguments of a mixing run."""
    if VERSION < (0, 3):
        from .plain_config02 import plain_config
    else:
        from .plain_config03 import plain_config
    return plain_config(arguments, FixedSequences)


if __name__ == "__main__":
    init_logger()
    trainer = PlainTrainer(plain_config(sys.argv[1:]))
    trainer.train()
    trainer.close()
