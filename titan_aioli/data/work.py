"""The work folder of a run of `titan-aioli tokenize`: what makes it safe to kill and to run again.

OUTPUT/NAME.partial holds the plan (settings and identity of the inputs), the finished shards, and at the
end the merged stores, whose folders are then renamed to OUTPUT/GROUP. OUTPUT/NAME.done.json says that all
of it is finished, and from what. Each step leaves something whole or nothing at all, so a run that finds
a work folder with its own plan goes on behind the last step that was finished.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titan_aioli.data.files import replacing
from titan_aioli.data.megatron import MegatronWriter
from titan_aioli.data.splits import SPLITS

LOCK = "lock"
GROUPS_AT_ONCE = 100
"""Groups merged in one pass over the shards: three open files each."""


class StoreCounts(NamedTuple):
    """One line of the summary."""

    group: str
    split: str
    documents: int
    tokens: int
    text_bytes: int


class WorkFolder:
    """The state on disk of one run, known by the run's name: its group, or the field it groups by."""

    def __init__(self, output: Path, name: str, plan: dict[str, Any]):
        """
        Args:
            output: folder of the stores.
            name: what tells the runs into one output folder apart.
            plan: settings and inputs, JSON values. A run goes on only under the plan it was begun with.
        """
        self.output, self.plan = output, plan
        self.partial = output / f"{name}.partial"
        self.merged = self.partial / "merged.json"
        self.record = output / f"{name}.done.json"

    def begin(self, restart: bool) -> list[StoreCounts] | None:
        """Find or make the work folder; the counts if there is nothing left to do.

        Raises: ValueError: the folder holds the work of other settings or inputs, and not `restart`.
        """
        if restart or not any(self.partial.glob("shard-*")):
            self._clear()
        if restart:
            self._remove_stores()
        for place in self.record, self.partial / "plan.json":
            if place.is_file():
                self._refuse_other_plan(place)
        if self.record.is_file():
            counts = [StoreCounts(*row) for row in _read(self.record)["stores"]]
            stores = [self.output / row.group / f"{row.split}.idx" for row in counts]
            if all(store.is_file() for store in stores):
                self._clear()  # a run killed after its last step leaves its shards
                return counts
            self._remove_stores()
        _write(self.partial / "plan.json", {"plan": self.plan})
        return None

    def _refuse_other_plan(self, place: Path) -> None:
        there = _read(place)["plan"]
        changed = [key for key in self.plan if there.get(key) != self.plan[key]]
        if changed:
            key = changed[0]
            shown = "" if key == "inputs" else f" ({there.get(key)} there, {self.plan[key]} now)"
            raise ValueError(
                f"{place}: begun with other {key.replace('_', ' ')}{shown}: run with the same settings and "
                "inputs to go on, choose another --output, or start over with --restart"
            )

    def _clear(self) -> None:
        for path in self.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def _remove_stores(self) -> None:
        """Every store that an earlier run of this name made, and nothing else."""
        if self.record.is_file():
            for row in (StoreCounts(*row) for row in _read(self.record)["stores"]):
                folder = self.output / row.group
                for suffix in ("idx", "bin", "json"):
                    (folder / f"{row.split}.{suffix}").unlink(missing_ok=True)
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            self.record.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the work folder and keep a second run out of it; the lock ends with the process.

        Raises: ValueError: another run is at work.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        with open(self.partial / LOCK, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{self.partial}: another run is at work in it: wait for it, or end it"
                ) from None
            except OSError:
                pass  # a file system without locks
            yield
            if all(path.name == LOCK for path in self.partial.iterdir()):
                shutil.rmtree(self.partial)

    def shard(self, source: int, number: int) -> Path:
        """Path of the number-th shard (from 1) of a source."""
        return self.partial / f"shard-{source:05d}-{number:07d}.npz"

    def num_shards(self, source: int) -> int | None:
        """Shards of a source that was read to its end; None if it was not."""
        path = self.partial / f"source-{source:05d}.json"
        return _read(path) if path.is_file() else None

    def end_source(self, source: int, num_shards: int) -> None:
        _write(self.partial / f"source-{source:05d}.json", num_shards)

    def is_encoded(self, source: int) -> bool:
        """Whether every shard of a source is there."""
        count = self.num_shards(source)
        return count is not None and all(self.shard(source, at).is_file() for at in range(1, count + 1))

    def shards(self, num_sources: int) -> list[Path]:
        """All shards in the order of the documents."""
        counts = [self.num_shards(source) or 0 for source in range(num_sources)]
        return [
            self.shard(source, at) for source in range(num_sources) for at in range(1, counts[source] + 1)
        ]

    def publish(self, counts: list[StoreCounts]) -> None:
        """Move the merged stores to their places and declare the run done.

        Raises: ValueError: there is something of another's in one of the places.
        """
        for group in dict.fromkeys(row.group for row in counts):
            merged = self.partial / "stores" / group
            if merged.is_dir():  # otherwise an earlier run has moved it
                self.refuse_taken(group)
                os.rename(merged, self.output / group)
        _write(self.record, {"plan": self.plan, "stores": counts})
        self._clear()

    def refuse_taken(self, group: str) -> None:
        """Raises: ValueError: OUTPUT/GROUP holds files that this run did not make."""
        if self.merged.is_file() and not (self.partial / "stores" / group).is_dir():
            return  # a run killed while it published has moved it there
        folder = self.output / group
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ValueError(
                f"{folder} holds files of another origin: move them away or choose another --output"
            )


