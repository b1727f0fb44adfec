"""MixingTrainer with a fault built in, for tests of what training does about it.

FAULT=bit-proportions, bit-ledger: one bit flips on rank 1 in the middle of step FAULT_AT.
FAULT=evaluation: from step FAULT_AT on, FAULT_COUNT evaluations fail on rank 1, with an exception.
FAULT=late: every rank refuses to start, rank 1 FAULT_AT seconds after rank 0.
FAULT=stores: rank 1 reads the stores in OTHER_STORES, as on a node with a copy of its own.
FAULT=training: at step FAULT_AT the training loss of group 0 is nan (the gradients are not touched).
"""

import os
import sys
import time
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.errors import UserError
from titan_aioli.hosts.installed import InstalledHost, launch
from titan_aioli.hosts.leaving import leave
from titan_aioli.measure.losses import Rows
from titan_aioli.measure.observer import MicroBatch
from titan_aioli.train import MixingTrainer

FAULT, FAULT_AT = os.environ["FAULT"], int(os.environ["FAULT_AT"])


def flip_lowest_bit(proportions):
    proportions.view(np.uint64)[1] ^= 1


class FaultyHost(InstalledHost):
    """Fails in some evaluations, on rank 1 only."""

    failures_left = int(os.environ.get("FAULT_COUNT", "0"))
    fails_now = False

    @contextmanager
    def evaluating(self):
        if FAULT == "evaluation" and self._trainer.step >= FAULT_AT and self.failures_left:
            self.failures_left -= 1
            self.fails_now = dist.get_rank() == 1
        with super().evaluating():
            yield
        self.fails_now = False

    def forward(self, inputs_BS, labels_BS):
        super().forward(inputs_BS, labels_BS)
        if self.fails_now:
            raise RuntimeError("no memory left")


class FaultyTrainer(MixingTrainer):
    def __init__(self, job_config):
        if FAULT == "late":
            time.sleep(FAULT_AT * int(os.environ["RANK"]))
            raise UserError(f"nothing will come of rank {os.environ['RANK']}")
        super().__init__(job_config)

    def build_host(self):
        return FaultyHost(self, self.row_loss, self.loader)

    def forward_backward_step(self, **kwargs):
        loss = super().forward_backward_step(**kwargs)
        controller = self.session.controller
        if self.step == FAULT_AT and dist.get_rank() == 1:
            if FAULT == "bit-proportions":
                flip_lowest_bit(controller.state.proportions)
            if FAULT == "bit-ledger":
                flip_lowest_bit(controller.ledger[1].proportions)
        if self.step == FAULT_AT and FAULT == "training":
            nan = torch.tensor([[torch.nan], [1.0]], dtype=torch.float64)
            rows = Rows(nan, None)
            group_0 = torch.tensor([0])
            self.session.observer.see(MicroBatch(group_0, group_0, group_0, rows))
        return loss


if __name__ == "__main__":
    if FAULT == "stores" and os.environ["RANK"] == "1":
        sys.argv += ["--mixing.stores", os.environ["OTHER_STORES"]]
    leave(launch(FaultyTrainer, sys.argv[1:]))
