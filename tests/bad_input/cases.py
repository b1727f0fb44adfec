"""The catalogue of bad input: what is wrong, in a few words, and what the refusal must say about it.

A case of the first three tables is a `Case` (faults.py): how the fault is made and a regular expression for the
line that is printed. Of a checkpoint it is that expression and the damage to the saved arrays. One case a line
where it fits into 150 characters.
"""
# ruff: noqa: E501

import gzip
import pickle

import numpy as np

from tests.bad_input.faults import (
    array,
    changed,
    command,
    corpus,
    cut,
    file,
    flags,
    member,
    npy,
    packed,
    poke,
    runs_table,
    sidecar,
    store,
    targets,
    tokenizer,
    toml,
    whole_toml,
    without,
)

PLAN = ("--mixing.method", "static", "--mixing.static.by", "plan", "--mixing.static.plan", "FILE")
GRAPH = ("--mixing.method", "skill_it", "--mixing.skill_it.graph", "FILE")
ORDERS = ("--mixing.aioli.orders_from", "FILE")
ABC = ["a", "b", "c"]
RECORD = '{"step": 0, "first_row": 0, "proportions": [0.5, 0.25, 0.25], "phase": "%s", "round": 0}\n'
RAW = ("--mixing.groups.a.dtype",)
TABLE = "proportion.a,proportion.b,loss.a,loss.b"
RUNS = f"{TABLE}\n0.8,0.2,3,3.2\n0.2,0.8,3.1,3\n0.5,0.5,3,3.05\n0.6,0.4,3,3.1\n"
SIZES = ("--group-tokens", "a", "900", "b", "900", "--training-tokens")
GROUPS = "[mixing.groups.a]\n[mixing.groups.b]\n[mixing.groups.c]\n"

