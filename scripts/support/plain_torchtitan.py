"""Plain torchtitan (its trainer, loss and metrics) on the sequences that a one-group mixture draws.

Only the CPU enablement and a loader of fixed sequences are ours; every loss is written down.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

# Before torchtitan, which asks for the device when it is imported.
from titan_aioli.hosts.titan02.cpu import for_cpu

# isort: split
import torch
from torchtitan.protocols.train_spec import get_train_spec, register_train_spec
from torchtitan.tools.logging import init_logger
from torchtitan.train import Trainer

from titan_aioli.data.schedule import Position, Schedule
from titan_aioli.hosts.titan02.job import load_config
from titan_aioli.hosts.titan02.spec import FLAVORS
from titan_aioli.stores.store import open_store


class FixedSequences:
    """The sequences of group `a`, in the order of the schedule."""

    def __init__(self, dp_world_size, dp_rank, tokenizer, job_config):
        training = job_config.training
        self.tokens = open_store(Path(job_config.mixing.stores) / "a" / "train").tokens
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
            yield {"input": batch[:, :-1].contiguous()}, batch[:, 1:].contiguous()

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class PlainTrainer(Trainer):
    def __init__(self, job_config):
        super().__init__(job_config)
        log = self.metrics_processor.log

        def log_and_write(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
            if os.environ["RANK"] == "0":
                with open(Path(job_config.job.dump_folder) / "train_losses.txt", "a") as file:
                    file.write(f"{step} {global_avg_loss!r}\n")
            log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)

        self.metrics_processor.log = log_and_write


PLAIN_NAME = "plain_llama3"


def register_plain() -> None:
    """torchtitan's Llama with our flavours; the name keeps our launcher from changing anything else."""
    base = get_train_spec("llama3")
    register_train_spec(
        PLAIN_NAME,
        replace(
            base,
            model_args={**base.model_args, **FLAVORS["llama3"]},
            parallelize_fn=for_cpu(base.parallelize_fn),
            build_tokenizer_fn=None,
            build_dataloader_fn=FixedSequences,
        ),
    )


if __name__ == "__main__":
    init_logger()
    register_plain()
    config = load_config(sys.argv[1:])
    config.model.name = PLAIN_NAME
    Path(config.job.dump_folder).mkdir(parents=True, exist_ok=True)
    trainer = PlainTrainer(config)
    trainer.train()
    trainer.close()
