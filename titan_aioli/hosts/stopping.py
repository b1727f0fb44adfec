"""Stop at a signal as a preempted job should: all ranks after the same step, with a checkpoint of that step.

SIGTERM comes from a cluster that takes the machine back, SIGUSR1 from a batch script ahead of its time limit.
A signal may reach one rank or all. Each step every rank adds what it has received to a reduction of one
number over gloo, which runs beside the next step and is read after it. So all ranks learn of it at the same
step, at most two steps after the signal, and nothing waits for the device.
"""

import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Stopping:
    """What the ranks have been told to stop by."""

    def __init__(self):
        self._received = 0
        self._group: Any = None
        self._work: Any = None
        self._agreed = torch.zeros(1, dtype=torch.int64)
        can_handle = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS if can_handle}
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def after_step(self) -> int:
        """The number of the signal at which all ranks stop after this step; 0: train on. Collective."""
        if self._group is None:
            return self._received
        if self._work is not None:
            self._work.wait()
            if agreed := int(self._agreed):  # on the CPU: no host sync
                return agreed
        self._agreed = torch.tensor([self._received])
        self._work = dist.all_reduce(self._agreed, dist.ReduceOp.MAX, self._group, async_op=True)
        return 0

    def close(self) -> None:
        """Take part in the last reduction, and leave signals as they were before."""
        if self._work is not None:
            with suppress(RuntimeError):  # another rank has died
                self._work.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal. Repeats change nothing, since a cluster may signal the ranks and torchrun, which
        passes it on; SIGKILL ends a rank at once."""
        self._received = max(self._received, number)


def exit_status(number: int) -> int:
    """Of a process that a signal has stopped: 143 for SIGTERM, as shells say it; 0 for SIGUSR1.

    torchrun restarts ranks that end with another status than 0 (--max-restarts), which is not what a batch
    script wants that asks for a checkpoint and the end.
    """
    return 128 + number if number == signal.SIGTERM else 0


def stopped_line(number: int, step: int, has_checkpoint: bool) -> str:
    """The sentence for the log."""
    line = f"mixing: stopped by {signal.Signals(number).name} after step {step}"
    if has_checkpoint:
        return f"{line}, which is saved: the same command continues from it"
    return f"{line}; nothing is saved, since checkpoints are off"