# fmt: off
CONFIG = {
    # TOML
    "unknown key": toml(r"\[mixing\] has an unknown key 'methodd' .perhaps method is meant.; it may have: method", "[mixing]\nmethodd = 1\n"),
    "unknown key of a table": toml(r"\[mixing.aioli\] has an unknown key 'etta'", "etta = 1.0", "eta = 1.0"),
    "unknown key of a group": toml(
        "mixing.groups.a has an unknown key 'weigth' .perhaps weight is meant.; it may have: train",
        "[mixing.groups.a]\nweigth = 1.0\n",
        "[mixing.groups.a]\n",
    ),
    "unknown key of torchtitan's": toml(r"\[training\] has an unknown key 'stepz' \(perhaps steps is meant\)", "[training]\nstepz = 1\n", "[training]\n"),
    "an unknown section": toml("'?traning.* .perhaps training is meant.", "[traning]", "[training]"),
    "unknown group in a prior": toml(
        "mixing.aioli.prior names an unknown group 'law'; the groups are: a, b, c",
        "[mixing.aioli.prior]\nlaw = 1.0\n[mixing.evaluation]\n",
        "[mixing.evaluation]\n",
    ),
    "unknown group of an anchor": toml(
        "mixing.guards.anchor names an unknown group 'law'",
        "[mixing.guards.anchor]\nlaw = 1.0\n[mixing.evaluation]\n",
        "[mixing.evaluation]\n",
    ),
    "no groups": toml("no data groups: add a table", "", GROUPS),
    "groups that are a list": whole_toml(r"mixing.groups is \['a'\]", '[mixing]\ngroups = ["a"]\n'),
    "a group that is a number": toml("mixing.groups.a is 3: it must be a table", "[mixing.groups]\na = 3\n", GROUPS),
    # targets
    "unknown key of a target": targets("mixing.targets.d has an unknown key 'weigth'", "[mixing.targets.d]\nweigth = 1.0"),
    "a target that is a number": targets("mixing.targets.d is 3: it must be a table", "[mixing.targets]\nd = 3"),
    "a target without stores": targets("no token store at .*/law/validation", "[mixing.targets.law]"),
    "a target with the name of a group": targets(
        "mixing.targets.a has stores of its own and the name of a group", "[mixing.targets.a]\nvalidation = ['x']"
    ),
    "a target that is trained on": targets(
        "a target must not be trained on: .*/a/train.* is held out as d and trained on as a",
        "[mixing.targets.d]\nvalidation = ['STORES/a/train']\ntest = ['STORES/a/test']",
    ),
    "a target whose test is trained on": targets(
        "a target must not be trained on: .*/b/train.* is held out as d and trained on as b",
        "[mixing.targets.d]\nvalidation = ['STORES/a/validation']\ntest = ['STORES/b/../b/train.bin']",
    ),
    "targets of weight 0": targets("no target counts: set the weight", "[mixing.targets.d]\nweight = 0.0"),
    "nothing but a guard": targets("no target counts: set the weight", "[mixing.targets.d]\nrole = 'guard'"),
    "a target of negative weight": targets("targets.d.weight is -1.0", "[mixing.targets.d]\nweight = -1.0"),
    "a negative tolerance": targets("targets.d.tolerance is -0.1", "[mixing.targets.d]\ntolerance = -0.1"),
    "an unknown role": targets("mixing.targets.d.role is 'judge'", "[mixing.targets.d]\nrole = 'judge'"),
    "an unknown unit": targets("mixing.objective.unit is 'bits'", "[mixing.targets.d]\n[mixing.objective]\nunit = 'bits'"),
    "an unknown answer to contamination": targets("mixing.objective.contamination is 'deny'", "[mixing.objective]\ncontamination = 'deny'"),
    "an objective without targets": targets(r"there is no \[mixing.targets.NAME\]", "[mixing.objective]\ncombine = 'worst'"),
    "bits per byte of unknown text": targets(
        "do not say how many bytes of text they hold: set mixing.targets.d.bytes_per_token",
        "[mixing.targets.d]\n[mixing.objective]\nunit = 'bits_per_byte'",
    ),
    "skill_it without a graph to its targets": targets(
        r"skill_it.graph is not set, and the targets \['d'\] are not the groups", "[mixing.targets.d]", *GRAPH[:2]
    ),
    "doge with the worst target": targets(
        "method doge follows one gradient",
        "[mixing.targets.d]\n[mixing.objective]\ncombine = 'worst'",
        *("--mixing.method", "doge"),
    ),
    "aioli_gradients with a guard": targets(
        "method aioli_gradients follows one gradient",
        "[mixing.targets.d]\n[mixing.targets.a]\nrole = 'guard'",
        *("--mixing.method", "aioli_gradients"),
    ),
    "aioli_gradients in pipeline stages": flags(
        "doge and aioli_gradients run with FSDP, HSDP and tensor parallelism",
        *("--mixing.method", "aioli_gradients", "--parallelism.pipeline_parallel_degree", "2"),
    ),
    "held-out gradients of no sequences": flags(
        "mixing.doge.sequences is 0: at least 1", *("--mixing.method", "doge", "--mixing.doge.sequences", "0")
    ),
    "a seed checkpoint that is not saved": flags(
        "create_seed_checkpoint saves nothing", "--checkpoint.create_seed_checkpoint", "--checkpoint.no-enable"
    ),
    "a seed checkpoint of two ranks": flags(
        "create_seed_checkpoint needs the whole model on one rank, and there are 2",
        *("--checkpoint.create_seed_checkpoint", "--parallelism.tensor_parallel_degree", "2"),
    ),
    "gradients of no sequences": flags(
        "mixing.aioli_gradients.sequences is 0: at least 1",
        *("--mixing.method", "aioli_gradients", "--mixing.aioli_gradients.sequences", "0"),
    ),
    "an anchor at targets that are no groups": targets(
        "mixing.aioli_gradients.anchor is \"targets\", but the targets d are no groups",
        "[mixing.targets.d]",
        *("--mixing.method", "aioli_gradients", "--mixing.aioli_gradients.anchor", "targets"),
    ),
    "a diagonal of other targets": targets("has no diagonal", "[mixing.targets.d]", "--mixing.aioli.diagonal"),
    "mixing that is a number": whole_toml("mixing is 3: it must be a table", "mixing = 3\n"),
    "an empty file": whole_toml("no data groups: add a table", ""),
    "not TOML": toml("is not valid TOML", "[mixing\n"),
    "a table twice": toml("is not valid TOML", "[mixing]\n[mixing]\n"),
    "not UTF-8": whole_toml("config.toml is not valid TOML", b"\xff\xfe"),
    "text for a number": toml("mixing.seed is 'x': it must be a whole number", "[mixing]\nseed = 'x'\n"),
    "true for a number": toml("mixing.seed is True: it must be a whole number", "[mixing]\nseed = true\n"),
    "a fraction for a count": toml("mixing.evaluation.sequences is 1.5", "sequences = 1.5", "sequences = 12"),
    "true for a number that may be left out": toml("groups.a.max_epochs is True: it must be a number", "[mixing.groups.a]\nmax_epochs = true\n", "[mixing.groups.a]\n"),
    "true in a list of numbers": toml("groups.a.store_weights is .True.: it must be a list of numbers", "[mixing.groups.a]\nstore_weights = [true]\n", "[mixing.groups.a]\n"),
    "a seed below 0": toml("mixing.seed is -1: at least 0, below 2.63", "[mixing]\nseed = -1\n"),
    "a seed of more than 63 bits": toml("mixing.seed is 9223372036854775808: at least 0", "[mixing]\nseed = 9223372036854775808\n"),
    "nothing to read ahead": toml("mixing.read_ahead is -1: at least 0", "[mixing]\nread_ahead = -1\n"),
    "endless epochs": toml("groups.a.max_epochs is inf: a finite number above 0", "[mixing.groups.a]\nmax_epochs = inf\n", "[mixing.groups.a]\n"),
    "a target's name of two lines": targets("a target is named 'x.ny': a name has at least", '[mixing.targets."x\\ny"]'),
    "an empty path": toml("mixing.groups.a.train has an empty path", "[mixing.groups.a]\ntrain = ['']\n", "[mixing.groups.a]\n"),
    "a number of more than 64 bits": toml("mixing.aioli.eta is 1000.*: whole numbers must be below 2.64", f"eta = {10**20}", "eta = 1.0"),
    "a stage whose weights are a number": toml(
        r"mixing.static.schedule\[0\].weights is 1: it must be a table of numbers",
        "[[mixing.static.schedule]]\nweights = 1\n[mixing.evaluation]\n",
        "[mixing.evaluation]\n",
    ),
    "a name of two lines": toml("a group is named 'x.ny': a name has at least one character", '[mixing.groups."x\\ny"]\n', GROUPS),
    "a group without a name": toml("a group is named '': a name has", '[mixing.groups.""]\n', GROUPS),
    "a choice that is none": toml("mixing.aioli.order is 'any'", "order = 'any'\neta = 1.0", "eta = 1.0"),
    # flags
    "unknown method": flags("mixing.method is 'magic': choose one of stratified, static", "--mixing.method", "magic"),
    "unknown flag": flags("--mixing.eta", "--mixing.eta", "1"),
    "sweeps without end": flags("aioli.num_sweeps is 1000000000: with 3 mixtures it must be at most 5333", "--mixing.aioli.num_sweeps", "1000000000"),
    "a memory without end": flags(
        "aioli_gradients.memory is 1e.18: .* at most 1e.09",
        *("--mixing.method", "aioli_gradients", "--mixing.aioli_gradients.memory", "1e18"),
    ),
    "steps without end": flags("training.steps is 10000000000: at least 1, below 2,147,483,648", "--training.steps", "10000000000"),
    "a checkpoint to load that is not there": flags(
        "checkpoint.load_step is 7: no whole checkpoint of that step is in .*/run/checkpoint .none is.", "--checkpoint.load_step", "7"
    ),
    "a checkpoint that is not loaded": flags("checkpoint.load_step loads nothing", "--checkpoint.load_step", "7", "--checkpoint.no-enable"),
    "weights to start from that are not there": flags(
        "checkpoint.initial_load_path is '.*file': no whole checkpoint", "--checkpoint.initial_load_path", "FILE"
    ),
    "checkpoints under a file": file(r"file/x \(job.dump_folder, checkpoint.folder\) cannot be written", "x", "--checkpoint.folder", "FILE/x"),
    "no number of steps": flags("steps", "--training.steps", "abc"),
    "no steps": flags("training.steps is 0: at least 1", "--training.steps", "0"),
    "unknown model": flags("model.name is 'gpt9'", "--model.name", "gpt9"),
    "unknown flavor": flags("model.flavor is '900B'", "--model.flavor", "900B"),
    "sequences longer than the data": flags("has no sequence of seq_len 99999992", "--training.seq_len", "99999992"),
    "a batch that cannot be split": flags("global_batch_size is 7: it must be a multiple", "--training.global_batch_size", "7"),
    "no rows on a rank": flags("global_batch_size is 8: .*local_batch_size 0", "--training.local_batch_size", "0"),
    "a layout of no ranks": flags("tensor_parallel_degree is 0: at least 1", "--parallelism.tensor_parallel_degree", "0"),
    "sequences without tokens": flags("training.seq_len is 0: at least 1", "--training.seq_len", "0"),
    "garbage that is never collected": flags("training.gc_freq is 0: at least 1", "--training.gc_freq", "0"),
    "a learning rate of nan": flags("optimizer.lr is nan: it must be a finite number at least 0", "--optimizer.lr", "nan"),
    "an endless learning rate": toml("optimizer.lr is inf: it must be a finite number at least 0", "lr = inf", "lr = 3e-3"),
    "a negative learning rate": flags("optimizer.lr is -0.1: it must be a finite number at least 0", "--optimizer.lr", "-0.1"),
    "a learning rate of words": toml("optimizer.lr is 'high': it must be a (finite )?number", "lr = 'high'", "lr = 3e-3"),
    "one checkpoint to keep": toml("keep_latest_k is 1: at least 2|at least 2 checkpoint replicas", "keep_latest_k = 1", "keep_latest_k = 2"),
    "no rows in a micro-batch": flags("pipeline_parallel_microbatch_size (is 0: at least 1|must be greater than 0)", "--parallelism.pipeline_parallel_microbatch_size", "0"),
    "no held-out sequences": flags("mixing.evaluation.sequences is 0: at least 1", "--mixing.evaluation.sequences", "0"),
    "evaluations every -5 steps": flags("mixing.evaluation.freq is -5: at least 0", "--mixing.evaluation.freq", "-5"),
    "no skipped update allowed": flags("max_skipped_updates is 0: at least 1", "--mixing.max_skipped_updates", "0"),
    "weights of 0": flags(
        "static.proportions sum to 0.0: at least one weight must be positive",
        *("--mixing.method", "static", "--mixing.groups.a.weight", "0"),
        *("--mixing.groups.b.weight", "0", "--mixing.groups.c.weight", "0"),
    ),
    "a negative weight": flags(r"static.proportions\[0\] is -1", "--mixing.method", "static", "--mixing.groups.a.weight", "-1"),
    "one_hot_factor too small": flags("with 3 groups it must be above 1/3 = 0.3333", "--mixing.aioli.one_hot_factor", "0.25"),
    "LearnParams longer than the round": flags(
        "steps_per_round is 6, but LearnParams alone takes .* 1 x 2 x 3 = 6 steps", "--mixing.aioli.steps_per_round", "6"
    ),
    "a step of 0": flags("aioli.eta is 0.0: the step size must be", "--mixing.aioli.eta", "0"),
    "a step that is no number": flags("aioli.eta is nan: the step size must be", "--mixing.aioli.eta", "nan"),
    "an average of more than all": flags("aioli.ema is 1.5: the weight on the past", "--mixing.aioli.ema", "1.5"),
    "steps on no prior": flags("prior_steps is 5 but no aioli.prior is given", "--mixing.aioli.prior_steps", "5"),
    "a least share too large": flags("guards.min_share is 0.9", "--mixing.guards.min_share", "0.9"),
    "no reference model": flags("mixing.doremi.reference is ''", "--mixing.method", "doremi"),
    "plan without a file": flags("static.plan names no file", *PLAN[:4]),
    # plans, graphs, ledgers
    "no plan there": flags("mixing.static.plan is .*file., which cannot be read: No such file", *PLAN),
    "a plan that is not JSON": file("file is not a plan .*not JSON", "{", *PLAN),
    "a plan without groups": file("file is not a plan", {"proportions": [1.0]}, *PLAN),
    "a plan of other groups": file(r"\['x'\], this run has", {"groups": ["x"], "proportions": [1.0]}, *PLAN),
    "a plan of words": file("file is not a plan", {"groups": ABC, "proportions": ["x", 1, 1]}, *PLAN),
    "a plan below 0": file(r"file: proportions\[0\] is -1", {"groups": ABC, "proportions": [-1, 1, 1]}, *PLAN),
    "a plan nested without end": file("file is not a plan", "[" * 10**6, *PLAN),
    "a plan of a terabyte": file("has 1099511627776 bytes, at most", 1 << 40, *PLAN),
    "a graph of other groups": file("is a graph of the groups", {"groups": ["x"], "graph": [[1]]}, *GRAPH),
    "a graph of another shape": file("file is not a graph", {"groups": ABC, "graph": [[1]]}, *GRAPH),
    "no graph there": flags("mixing.skill_it.graph is .*file., which cannot be read: No such file", *GRAPH),
    "orders from a folder": file("mixing.aioli.orders_from is .*file., which cannot be read: Is a dir", None, *ORDERS),
    "half a line of a ledger": file("line 2: not a ledger record", RECORD % "train" + '{"step": 1', *ORDERS),
    "a ledger of other lines": file("line 1: not a ledger record", '{"step": 0}\n', *ORDERS),
    "a ledger that is binary": file("line 1: not a ledger record", b"\x80\x04\x95\n", *ORDERS),
    "shares that are none": file("not shares that sum to 1", RECORD.replace("0.5", "7.5") % "train", *ORDERS),
    "shares that are nan": file("not shares that sum to 1", RECORD.replace("0.5", "NaN") % "train", *ORDERS),
    "a ledger without LearnParams": file("records no LearnParams", RECORD % "train", *ORDERS),
    "a ledger of another sweep": file(r"orders\[0\] is \[0\]: it must name", RECORD % "learn_params", *ORDERS),
}
"""Faults in the config of a training run, its flags and the files that these name."""

