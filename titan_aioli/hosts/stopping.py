"""Stop at a signal as a preempted job should: all ranks after the same step, with a checkpoint of that step.

SIGTERM comes from a cluster that takes the machine back, SIGUSR1 from a batch script ahead of its time limit.
A signal may reach one rank or all. The first rank that has received one says in the ranks' key-value store
after which step all stop: two steps on, since the collectives of a step keep ranks closer together than that.
Every rank looks there after each step: one request over TCP, no collective and no wait for the device. One
process answers them all, so that of many ranks some look after this step and some after the next.
"""

import signal
import threading
from types import FrameType

import torch.distributed as dist

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
KEY = "titan_aioli/stop"
"""Key of the store: the last step, and the number of the signal."""
STEPS_AHEAD = 2
"""Steps between the one at which a rank has noticed a signal and the last, where all look every time."""
RANKS_PER_STEP = 512
"""Most ranks that look after the same step: to answer them takes 9 ms (17 us each were measured)."""


class Stopping:
    """What the ranks have been told to stop by."""

    def __init__(self):
        self._received = 0
        can_handle = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS if can_handle}
        has_others = dist.is_initialized() and dist.get_world_size() > 1
        self._store = dist.distributed_c10d._get_default_store() if has_others else None
        self._rank, num_ranks = (dist.get_rank(), dist.get_world_size()) if has_others else (0, 1)
        self._every = -(-num_ranks // RANKS_PER_STEP)
        self._stop: tuple[int, int] | None = None

    def after_step(self, step: int) -> int:
        """The number of the signal by which all ranks stop after this step; 0: train on."""
        if self._store is None:
            return self._received
        if self._stop is None:
            if self._received:
                last = step + STEPS_AHEAD + self._every - 1
                self._store.compare_set(KEY, "", f"{last} {self._received}")
            if (step + self._rank) % self._every == 0 and self._store.check([KEY]):
                last, number = self._store.get(KEY).split()
                self._stop = int(last), int(number)
        return self._stop[1] if self._stop is not None and step >= self._stop[0] else 0

    def close(self) -> None:
        """Leave signals as they were before."""
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
