"""The work folder of a run of `titan-aioli tokenize`: what makes it safe to kill and to run again.

OUTPUT/NAME.partial holds the plan (settings and identity of the inputs), the finished shards, and at the
end the merged stores, whose folders are then renamed to OUTPUT/GROUP. OUTPUT/NAME.done.json records that the
run is finished, and its plan. Each step leaves a complete result or none, so a run that finds a work folder
with its own plan continues after the last finished step.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from typeguard import check_type

from titan_aioli.errors import UserError
from titan_aioli.files import write_json
from titan_aioli.stores.tokenize.contamination import Contamination, contamination_of
from titan_aioli.stores.tokenize.copies import Index
from titan_aioli.stores.tokenize.kept import reading
from titan_aioli.stores.tokenize.merge import Describe, StoreCounts, merge_shards
from titan_aioli.stores.tokenize.splits import SPLITS

LOCK = "lock"
DEFAULTS = {"on_bad_line": "refuse", "role": "group"}
"""Settings that a plan names only where they differ from these."""
OF_THE_MERGE = ("on_contamination",)
"""Settings that do not change the shards: another run may continue with others, until they are merged."""
LONG = ("inputs", "held_out")
"""Settings whose values are too long to show."""


class WorkFolder:
    """The state on disk of one run, known by the run's name: its group, or the field it groups by."""

    def __init__(self, output: Path, name: str, plan: dict[str, Any]):
        """
        Args:
            output: folder of the stores.
            name: name of the run, different for each run into one output folder.
            plan: settings and inputs, JSON values. A run continues only with the plan that it started with.
        """
        self.output, self.plan = output, plan
        self.partial = output / f"{name}.partial"
        self.planned = self.partial / "plan.json"
        self.merged = self.partial / "merged.json"
        self.stores = self.partial / "stores"
        self.held_out = self.partial / "held-out.npz"
        """The index of the documents that are looked for, if any are."""
        self.record = output / f"{name}.done.json"

    def begin(self, restart: bool) -> list[StoreCounts] | None:
        """Check or write the plan.

        Returns: the counts of the stores if the run is finished already, else None.
        Raises: ValueError: the folder holds the work of other settings or inputs, and `restart` is off.
        """
        if restart:
            self._remove_stores()
        if restart or not self._has_shards() or not self.planned.is_file():
            self._clear()
        for place in self.record, self.planned:
            if place.is_file():
                self._refuse_other_plan(place)
        if self.record.is_file():
            counts = _counts(self.record)
            if all(file.is_file() for row in counts for file in self._files(row, "idx", "bin")):
                self._clear()  # a run that was killed after its last step has left its shards
                return counts
            self._remove_stores()
            self._clear()
        write_json(self.planned, {"plan": self.plan}, sort_keys=True)
        return None

    def _refuse_other_plan(self, place: Path) -> None:
        with reading(place):
            there = check_type(json.loads(place.read_bytes())["plan"], dict[str, Any])
        changed = [key for key in {**self.plan, **there} if there.get(key) != self.plan.get(key)]
        if place == self.planned and not self.merged.is_file():
            changed = [key for key in changed if key not in OF_THE_MERGE]
        if changed:
            key = changed[0]
            named = key if key in ("inputs", "version") else f"--{key.replace('_', '-')}"
            was, now = (_option(key, plan) for plan in (there, self.plan))
            shown = "" if key in LONG else f" ({was} there, {now} now)"
            raise ValueError(
                f"{place}: made with other {named}{shown}: run with the same settings and "
                "inputs to continue, choose another --output, or start over with --restart"
            )

    def _has_shards(self) -> bool:
        return any(self.partial.glob("shard-*.npz"))

    def discard(self) -> None:
        """Remove the unfinished work, so that a run with other settings may follow."""
        self._clear()

    def _clear(self) -> None:
        """Empty the work folder, in an order that leaves it valid if this is killed: the plan goes last."""
        order = [
            self.merged.name,
            "stores",
            *(path.name for path in self.partial.glob("s*-*")),
            self.held_out.name,
            self.planned.name,
        ]
        for path in (self.partial / name for name in order):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def _remove_stores(self) -> None:
        """Remove every store that an earlier run of this name published, and nothing else."""
        for row in self._made():
            if (self.stores / row.group).is_dir():
                continue  # not published
            for file in self._files(row, "idx", "bin", "json", "prompts.npy"):
                file.unlink(missing_ok=True)
            folder = self.output / row.group
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self.record.unlink(missing_ok=True)

    def _made(self) -> list[StoreCounts]:
        """The stores that an earlier run of this name merged; those of its group where its record is damaged.

        Raises: UserError: the record is damaged, and the run is of many groups.
        """
        place = self.record if self.record.is_file() else self.merged
        try:
            return _counts(place) if place.is_file() else []
        except UserError:
            if (group := self.plan.get("group")) is None:
                raise
            return [StoreCounts(group, split, 0, 0, 0) for split in SPLITS]

    def _files(self, row: StoreCounts, *suffixes: str) -> list[Path]:
        """The files of a published store."""
        return [self.output / row.group / f"{row.split}.{suffix}" for suffix in suffixes]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the work folder and lock it against a second run; the lock ends with the process.

        Raises: ValueError: another run holds the lock, or the folder cannot be made.
        """
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            file = open(self.partial / LOCK, "w")  # noqa: SIM115, closed below
        except OSError as error:
            raise ValueError(f"--output {self.output} cannot be written: {error}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{self.partial}: another run is at work in it: let it finish, or end it"
                ) from None
            except OSError:
                pass  # a file system without locks
            try:
                yield
            finally:
                if not self._has_shards():
                    _empty(self.partial)
                    file.close()  # NFS and FUSE keep what is open in the folder under another name
                    with suppress(OSError):  # another run has begun in it
                        self.partial.rmdir()

    def shard(self, source: int, number: int) -> Path:
        """Path of the number-th shard (from 1) of a source."""
        return self.partial / f"shard-{source:05d}-{number:07d}.npz"

    def num_shards(self, source: int) -> int | None:
        """Number of shards of a source that was read to its end; None if it was not."""
        path = self._source(source)
        return _ended(path)["shards"] if path.is_file() else None

    def left_out(self, source: int) -> dict[str, Any]:
        """What was left out of a source that was read to its end, as `LeftOut.counts` says it."""
        return _ended(self._source(source))["left_out"]

    def spellings(self, source: int) -> dict[str, tuple[str, str]]:
        """How groups of numbers were written, up to the end of a source."""
        return _ended(self._source(source))["spellings"]

    def end_source(
        self,
        source: int,
        num_shards: int,
        left_out: dict[str, Any],
        spellings: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        """Record that a source was read to its end, and what the next ones must know of it."""
        ended: dict[str, Any] = {"shards": num_shards, "left_out": left_out}
        ended |= {"spellings": spellings} if spellings else {}
        write_json(self._source(source), ended, sort_keys=True)

    def _source(self, source: int) -> Path:
        return self.partial / f"source-{source:05d}.json"

    def is_encoded(self, source: int) -> bool:
        """Whether every shard of a source is written."""
        count = self.num_shards(source)
        return count is not None and all(self.shard(source, at).is_file() for at in range(1, count + 1))

    def shards(self, num_sources: int) -> list[Path]:
        """All shards in the order of the documents."""
        counts = [self.num_shards(source) or 0 for source in range(num_sources)]
        return [
            self.shard(source, at) for source in range(num_sources) for at in range(1, counts[source] + 1)
        ]

    def contamination(self, num_sources: int) -> list[Contamination]:
        """Documents in the shards that are held-out ones; none where these are not looked for."""
        if not self.held_out.is_file():
            return []
        return contamination_of(self.shards(num_sources), Index.load(self.held_out))

    def merge(
        self, num_sources: int, dtype: np.dtype, describe: Describe, leave_out: bool
    ) -> list[StoreCounts]:
        """Merge the shards into stores inside the work folder, unless an earlier run has done so."""
        if self.merged.is_file():
            return _counts(self.merged)
        shutil.rmtree(self.stores, ignore_errors=True)
        counts = merge_shards(self.shards(num_sources), self.stores, dtype, describe, leave_out)
        write_json(self.merged, counts, sort_keys=True)
        return counts

    def publish(
        self, counts: list[StoreCounts], left_out: dict[str, Any], contamination: list[Contamination]
    ) -> None:
        """Move the merged stores to OUTPUT/GROUP and record that the run is finished, with what was found.

        Raises: ValueError: one of these folders holds files of another origin.
        """
        for group in dict.fromkeys(row.group for row in counts):
            merged = self.stores / group
            if merged.is_dir():  # otherwise an earlier run has moved it
                self.refuse_taken(group)
                os.rename(merged, self.output / group)
        record = {"plan": self.plan, "stores": counts} | ({"left_out": left_out} if left_out else {})
        record |= {"contamination": [found._asdict() for found in contamination]} if contamination else {}
        write_json(self.partial / "record.json", record, sort_keys=True)
        os.replace(self.partial / "record.json", self.record)
        self._clear()

    def refuse_taken(self, group: str) -> None:
        """Raises: ValueError: OUTPUT/GROUP is a link or holds files that this run did not make."""
        if self.merged.is_file() and not (self.stores / group).is_dir():
            return  # an earlier run moved it there and was killed before it had published all groups
        folder = self.output / group
        if folder.is_symlink() or folder.is_mount():
            what = "a link" if folder.is_symlink() else "a mount point"
            raise ValueError(
                f"{folder} is {what}: a store is moved there as a whole when it is finished, so nothing may "
                f"be there yet: remove it, or let --output {self.output} itself be {what}"
            )
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ValueError(
                f"{folder} holds files of another origin: move them away or choose another --output"
            )


def _empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in list(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _option(key: str, plan: dict[str, Any]) -> str:
    """A setting as the command line has it; a plan leaves out what is as usual."""
    value = plan.get(key, DEFAULTS.get(key))
    if isinstance(value, dict):
        return " ".join(f"{found}={name}" for found, name in value.items())
    return "not given" if value is None else str(value)


def _ended(path: Path) -> dict[str, Any]:
    """What `end_source` wrote; older versions wrote the number of shards alone."""
    with reading(path):
        found = json.loads(path.read_bytes())
        found = found if isinstance(found, dict) else {"shards": found, "left_out": {}}
        spellings = {name: (written, where) for name, (written, where) in found.get("spellings", {}).items()}
        return {
            "shards": check_type(found["shards"], int),
            "left_out": check_type(found["left_out"], dict[str, int | list[str]]),
            "spellings": check_type(spellings, dict[str, tuple[str, str]]),
        }


def _counts(path: Path) -> list[StoreCounts]:
    """The stores that the record of a finished run names, or those that were merged."""
    with reading(path):
        found = json.loads(path.read_bytes())
        rows = found["stores"] if isinstance(found, dict) else found
        return [check_type(StoreCounts(*row), StoreCounts) for row in rows]