STORES = {
    "no store": toml("nowhere/train.*titan-aioli tokenize", "[mixing.groups.nowhere]\n[mixing.evaluation]\n", "[mixing.evaluation]\n"),
    "a store twice": toml("group 'a' names the store x.bin twice: name it once", "[mixing.groups.a]\ntrain = ['x', 'x.bin']\n", "[mixing.groups.a]\n"),
    "a store twice in a target": targets("target 'd' names the store x twice", "[mixing.targets.d]\nvalidation = ['x', 'x']\ntest = ['x']"),
    "data cut short": store("train.bin: holds .* expected", cut(".bin", 100)),
    "data too long": store("train.bin: holds .* expected", cut(".bin", -2)),
    "an index cut short": store("train.idx: holds .* expected", cut(".idx", 8)),
    "an empty index": store("not a Megatron index", lambda path: path.with_suffix(".idx").write_bytes(b"")),
    "no index": store("train.bin is there, but not its index", lambda path: path.with_suffix(".idx").unlink()),
    "no data": store("train.idx is there, but not its data .*train.bin", lambda path: path.with_suffix(".bin").unlink()),
    "half a header": store("the header alone has 34", lambda path: path.with_suffix(".idx").write_bytes(b"MMIDIDX\0\0\1")),
    "a foreign index": store("not a Megatron index", poke(0, "<Q", 7)),
    "another version": store("version 2 of the index format", poke(9, "<Q", 2)),
    "an unknown dtype": store("dtype code 99 is not known", poke(17, "<B", 99)),
    "tokens that are floats": store("floats are no token ids", poke(17, "<B", 7)),
    "sequences without end": store("expected .* for 1152921504606846976 sequences", poke(18, "<Q", 1 << 60)),
    "a negative size": store("sequence 0 has the size -5", poke(34, "<i", -5)),
    "a moved sequence": store("sequence 0 starts at byte 6", poke(34 + 4 * 40, "<q", 6)),
    "documents that do not rise": store("document index must rise", poke(8, "<q", 1, from_end=True)),
    "metadata that is not JSON": store("train.json: the metadata", sidecar('"titan_aioli token store 1"{')),
    "metadata of another store": store(
        "says 5 tokens, but the index counts", sidecar('{"format": "titan_aioli token store 1", "tokens": 5}')
    ),
    "metadata that is a list": store("train.json: the metadata", sidecar('["titan_aioli token store 1"]')),
    "a vocabulary of words": store(
        "train.json: the metadata", sidecar('{"format": "titan_aioli token store 1", "vocab_size": "many"}')
    ),
    "a vocabulary larger than the model's": store(
        "group 'a': .*uses a vocabulary of 50304 tokens, the model has 4096",
        sidecar('{"format": "titan_aioli token store 1", "vocab_size": 50304}'),
    ),
    "tokens beyond the model's": array("uses a vocabulary of 60001 tokens", np.full(100, 60000)),
    "tokens below 0": array("token ids below 0", np.full(100, -1)),
    "a pickle": array("not a whole NumPy array", pickle.dumps(np.array([{}], dtype=object))),
    "an array of objects": array("not a whole NumPy array", npy(np.array([{}] * 99), allow_pickle=True)),
    "an array of two dimensions": array(r"shape \[10, 10\], expected one flat array", np.ones((10, 10), int)),
    "an array of floats": array("expected one flat array of integer token ids", np.ones(100)),
    "an array cut short": array("not a whole NumPy array", npy(np.ones(999, int))[:-8]),
    "an array said to be huge": array("not a whole NumPy array", npy(np.ones(999, int)).replace(b"(999,), }      ", b"(999999999,), }")),
    "an array of no tokens": array("has no sequence of seq_len 16", np.ones(0, int)),
    "raw tokens of an odd size": array("are no whole number of uint16", b"abc", ".bin", *RAW, "uint16"),
    "raw floats": array("holds no token ids", b"abcd", ".bin", *RAW, "float32"),
    "an unknown dtype of raw tokens": array("uint99", b"abcd", ".bin", *RAW, "uint99"),
    "a dtype that is another": array("the store says its dtype is int64", np.ones(99, int), ".npy", *RAW, "uint16"),
    "a folder": file("file is a folder; it holds no token store", None, "--mixing.groups.a.train", "FILE"),
}
"""Faults in the token stores of a training run."""

