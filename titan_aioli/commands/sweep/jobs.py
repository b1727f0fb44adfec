"""The runs of a sweep as jobs of submitit: several at a time on this machine, or on a SLURM cluster.

submitit (an optional extra) starts them, requeues them where a time limit or preemption ends them, and says
which are done; there is no scheduler here. A run holds a lock on its folder, so that one which outlived a
killed sweep is waited for and never trained twice at once.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from titan_aioli.commands.sweep.mixtures import Sweep
from titan_aioli.commands.sweep.run import SweepRun
from titan_aioli.errors import UserError
from titan_aioli.files import write_json

POLL_SECONDS = 0.5
NO_LIMIT_MINUTES = 60 * 24 * 365


class Jobs(NamedTuple):
    """How runs are started."""

    executor: str
    """`local` or `slurm`."""
    parallel: int
    """Most runs at a time."""
    options: dict[str, Any]
    """Parameters of submitit's executor, such as slurm_partition and timeout_min."""


@dataclass(frozen=True)
class TrainJob:
    """One run, as submitit pickles it."""

    folder: Path
    command: Sequence[str]
    devices: str | None = None
    """Value of CUDA_VISIBLE_DEVICES. None: as the executor sets it."""

    def __call__(self) -> str | None:
        """Train to the end, unless that is done; None, or in one line why it failed."""
        run = SweepRun(self.folder, [])
        if self.devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.devices
        with open(self.folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if run.is_finished:
                return None
            return run.train(self.command, lock.fileno(), lambda step: None)

    def checkpoint(self) -> Any:
        """What submitit queues again when the job is interrupted: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Started(NamedTuple):
    """A run that is under way or queued."""

    run: SweepRun
    job: Any
    """submitit's."""
    slot: int = 0
    """Which of this machine's devices it has."""


def train_all_as_jobs(planned: Sweep, jobs: Jobs, on_finished: Callable[[SweepRun], None]) -> list[str]:
    """Do the runs that are not finished; a line for each that failed.

    Args:
        planned: the sweep.
        jobs: how its runs are started.
        on_finished: called with each run that has ended, finished or failed.
    Raises: UserError: submitit is not installed, or knows no such cluster or option.
    """
    waiting = [run for run in planned.runs if not run.is_finished]
    start = _start_local if jobs.executor == "local" else _start_slurm
    failures, started = [], []
    try:
        while waiting or started:
            new = start(planned, jobs, waiting, started)
            started += new
            waiting = waiting[len(new) :]
            for each in [each for each in started if each.job.done()]:
                started.remove(each)
                failures += _failure(each)
                on_finished(each.run)
            time.sleep(POLL_SECONDS)
    except BaseException:
        for each in started if jobs.executor == "local" else ():  # those of a cluster run on: found again
            each.job.cancel()
        raise
    return failures


def _start_local(
    planned: Sweep, jobs: Jobs, waiting: Sequence[SweepRun], started: Sequence[Started]
) -> list[Started]:
    """Start as many of the first runs as there is room for, each with devices of its own if there are any."""
    free = sorted(set(range(jobs.parallel)) - {each.slot for each in started})
    new = []
    for run, slot in zip(waiting, free, strict=False):
        executor = _executor(planned, "local", {"timeout_min": NO_LIMIT_MINUTES, **jobs.options})
        devices = _devices(slot, planned.nproc_per_node, jobs.parallel)
        new.append(Started(run, executor.submit(_job(planned, run, devices)), slot))
    return new


def _start_slurm(
    planned: Sweep, jobs: Jobs, waiting: Sequence[SweepRun], started: Sequence[Started]
) -> list[Started]:
    """Queue all runs as one array; those that an earlier call queued and that are still there are kept."""
    if not waiting:
        return []
    executor = _executor(planned, "slurm", jobs.options | {"slurm_array_parallelism": jobs.parallel})
    path = planned.output / "jobs.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    found = {name: executor.job_class(_folder(planned), job_id) for name, job_id in known.items()}
    queued = {name: job for name, job in found.items() if not job.done()}
    with executor.batch():
        queued |= {run.name: executor.submit(_job(planned, run)) for run in waiting if run.name not in queued}
    write_json(path, {name: job.job_id for name, job in queued.items()})
    return [Started(run, queued[run.name]) for run in waiting]


def _executor(planned: Sweep, cluster: str, options: dict[str, Any]) -> Any:
    """submitit's executor with these parameters."""
    try:
        import submitit
    except ImportError:
        raise UserError(
            f"--executor {cluster} needs submitit: pip install submitit (or the extra titan_aioli[submitit])"
        ) from None
    try:
        executor = submitit.AutoExecutor(_folder(planned), cluster=cluster)
        executor.update_parameters(**options)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"--executor {cluster}: {' '.join(str(error).split())}") from None
    return executor


def _folder(planned: Sweep) -> Path:
    """Of submitit's files."""
    return planned.output / "jobs"


def _job(planned: Sweep, run: SweepRun, devices: str | None = None) -> TrainJob:
    return TrainJob(run.folder, planned.command(run), devices)


def _devices(slot: int, num_ranks: int, parallel: int) -> str:
    """The devices of one of several runs at a time, as CUDA_VISIBLE_DEVICES has them; "" without any.

    Raises: UserError: there are too few for so many runs.
    """
    import torch

    count, needed = torch.cuda.device_count(), parallel * num_ranks
    if count == 0:
        return ""
    if count < needed:
        raise UserError(
            f"--parallel {parallel} runs of --nproc-per-node {num_ranks} need {needed} devices: there are "
            f"{count}: start fewer at a time"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return ",".join(visible.split(",")[slot * num_ranks : (slot + 1) * num_ranks])


def _failure(ended: Started) -> list[str]:
    """Why a run failed, in one line; [] where it did not."""
    if ended.run.is_finished:
        return []
    try:
        failure = ended.job.result()
    except Exception as error:  # whatever ended the job: submitit says which of its logs to read
        failure = f"{ended.run.name}: {str(error).strip().splitlines()[-1]}; see {ended.job.paths.stderr}"
    return [failure or f"{ended.run.name}: its job ended without results.json; see {ended.job.paths.stderr}"]
