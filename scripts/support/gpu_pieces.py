"""The pieces of scripts/gpu.sh that are no script of their own; each writes one JSON file."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from titan_aioli.testing.stores import write_stores
from titan_aioli.testing.torchrun import TINY, rank_environment

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


def arguments(folder: Path, tiny: bool, *flags: str) -> list[str]:
    """Of a training run of three toy groups; the model is Llama 3 160M, or with `tiny` the debug model."""
    words = ["--job.config_file", str(TINY), "--mixing.stores", str(write_stores(folder / "stores"))]
    words += [
        "--job.dump_folder",
        str(folder / "run"),
        "--checkpoint.no-enable",
        "--mixing.evaluation.freq",
        "0",
    ]
    if not tiny:
        words += ["--model.flavor", "160M", "--training.mixed_precision_param", "bfloat16"]
        words += ["--training.seq_len", "256", "--training.global_batch_size", "4", "--compile.enable"]
    return [*words, "--metrics.log_freq", "1000", *flags]


def build(kind: str, words: list[str]) -> tuple[Any, Any]:
    """A trainer of this process, `plain` torchtitan's or ours, and its batches."""
    from scripts.support.plain_torchtitan import PlainTrainer, plain_config
    from titan_aioli.hosts.installed import MixingTrainer, load_config

    os.environ.update(rank_environment())
    trainer = PlainTrainer(plain_config(words)) if kind == "plain" else MixingTrainer(load_config(words))
    return trainer, trainer.batch_generator(trainer.dataloader)


def step(trainer: Any, batches: Any, count: int) -> None:
    for _ in range(count):
        trainer.step += 1
        trainer.train_step(batches)


def in_process(tiny: bool, *words: str) -> Any:
    """What another process of this module prints last: trainers of one process would share its memory."""
    command = [sys.executable, "-m", "scripts.support.gpu_pieces", *words, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(tiny: bool) -> dict[str, Any]:
    """Peak bytes of a process that trains: plain torchtitan, ours, and ours without losses by group."""
    found = {kind: in_process(tiny, "peak", kind) for kind in ("plain", "ours")}
    found["ours, no group losses"] = in_process(tiny, "peak", "ours", "--mixing.no-train_losses")
    found["ratio"] = found["ours"] / found["plain"] if found["plain"] else None
    return found


def peak(kind: str, flags: list[str], tiny: bool) -> int:
    """The most bytes that were in use in a few steps; 0 on CPU."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(kind, arguments(Path(folder), tiny, *flags, "--mixing.method", "stratified"))
        step(trainer, batches, STEPS)
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def profile(tiny: bool) -> dict[str, Any]:
    """How often a step waits for the device, by the name of the call; plain torchtitan's and ours."""
    return {kind: in_process(tiny, "waits", kind) for kind in ("plain", "ours")}


def waits(kind: str, tiny: bool) -> dict[str, float]:
    """Calls per step in which the host waits for the device, or copies from it."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(kind, arguments(Path(folder), tiny, "--mixing.method", "stratified"))
        step(trainer, batches, 3)
        with torch.profiler.profile(activities=kinds) as seen:
            step(trainer, batches, STEPS)
    names = ("Synchronize", "_local_scalar_dense", "DtoH")
    events = [event for event in seen.key_averages() if any(name in event.key for name in names)]
    return {event.key: event.count / STEPS for event in events}


def losses(tiny: bool) -> dict[str, Any]:
    """Held-out losses of one short Aioli run on the CPU and on the GPU, where there is one."""
    found: dict[str, Any] = {}
    for name, visible in (("cpu", ""), ("gpu", None)):
        if name == "gpu" and not torch.cuda.is_available():
            continue
        with tempfile.TemporaryDirectory() as folder:
            words = arguments(Path(folder), True, "--mixing.method", "aioli")
            environment = {**os.environ, **rank_environment()}
            environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
            subprocess.run(
                [sys.executable, "-m", "titan_aioli.train", *words], env=environment, cwd=ROOT, check=True
            )
            lines = (Path(folder) / "run" / "ledger.jsonl").read_text().splitlines()
        found[name] = [json.loads(line).get("observation") for line in lines]
    if len(found) == 2:
        pairs = [(a, b) for a, b in zip(found["cpu"], found["gpu"], strict=True) if a is not None]
        found["largest_difference"] = max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)
    return found


def nccl() -> dict[str, Any]:
    """Seconds of the all-reduce that an update makes, on the ranks of one torchrun."""
    from titan_aioli.measure.losses import GroupStats

    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    seconds = []
    stats = GroupStats(38, device, is_reporter=True)
    for _ in range(100):
        start = time.perf_counter()
        stats.means()
        seconds.append(time.perf_counter() - start)
    dist.destroy_process_group()
    return {"ranks": int(os.environ["WORLD_SIZE"]), "median_seconds": float(np.median(seconds[10:]))}


def merge(out: Path, name: str, piece: Path) -> None:
    """Put a piece into the JSON file, with what it was measured on."""
    found = json.loads(out.read_text()) if out.exists() else {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}"
    found[name] = {"device": device, "torch": torch.__version__, "found": json.loads(piece.read_text())}
    out.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("piece")
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--tiny", action="store_true")
    args, flags = parser.parse_known_args()
    if args.piece == "merge":
        merge(Path(args.rest[0]), args.rest[1], Path(args.rest[2]))
    elif args.piece == "peak":
        print(json.dumps(peak(args.rest[0], flags, args.tiny)))
    elif args.piece == "waits":
        print(json.dumps(waits(args.rest[0], args.tiny)))
    elif args.piece == "nccl":
        found = nccl()
        if os.environ["RANK"] == "0":
            Path(args.rest[0]).write_text(json.dumps(found))
    else:
        pieces = {"memory": memory, "profile": profile, "losses": losses}
        Path(args.rest[0]).write_text(json.dumps(pieces[args.piece](args.tiny)))


if __name__ == "__main__":
    main()
