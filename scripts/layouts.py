#!/usr/bin/env python
"""Train the same rows under every layout and compare with one rank: per-group losses, gradients, proportions.

    .venv/bin/python scripts/layouts.py                    # all of dense models, some 10 minutes on two cores
    .venv/bin/python scripts/layouts.py --only hsdp pp2    # these, and the single rank they are compared with
    .venv/bin/python scripts/layouts.py --targets          # the same for a run with [mixing.targets]
    .venv/bin/python scripts/layouts.py --model deepseek_v3 debugmodel --tolerance 1e-2 --only fsdp2 fsdp2_ep2

Real ranks on CPU and gloo, an Aioli run of a few steps from the same seed checkpoint, the global batch always
the same. Each row of the table carries the flags that make the layout.
"""

import argparse
import json
import shutil
import sys
import tempfile
from math import inf
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from titan_aioli.hosts.installed import VERSION
from titan_aioli.testing.forked import fork_ranks
from titan_aioli.testing.stores import write_stores
from titan_aioli.testing.torchrun import TINY

P = "--parallelism."
DP_SHARD, DP_REPLICATE = P + "data_parallel_shard_degree", P + "data_parallel_replicate_degree"
TP, PP, CP = P + "tensor_parallel_degree", P + "pipeline_parallel_degree", P + "context_parallel_degree"
EP = P + "expert_parallel_degree"
EXPERTS_TP2 = [P + "expert_tensor_parallel_degree", "2"] if VERSION < (0, 3) else []
SCHEDULE, MICRO_BATCH = P + "pipeline_parallel_schedule", P + "pipeline_parallel_microbatch_size"
PP2 = [PP, "2", MICRO_BATCH, "2", SCHEDULE]
ONE_CHUNK = [] if VERSION < (0, 3) else ["--loss.num_chunks", "1"]
NO_OVERLAP = ["--parallelism.no-pipeline_parallel_expert_parallel_overlap"] if VERSION < (0, 3) else []
"""That of DualPipeV needs a GPU's streams."""
AC = "--activation_checkpoint."
COMMON = ("--mixing.evaluation.freq", "0", "--checkpoint.interval", "1000")

# Name: number of ranks, local batch size, flags. The global batch is 8 rows.
LAYOUTS: dict[str, tuple[int, int, list[str]]] = {
    "accumulation": (1, 2, []),
    "fsdp2": (2, 4, []),
    "fsdp2_accumulation": (2, 2, []),
    "hsdp2x2": (4, 2, [DP_REPLICATE, "2", DP_SHARD, "2"]),
    "tp2": (2, 8, [TP, "2"]),
    "tp2_no_loss_parallel": (2, 8, [TP, "2", P + "disable_loss_parallel"]),
    "fsdp2_tp2": (4, 4, [TP, "2"]),
    "pp2": (2, 8, [*PP2, "1F1B"]),
    "pp2_fsdp2": (4, 4, [*PP2, "1F1B"]),
    "pp2_tp2": (4, 8, [*PP2, "1F1B", TP, "2"]),
    "pp2_interleaved": (2, 8, [*PP2, "Interleaved1F1B"]),
    "pp2_zbv": (2, 8, [*PP2, "ZBVZeroBubble", *ONE_CHUNK]),
    "pp2_dualpipev": (2, 8, [*PP2, "DualPipeV", *ONE_CHUNK, *NO_OVERLAP]),
    "cp2": (2, 8, [CP, "2"]),
    "fsdp2_cp2": (4, 4, [CP, "2"]),
    "fsdp2_ep2": (2, 4, [EP, "2"]),
    "fsdp2_tp2_ep2": (4, 4, [TP, "2", EP, "2", *EXPERTS_TP2]),
    "pp2_fsdp2_ep2": (4, 4, [*PP2, "1F1B", EP, "2"]),
    "fsdp2_ac_selective": (2, 4, [AC + "mode", "selective", AC + "selective_ac_option", "op"]),
    "fsdp2_ac_full": (2, 4, [AC + "mode", "full"]),
    "fsdp2_compile": (2, 4, ["--compile.enable"]),
    "fsdp2_bf16": (2, 4, ["--training.mixed_precision_param", "bfloat16"]),
    "tp2_compile": (2, 8, [TP, "2", "--compile.enable"]),
    "fsdp2_tp2_compile": (4, 4, [TP, "2", "--compile.enable"]),
}
REFUSED = {"tp2_compile", "fsdp2_tp2_compile"} if VERSION < (0, 3) else {"tp2_no_loss_parallel"}
"""Layouts that a run would refuse with the installed torchtitan."""
FOR_EXPERTS = {"fsdp2_ep2", "fsdp2_tp2_ep2", "pp2_fsdp2_ep2"}
"""Layouts of mixtures of experts: with a model that is one, and if named."""
TOLERANCES = {
    "fsdp2_bf16": 2e-2,
    **dict.fromkeys(("fsdp2_compile", "tp2_compile", "fsdp2_tp2_compile"), 1e-5),
}
DEFAULT_TOLERANCE, TOLERANCE_OF_LONG_ROWS = 1e-6, 3e-6
"""For rows of 16 tokens, and for longer ones: FSDP2 with rows of 256 is 1.1e-6 away with torchtitan 0.2.2 and
1.2e-6 with 0.3."""
SEQ_LEN = 16 if VERSION < (0, 3) else 256
"""torchtitan 0.3 cuts attention masks for context parallelism in blocks of 128 tokens."""


TARGETS = "\n[mixing.targets.b]\nweight = 2.0\n[mixing.targets.d]\n"
"""Targets of the run with --targets: a group, and a held-out set that is none."""