TRAINING = {**CONFIG, **STORES}
"""All that `python -m titan_aioli.train` refuses before it trains, and `titan-aioli check` with it."""

COMMANDS = {
    "no corpus": command("no input at nowhere.jsonl", "tokenize", "nowhere.jsonl", "--group", "a", "--tokenizer", "t", "--output", "FOLDER"),
    "a line that is not JSON": corpus(r"docs.jsonl, line 1: not JSON", "docs.jsonl", '{"text": '),
    "a field that is missing": corpus("line 1: no field 'text'; found body", "docs.jsonl", [{"body": "x"}]),
    "a corpus cut short": corpus("cannot be read beyond line", "docs.jsonl.gz", gzip.compress(b'{"text": "one"}\n' * 99)[:-9]),
    "a broken Parquet file": corpus("not a whole Parquet", "docs.parquet", b"PAR1xx"),
    "a text that is binary": corpus("not a text in UTF-8", "docs.txt", b"\xff\xfe\x00"),
    "no text": corpus("no document with any text", "docs.jsonl", [{"text": ""}]),
    "a group outside the folder": corpus("a group's name is a folder's", "docs.jsonl", [{"text": "x", "g": "../x"}], "--group-by", "g"),
    "no tokenizer": tokenizer("no tokenizer at", lambda folder: (folder / "tokenizer.json").unlink()),
    "a tokenizer that is none": tokenizer("not a tokenizer.json", lambda folder: (folder / "tokenizer.json").write_text("{}")),
    "an unknown end": tokenizer("has no token '<end>'", lambda folder: None, "--end-of-document", "<end>"),
    "broken tokenizer settings": tokenizer("tokenizer_config.json", lambda folder: (folder / "tokenizer_config.json").write_text("{")),
    "settings that are a list": tokenizer("tokenizer_config.json", lambda folder: (folder / "tokenizer_config.json").write_text("[]")),
    "n-grams of no size": command("--contamination-ngrams is 0: from 1 to", "check", "FOLDER", "--contamination-ngrams", "0"),
    "a tokenizer for nothing": command("--tokenizer is read for --contamination only", "check", "FOLDER", "--tokenizer", "t"),
    "no such command": command("no command 'trian': choose one of", "trian"),
    "no run": command("is not the dump folder of a mixing run", "report", "FOLDER/.."),
    "a run of garbage": command("mixture.json is not what a run writes", "rows", "FOLDER"),
    "a store to inspect that is not there": command("no token store at", "inspect", "FOLDER/none"),
    "a table without columns": command("has no column proportion.GROUP", "plan", "FOLDER/mixture.json"),
    "a weight of a loss that is not there": runs_table(
        r"objective_weight.NAME for \['x'\] and loss.NAME for \['a', 'b'\]", f"{TABLE},objective_weight.x\n1,0,3,3,1\n"
    ),
    "runs for two objectives": runs_table(
        r"runs.csv, line 3: objective_weight .* remove these columns and give --weights",
        f"{TABLE},objective_weight.a,objective_weight.b\n1,0,3,3,1,1\n0,1,3,3,1,0\n",
    ),
    "a negative weight": runs_table(
        r"runs.csv: objective_weight .* is \[1.0, -1.0\]: at least 0", f"{TABLE},objective_weight.a,objective_weight.b\n1,0,3,3,1,-1\n"
    ),
    "weights of losses that are all 0": runs_table("--weights sum to 0.0: at least one", RUNS, "--weights", "a", "0", "--law", "grid_search"),
    "a weight of a loss below 0": runs_table("--weights gives a -1.0: it must be finite", RUNS, "--weights", "a", "-1", "b", "1.1"),
    "an anchor that is no number": runs_table("--anchor gives b nan: it must be finite", RUNS, "--anchor", "a", "1", "b", "nan"),
    "an anchor of nothing": runs_table("--anchor sum to 0.0: at least one", RUNS, "--anchor", "a", "0"),
    "frozen shares that are all 0": runs_table("--freeze sum to 0.0: at least one", RUNS, "--freeze", "a", "0"),
    "a group that is frozen twice": runs_table("--freeze gives a twice, 1 and 2: leave out one", RUNS, "--freeze", "a", "1", "a", "2"),
    "residuals of any size": runs_table("--huber-delta is 1e.300: from 1e-06 to 1000 nats", RUNS, "--huber-delta", "1e300"),
    "a run of one step": command("law returns needs at least 2", "simulate", "--law", "returns", "--steps", "1"),
    "a pull below 0": runs_table("--anchor-strength is -1.0: it must be finite and at least 0", RUNS, "--anchor-strength", "-1"),
    "a pull that is no number": runs_table("--anchor-strength is nan: it must be finite", RUNS, "--anchor-strength", "nan"),
    "effective shares of negative epochs": runs_table("--tau is -5.0: it must be finite and at least 0", RUNS, "--tau", "-5"),
    "residuals of a negative size": runs_table("--huber-delta is -1.0: from 1e-06 to 1000 nats", RUNS, "--huber-delta", "-1"),
    "repeats that are no number": runs_table("--max-epochs is nan: it must be above 0", RUNS, *SIZES, "100", "--max-epochs", "nan"),
    "no repeats": runs_table("--max-epochs is 0.0: it must be above 0", RUNS, *SIZES, "100", "--max-epochs", "0"),
    "a planned run of nan tokens": runs_table("--training-tokens is nan: it must be finite", RUNS, *SIZES, "nan"),
    "a planned run of no tokens": runs_table("--training-tokens is 0.0: it must be finite and above 0", RUNS, *SIZES, "0"),
    "a group of nan tokens": runs_table(
        "--group-tokens gives b nan: it must be finite", RUNS, "--training-tokens", "100", "--group-tokens", "a", "9", "b", "nan"
    ),
}
"""Faults in the inputs of the other commands."""

