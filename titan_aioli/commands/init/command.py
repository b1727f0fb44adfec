"""`titan-aioli init`: a training config for the token stores that are there.

What it writes is read back as a run would read it before it gets its name, so `titan-aioli check` accepts it.
"""

import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro

from titan_aioli.commands.init.config_text import Plan, config_text
from titan_aioli.commands.init.found import find_groups, fitting_flavors, longest_sequence
from titan_aioli.commands.init.settings import aioli_round, evaluation_budget, size_of
from titan_aioli.files import replacing
from titan_aioli.methods import METHODS

MODEL = "llama3"
NEED_A_RUN = ("doremi", "replay")
"""Methods that are told of an earlier run: DoReMi's reference model, a recorded ledger."""
BATCHES = 8
"""Number of micro-batches in one optimizer step, on all ranks together."""
MIN_HELD_OUT = 8
"""Number of sequences that the smallest store should hold."""


def init(
    stores: Annotated[Path, tyro.conf.Positional],
    *,
    output: Path,
    method: str = "aioli",
    steps: int | None = None,
    seq_len: int | None = None,
    local_batch_size: int | None = None,
    force: bool = False,
) -> None:
    """Write a training config for the token stores that are there.

    A complete TOML with comments, to be edited: the groups of the folder, the smallest model whose vocabulary
    holds theirs, checkpoints that a run resumes from, and rounds of Aioli that fit the run:
      titan-aioli tokenize law.jsonl.zst --group law --tokenizer tokenizer --output stores
      titan-aioli init stores --output my_run.toml
      titan-aioli check my_run.toml

    Args:
        stores: folder with GROUP/train, GROUP/validation and perhaps GROUP/test, as `titan-aioli tokenize`
            makes it.
        output: the TOML file to write.
        method: the mixing method: aioli, aioli_gradients, aioli_bayes, stratified, static, skill_it, doge,
            odm, ado or target_excess; doremi and replay need an earlier run.
        steps: optimizer steps of the run. Default: 1000, 5000 or 10000 by the size of the model.
        seq_len: tokens of a sequence. Default: 256, 2048 or 4096 by the size of the model, less where a store
            is small.
        local_batch_size: sequences that a rank trains on at a time. Default: 2, 8 or 1 by the model's size.
        force: replace a file that is there.
    """
    _check(output, method, force, {"steps": steps, "seq-len": seq_len, "local-batch-size": local_batch_size})
    found = find_groups(stores)
    for line in found.left_out:
        print(line)

    from titan_aioli.hosts.installed import flavors  # torch

    fitting = fitting_flavors(flavors(), found.vocab_size)
    size = size_of(fitting[0].num_parameters)
    num_steps = steps or size.steps
    rows = local_batch_size or size.local_batch_size
    is_aioli = method == "aioli"
    rounds = aioli_round(len(found.groups), num_steps) if is_aioli else None
    plan = Plan(
        output=output,
        stores=stores,
        found=found,
        flavors=fitting,
        size=size,
        method=method,
        steps=num_steps,
        seq_len=seq_len or longest_sequence(size.seq_len, found.fewest_tokens, MIN_HELD_OUT),
        local_batch_size=rows,
        global_batch_size=BATCHES * rows,
        rounds=rounds,
        budget=evaluation_budget(rounds, len(found.groups), BATCHES * rows) if rounds else None,
    )
    write(config_text(plan), output)
    show(plan)


def write(text: str, output: Path) -> None:
    """Write the config, unless a run would refuse it.

    Raises: UserError: what it would refuse. ValueError: the file cannot be written.
    """
    from titan_aioli.hosts.installed import check_config  # torch

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as file:
            file.write(text.encode())
            file.flush()
            check_config(["--job.config_file", file.name])
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error}") from None


def show(plan: Plan) -> None:
    """Print what was found and the next two commands."""
    config, flavor = shlex.quote(str(plan.output)), plan.flavors[0]
    print(
        f"{plan.output}: {plan.method} on {len(plan.found.groups)} groups, {plan.steps:,} steps of {MODEL} "
        f"{flavor.name}. Edit it; then"
    )
    print(f"  titan-aioli check {config}")
    print(f"  torchrun --nproc_per_node={num_ranks()} -m titan_aioli.train --job.config_file {config}")


def num_ranks() -> int:
    """Ranks of one machine that divide a step's micro-batches: one per GPU, or two on CPU."""
    import torch

    there: Any = torch.cuda.device_count() or 2
    return max(ranks for ranks in (1, 2, 4, 8) if ranks <= there)


def _check(output: Path, method: str, force: bool, numbers: dict[str, int | None]) -> None:
    """Raises: ValueError: an option is not possible."""
    if output.exists() and not force:
        raise ValueError(f"{output} is there: choose another --output, or replace it with --force")
    if method not in METHODS:
        names = [name for name in METHODS if name not in NEED_A_RUN]
        raise ValueError(f"--method is {method!r}: choose one of {', '.join(names)}")
    if method in NEED_A_RUN:
        raise ValueError(
            f"--method {method} needs the result of an earlier run: write the file with --method stratified, "
            f'train it, then set mixing.method = "{method}" and [mixing.{method}] in it (docs/methods.md)'
        )
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}: it must be at least 1")