class RunFailed(Exception):
    """Ranks ended with an error."""


def config_text(model: str, flavor: str, seq_len: int) -> str:
    """The tiny run's config for another model and other rows."""
    text = TINY.read_text().replace("seq_len = 16", f"seq_len = {seq_len}")
    return text.replace('"llama3"', f'"{model}"').replace('"mixing_debug"', f'"{flavor}"')


def run(name: str, layout: tuple[int, int, list[str]], work: Path, steps: int) -> Path:
    """Train one layout from the seed checkpoint; the folder with what every rank saw."""
    num_ranks, local_batch_size, flags = layout
    folder = work / name
    shutil.copytree(work / "seed" / "checkpoint", folder / "checkpoint")
    flags = ["--training.local_batch_size", str(local_batch_size), *flags]
    train(folder, work / "stores", num_ranks, *flags, "--training.steps", str(steps))
    return folder


def train(folder: Path, stores: Path, num_ranks: int, *flags: str) -> None:
    """Train a tiny model from the config beside its stores.

    Raises: RunFailed: with the end of what the ranks printed.
    """
    where = ("--mixing.stores", stores, "--job.dump_folder", folder)
    config = stores.with_name("config.toml")
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    words = (*where, *COMMON, *flags)
    done = fork_ranks(num_ranks, *words, module="support.layout_train", config=config, timeout=inf, **cache)
    printed = done.stdout + done.stderr
    (folder / "log.txt").write_text(printed)
    if done.returncode:
        raise RunFailed(f"{folder.name} failed:\n{printed[-3000:]}")


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-group sums [steps, 2, G], gradient norms [steps], proportions [phases, G]; ranks must agree."""
    ranks = []
    for path in sorted(folder.glob("rank*.jsonl")):
        ranks.append([json.loads(line) for line in path.read_text().splitlines()])
    sums = [[record["sums"] for record in records] for records in ranks]
    assert all(other == sums[0] for other in sums), f"{folder.name}: ranks hold different sums"
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    norms = np.array([record["grad_norm"] for record in ranks[0]])
    return np.array(sums[0]), norms, np.array([record["proportions"] for record in ledger])


def compare(folder: Path, reference: Path) -> dict[str, float]:
    """Largest relative difference of the loss sums and gradient norms, largest of the proportions."""
    sums, norms, shares = read(folder)
    expected_sums, expected_norms, expected_shares = read(reference)
    assert (sums[:, 1] == expected_sums[:, 1]).all(), f"{folder.name}: other tokens than on one rank"
    return {
        "group_losses": float(np.abs(sums[:, 0] / expected_sums[:, 0] - 1).max()),
        "grad_norm": float(np.abs(norms / expected_norms - 1).max()),
        "proportions": float(np.abs(shares - expected_shares).max()),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = [name for name in LAYOUTS if name not in REFUSED]
    usual = [name for name in there if name not in FOR_EXPERTS]
    parser.add_argument("--only", nargs="+", choices=there, default=usual, help="layouts to run")
    parser.add_argument(
        "--steps", type=int, default=8, help="optimizer steps (default 8: LearnParams and on)"
    )
    parser.add_argument(
        "--model",
        nargs=2,
        default=["llama3", "mixing_debug_deep"],
        metavar=("NAME", "FLAVOR"),
        help="of the installed torchtitan (default llama3 mixing_debug_deep)",
    )
    parser.add_argument(
        "--tolerance", type=float, help="largest relative difference of group losses, for every layout"
    )
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN, help=f"tokens of a row (default {SEQ_LEN})")
    parser.add_argument("--targets", action="store_true", help="mix for targets that are not the groups")
    parser.add_argument("--json", type=Path, help="write the differences there")
    parser.add_argument("--keep", action="store_true", help="keep the runs and print where they are")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    work = Path(tempfile.mkdtemp(prefix="layouts-"))
    write_stores(work / "stores")
    (work / "config.toml").write_text(config_text(*args.model, args.seq_len) + TARGETS * args.targets)
    train(work / "seed", work / "stores", 1, "--checkpoint.create_seed_checkpoint")
    reference = run("one_rank", (1, 8, []), work, args.steps)
    found, failed = {}, []
    for name in tqdm(args.only, unit="layout"):
        try:
            found[name] = compare(run(name, LAYOUTS[name], work, args.steps), reference)
        except RunFailed as error:
            failed.append(name)
            print(error, file=sys.stderr)
    show(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(work) if not args.keep else print(work)
    default = DEFAULT_TOLERANCE if args.seq_len <= 16 else TOLERANCE_OF_LONG_ROWS
    tolerances = {name: args.tolerance or TOLERANCES.get(name, default) for name in found}
    wrong = [name for name, difference in found.items() if difference["group_losses"] > tolerances[name]]
    if failed or wrong:
        raise SystemExit(
            f"failed: {', '.join(failed) or '-'}; too far from one rank: {', '.join(wrong) or '-'}"
        )


def show(found: dict[str, dict[str, float]]) -> None:
    table = Table(title="largest difference to one rank (relative; proportions: absolute)")
    for column in ("layout", "ranks", "group losses", "grad norm", "proportions", "flags"):
        table.add_column(column, overflow="fold")
    for name, difference in found.items():
        num_ranks, local_batch_size, flags = LAYOUTS[name]
        cells = [f"{value:.1e}" for value in difference.values()]
        shown = " ".join(flags).replace(P, "").replace("--", "")
        table.add_row(name, str(num_ranks), *cells, f"local_batch_size {local_batch_size} {shown}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
