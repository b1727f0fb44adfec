"""The TOML that `titan-aioli init` writes: every setting with the reason for its value."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from titan_aioli.commands.init.found import Flavor, Found, names, short
from titan_aioli.commands.init.settings import SEQUENCES, Round, Size


class Plan(NamedTuple):
    """All that the text is made of."""

    output: Path
    stores: Path
    found: Found
    flavors: list[Flavor]
    """Those that hold the vocabulary; the first is used."""
    size: Size
    method: str
    steps: int
    seq_len: int
    local_batch_size: int
    global_batch_size: int
    rounds: Round | None
    """With method aioli."""
    budget: float | None
    """With method aioli: percent of the training compute."""


def config_text(plan: Plan) -> str:
    """The config, a section after the other."""
    sections = [_head(plan), _model(plan), _training(plan), _keeping(plan), _mixing(plan)]
    if plan.rounds is not None:
        sections.append(_aioli(plan.rounds, plan.steps, len(plan.found.groups)))
    return "\n".join([*sections, _evaluation(plan)])


def quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def table_key(name: str) -> str:
    """A name as a part of a table's header."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def _comment(text: str) -> str:
    """A text without the characters that a TOML comment may not hold."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def _head(plan: Plan) -> str:
    return f"""\
# Written by `titan-aioli init` for the stores in {_comment(str(plan.stores))}. Train with
#   torchrun --nproc_per_node=N -m titan_aioli.train --job.config_file {_comment(str(plan.output))}
# Every key of [mixing]: docs/config.md. Those of the other sections are torchtitan's own.
# Each can be given as a flag too: --training.steps 2000

[job]
dump_folder = {quoted(f"outputs/{plan.output.stem}")}  # checkpoints, ledger.jsonl, losses.jsonl, results.json

[metrics]
log_freq = 10
enable_tensorboard = true
"""


def _model(plan: Plan) -> str:
    flavor, others = plan.flavors[0], plan.flavors[1:]
    vocabulary = plan.found.vocab_size
    unused = flavor.vocab_size - vocabulary
    larger = f"\n# Larger ones that hold it: {names(others)}." if others else ""
    return f"""\
[model]
name = "llama3"
# The smallest flavor that holds the stores' vocabulary of {vocabulary:,}:
# {short(flavor.num_parameters)} parameters, {flavor.vocab_size:,} entries ({unused:,} unused).{larger}
flavor = {quoted(flavor.name)}
# hf_assets_path = "tokenizer"  # folder of tokenizer.json; only attention masks by document need it

[optimizer]
name = "AdamW"
lr = {plan.size.learning_rate}

[lr_scheduler]
warmup_steps = {max(1, plan.steps // 10)}
decay_type = "cosine"
min_lr_factor = 0.1
"""


def _training(plan: Plan) -> str:
    tokens = plan.steps * plan.global_batch_size * plan.seq_len
    precision = (
        'mixed_precision_param = "float32"  # a model of this size trains on CPU too\n'
        if plan.size.most_parameters < 1e8
        else ""
    )
    return f"""\
[training]
local_batch_size = {plan.local_batch_size}  # sequences that a rank trains on at a time: fewer, less memory
global_batch_size = {plan.global_batch_size}  # a multiple of local_batch_size x data-parallel ranks
seq_len = {plan.seq_len}
steps = {plan.steps}  # x global_batch_size x seq_len = {tokens / 1e6:,.3g} million tokens
{precision}
[parallelism]
data_parallel_shard_degree = -1  # FSDP over all ranks

[activation_checkpoint]
mode = "none"  # or "selective", "full": less memory, more time

[debug]
seed = 0
"""


def _keeping(plan: Plan) -> str:
    interval = max(1, plan.steps // 10)
    return f"""\
[checkpoint]
enable = true
interval = {interval}  # what a killed run loses at most, in steps; the same command resumes it
last_save_model_only = false  # otherwise the run cannot be resumed from its last checkpoint
keep_latest_k = 2
"""


def _mixing(plan: Plan) -> str:
    groups = "\n".join(f"[mixing.groups.{table_key(group)}]" for group in plan.found.groups)
    return f"""\
[mixing]
# Which method to begin with: docs/methods.md. Run "stratified" beside it to compare.
method = {quoted(plan.method)}
stores = {quoted(str(plan.stores))}  # STORES/GROUP/train, validation and test
seed = 0

# A table per group; it may set max_epochs, weight (for static), or stores of its own (train, ...).
{groups}
"""


def _aioli(rounds: Round, steps: int, num_groups: int) -> str:
    share, whole = rounds.learn_params / rounds.steps_per_round, steps // rounds.steps_per_round
    return f"""\
[mixing.aioli]
# LearnParams takes num_sweeps x steps_per_mixture x {num_groups} groups = {rounds.learn_params} steps,
# {share:.0%} of a round.
num_sweeps = {rounds.num_sweeps}
steps_per_mixture = {rounds.steps_per_mixture}
steps_per_round = {rounds.steps_per_round}  # {whole} whole rounds in {steps:,} steps
eta = 0.2  # step size of the proportions: larger moves them further in a round
"""


def _evaluation(plan: Plan) -> str:
    budget = ""
    if plan.budget is not None:
        budget = f"budget = {plan.budget}  # percent of the training compute that its evaluations may cost\n"
    test = "test = true  # evaluate the test stores when the run ends"
    if plan.found.without_test:
        missing = ", ".join(plan.found.without_test)
        test = f"test = false  # no test store: {_comment(missing)}"
    return f"""\
[mixing.evaluation]
sequences = {SEQUENCES}  # held-out sequences of every group, all where it has fewer
{budget}freq = {max(1, plan.steps // 10)}  # evaluate every so many steps for the log
{test}
"""
