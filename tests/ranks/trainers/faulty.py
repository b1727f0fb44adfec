"""MixingTrainer with a fault built in, for tests of what training does about it.

FAULT=bit-proportions, bit-ledger: one bit flips on rank 1 in the middle of step FAULT_AT.
FAULT=evaluation: from step FAULT_AT on, FAULT_COUNT evaluations fail on rank 1, with an exception.
FAULT=late: every rank refuses to start, rank 1 FAULT_AT seconds after rank 0.
FAULT=training: at step FAULT_AT the training loss of group 0 is nan (the gradients are not touched).
"""

import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.errors import UserError
from titan_aioli.hosts.titan02.launch import launch
from titan_aioli.train import MixingTrainer

FAULT, FAULT_AT = os.environ["FAULT"], int(os.environ["FAULT_AT"])


def flip_lowest_bit(proportions):
    proportions.view(np.uint64)[1] ^= 1


class FaultyTrainer(MixingTrainer):
    def __init__(self, job_config):
        if FAULT == "late":
            time.sleep(FAULT_AT * int(os.environ["RANK"]))
            raise UserError("nothing will come of it")
        super().__init__(job_config)
        self.failures_left = int(os.environ.get("FAULT_COUNT", "0"))
        self.fails_now = False
        by_row = self.row_loss._by_row

        def failing(*args):
            if self.fails_now:
                raise RuntimeError("no memory left")
            return by_row(*args)

        self.row_loss._by_row = failing

    def forward_backward_step(self, **kwargs):
        loss = super().forward_backward_step(**kwargs)
        if self.step == FAULT_AT and dist.get_rank() == 1:
            if FAULT == "bit-proportions":
                flip_lowest_bit(self.controller.state.proportions)
            if FAULT == "bit-ledger":
                flip_lowest_bit(self.controller.ledger[1].proportions)
        if self.step == FAULT_AT and FAULT == "training":
            self.observer._stats.sums_2G[0, 0] = torch.nan
        return loss

    def evaluate(self, evaluator):
        if FAULT == "evaluation" and self.step >= FAULT_AT and self.failures_left:
            self.failures_left -= 1
            self.fails_now = dist.get_rank() == 1
        losses = super().evaluate(evaluator)
        self.fails_now = False
        return losses


if __name__ == "__main__":
    sys.exit(launch(FaultyTrainer, sys.argv[1:]))