CHECKPOINTS = {
    "not an archive": ("cannot be read", lambda arrays: b"cos\nsystem\n(S'true'\ntR."),
    "nothing": ("cannot be read", lambda arrays: b""),
    "cut short": ("cannot be read", lambda arrays: packed(arrays)[:-30]),
    "a bit flipped": ("cannot be read", lambda arrays: packed(arrays)[:200] + b"\xff" + packed(arrays)[201:]),
    "a compressed bomb": ("larger than its", lambda arrays: packed({"step": np.zeros(10**7)}, compressed=True)),
    "compressed": ("is compressed", lambda arrays: packed({"step": np.random.default_rng(0).bytes(99)}, compressed=True)),
    "an array said to be huge": ("says int64.*and has 8", member(npy(np.ones(1, int)).replace(b"(1,), }       ", b"(99999999,), }"))),
    "an array of objects": ("says object", member(npy(np.array([{}]), allow_pickle=True))),
    "a text": ("cannot be read", member("seven")),
    "no ledger": ("has no ledger.step", without("ledger.step")),
    "no method's state": (r"has no method_state.losses", without("method_state.losses")),
    "no groups": ("has no groups", without("groups")),
    "other groups": (r"written with groups \['x'\]", changed(groups=["x"])),
    "another method": ("written with method odm, this run has aioli", changed(method="odm")),
    "another shape": (r"method_state.losses is float64\[2\], this run needs float64\[3\]", changed(method_state__losses=[1.0, 2.0])),
    "words for numbers": ("method_state.round is", changed(method_state__round="two")),
    "shares that are nan": ("damaged.*shares that sum to 1", changed(method_state__proportions=[np.nan] * 3, method_state__stage=2)),
    "a ledger of no shares": ("damaged.*shares that sum to 1", changed(ledger__proportions=np.ones((2, 3)))),
    "a ledger of other lengths": ("damaged", changed(ledger__step=[0])),
    "a ledger that goes back": ("damaged", changed(ledger__step=[5, 0])),
    "a step below 0": ("damaged: a count is negative", changed(step=-1)),
    "many steps": ("damaged", changed(step=[1, 2])),
}
"""Faults in the part of a checkpoint that is the mixture's: (message, damage to its arrays)."""
# fmt: on