def merge(
    work: WorkFolder,
    shards: list[Path],
    dtype: np.dtype,
    metadata: Callable[[str, str], dict[str, Any]],
) -> list[StoreCounts]:
    """Join the shards into stores, WORK/stores/GROUP/SPLIT, unless an earlier run has done so.

    Args:
        metadata: (group, split) -> what PREFIX.json says of the store beside its counts.
    """
    if work.merged.is_file():
        return [StoreCounts(*row) for row in _read(work.merged)]
    shutil.rmtree(work.partial / "stores", ignore_errors=True)
    groups = sorted({name.split("/")[0] for shard in shards for name in _names(shard)})
    counts = []
    for first in range(0, len(groups), GROUPS_AT_ONCE):
        counts += _merge_groups(work, shards, groups[first : first + GROUPS_AT_ONCE], dtype, metadata)
    _write(work.merged, counts)
    return counts


def _merge_groups(
    work: WorkFolder, shards: list[Path], groups: list[str], dtype, metadata
) -> list[StoreCounts]:
    writers: dict[str, MegatronWriter] = {}
    totals: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        for shard in shards:
            with np.load(shard) as arrays:
                for key in sorted({name.rpartition("/")[0] for name in arrays.files}):
                    group, split = key.split("/")
                    if group not in groups:
                        continue
                    if key not in writers:
                        writers[key] = stack.enter_context(
                            MegatronWriter(work.partial / "stores" / key, dtype)
                        )
                        writers[key].metadata = metadata(group, split)
                        totals[key] = np.zeros(3, dtype=np.int64)
                    tokens, sizes = arrays[f"{key}/tokens"], arrays[f"{key}/sizes"]
                    writers[key].add_many(tokens, sizes)
                    totals[key] += sizes.size, tokens.size, int(arrays[f"{key}/bytes"])
                    writers[key].metadata["text_bytes"] = int(totals[key][2])
    order = sorted(totals, key=lambda key: (key.split("/")[0], SPLITS.index(key.split("/")[1])))
    return [StoreCounts(*key.split("/"), *map(int, totals[key])) for key in order]  # type: ignore[misc]


def _names(shard: Path) -> list[str]:
    with np.load(shard) as arrays:
        return list(arrays.files)


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _write(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")
