"""torchtitan's host, as far as it can be seen without ranks; tests/ranks has the rest."""

import math
import sys
from types import SimpleNamespace

import pytest
import tomli_w
import torch
from torch.distributed.pipelining.schedules import _Action, _ComputationType

from titan_aioli.errors import UserError
from titan_aioli.files import read_toml
from titan_aioli.hosts.installed import VERSION, check_config, load_config
from titan_aioli.hosts.titan import checks, host, opened
from titan_aioli.hosts.titan.cpu import has_accelerator
from titan_aioli.hosts.titan.training import MixtureTraining
from titan_aioli.testing.torchrun import TINY

TP2 = ["--parallelism.tensor_parallel_degree", "2"]
EP2 = ["--parallelism.expert_parallel_degree", "2"]
EXPERTS_TP2 = ["--parallelism.expert_tensor_parallel_degree", "2"]


def arguments(stores):
    return ["--job.config_file", str(TINY), "--mixing.stores", str(stores)]


def test_stores_are_opened_and_the_method_is_built_once_per_run(stores, monkeypatch):
    checked = check_config(arguments(stores), 2)
    monkeypatch.setattr(opened, "build_mixture", lambda *args: pytest.fail("opened again"))
    assert opened.open_mixture(checked.config, None, {}) is checked.mixture


def test_another_config_is_opened_for_itself(stores):
    first, second = (check_config(arguments(stores), 2) for _ in range(2))
    assert first.mixture is not second.mixture


@pytest.mark.parametrize("fails", [False, True])
def test_a_checkpoint_in_the_background_is_waited_for_at_the_end(fails):
    """Also where an error ends the run: the process leaves without its threads."""
    calls = []

    def wait_for_checkpoint():
        calls.append("waited")
        if fails:
            raise OSError("disk full")

    base = type("Base", (), {"close": lambda self: calls.append("closed")})
    trainer = type("Trainer", (MixtureTraining, base), {})()
    trainer.stopping = SimpleNamespace(close=lambda: None)
    trainer.wait_for_checkpoint, trainer._checkpoint = wait_for_checkpoint, SimpleNamespace(enable=True)
    trainer.close()
    assert calls == ["waited", "closed"]


def test_passes_over_other_numbers_of_rows_are_compiled_for_themselves(monkeypatch):
    import torch._dynamo

    before = torch._dynamo.config.automatic_dynamic_shapes
    with host._static_shapes():
        assert not torch._dynamo.config.automatic_dynamic_shapes
    assert torch._dynamo.config.automatic_dynamic_shapes == before
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    with host._static_shapes():
        assert "torch._dynamo" not in sys.modules


def test_aioli_gradients_is_told_the_epochs_of_every_group(stores):
    flags = [
        "--mixing.method",
        "aioli_gradients",
        "--training.steps",
        "30",
        "--training.global_batch_size",
        "8",
    ]
    mixture = check_config([*arguments(stores), *flags], 2).mixture
    expected = [30 * 8 / group.num_sequences for group in mixture.train]
    assert mixture.method.epochs_of_all == pytest.approx(expected)


def test_evaluations_leave_no_trace_in_the_load_of_experts():
    """Routers are balanced by the tokens that training sent to each expert, and no others."""
    model = torch.nn.Linear(1, 1)
    for name in host.LOADS:
        model.register_buffer(name, torch.tensor([3.0, 5.0]), persistent=False)
    kept = object.__new__(host.TitanHost)
    kept._trainer = SimpleNamespace(model_parts=[model], metrics_processor=SimpleNamespace(time_last_log=0.0))
    with pytest.raises(RuntimeError), kept.evaluating():  # a pass that fails leaves none either
        for name in host.LOADS:
            model.get_buffer(name).add_(1.0)
        raise RuntimeError
    assert [model.get_buffer(name).tolist() for name in host.LOADS] == [[3.0, 5.0]] * 2


def test_what_evaluation_leaves_out_of_a_pipeline_plan_is_backward():
    """Another action of a newer torch must be looked at: 2.15 waits for what was sent, and fails without."""
    backward = {"BACKWARD_INPUT", "BACKWARD_WEIGHT", "FULL_BACKWARD", "REDUCE_GRAD", "WAIT_REDUCE_GRAD"}
    backward |= {"SEND_B", "RECV_B", "WAIT_SEND_B"}
    pairs = {"OVERLAP_F_B"}
    assert {kind.name for kind in _ComputationType} - host.FORWARD_ACTIONS <= backward | pairs


@pytest.mark.parametrize("plan", [None, {0: [_Action.from_str("0F0"), _Action.from_str("0B0")]}])
def test_evaluation_takes_the_plan_without_backward_and_gives_it_back(plan):
    pair = _Action(0, _ComputationType.OVERLAP_F_B, None, tuple(plan[0]) if plan else None)
    schedule = SimpleNamespace(pipeline_order_with_comms=plan and {0: [*plan[0], pair]})
    before = schedule.pipeline_order_with_comms
    with host.forward_actions_only(schedule):
        assert schedule.pipeline_order_with_comms == (plan and {0: [plan[0][0]] * 2})
    assert schedule.pipeline_order_with_comms is before


@pytest.mark.skipif(has_accelerator(), reason="the histogram of integers is the CPU's gap")
def test_integers_are_counted_on_the_cpu():
    counts = torch.histc(torch.tensor([0, 2, 2, 3]), bins=4, min=0, max=4)
    assert counts.dtype == torch.int64 and counts.tolist() == [1, 0, 2, 1]


def test_a_batch_without_a_global_size_is_a_micro_batch_of_every_rank(stores):
    training = load_config(arguments(stores)).training
    assert checks.global_batch_size(training, 2) == 8
    training.global_batch_size = -1
    assert checks.global_batch_size(training, 3) == 3 * training.local_batch_size


@pytest.mark.skipif(VERSION >= (0, 3), reason="torchtitan 0.3 shards tied weights as one")
def test_tied_weights_are_not_sharded_by_torchtitan_02(stores):
    qwen3 = ["--model.name", "qwen3", "--model.flavor", "debugmodel"]
    with pytest.raises(UserError, match="model qwen3 debugmodel shares the weights"):
        check_config([*arguments(stores), *qwen3], 2)
    assert check_config([*arguments(stores), *qwen3, *TP2], 2).world_size == 2


@pytest.mark.skipif(VERSION >= (0, 3), reason="torchtitan 0.3 sums the gradients of routers")
def test_routers_that_would_differ_from_rank_to_rank_are_refused(stores):
    """As scripts/layouts.py measured: llama4 is right with tensor parallelism, also inside of experts."""
    llama4, deepseek_v3 = (
        [*arguments(stores), "--model.name", name, "--model.flavor", "debugmodel"]
        for name in ("llama4", "deepseek_v3")
    )
    for flags in ([*deepseek_v3, *TP2], [*llama4, *TP2, *EP2]):
        with pytest.raises(UserError, match=r"tensor_parallel_degree is 2: .* wrong gradients"):
            load_config(flags)
    for flags in ([*deepseek_v3, *EP2], [*llama4, *TP2], [*llama4, *TP2, *EP2, *EXPERTS_TP2]):
        load_config(flags)


@pytest.mark.skipif(VERSION >= (0, 3), reason="these are the rules of torchtitan 0.2")
def test_experts_that_cannot_be_shared_so_are_refused(stores):
    llama4 = ["--model.name", "llama4", "--model.flavor", "debugmodel"]
    fixed = ["--parallelism.data_parallel_shard_degree", "1"]
    for model, layout, world_size, message in (
        ([], EP2, 2, "model llama3 mixing_debug has no experts"),
        (llama4, [*EP2, *EXPERTS_TP2], 2, "expert_tensor_parallel_degree is 2: 1, or as much as"),
        (llama4, [*TP2, *EP2, *EXPERTS_TP2, *fixed], 2, r"times context_parallel_degree is 1\)"),
        (llama4, ["--parallelism.expert_parallel_degree", "16"], 2, "it must divide the 8 experts"),
        (llama4, ["--parallelism.expert_parallel_degree", "4"], 2, "and the 2 ranks that can share them"),
    ):
        with pytest.raises(UserError, match=message):
            check_config([*arguments(stores), *model, *layout], world_size)
    for layout, world_size in ((EP2, 2), ([*TP2, *EP2, *EXPERTS_TP2], 4)):
        assert check_config([*arguments(stores), *llama4, *layout], world_size).world_size == world_size


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("training", {"steps": "20"}, "training.steps is '20': it must be a whole number"),
        ("training", {"steps": 1.5}, "training.steps is 1.5: it must be a whole number"),
        ("checkpoint", {"enable": "false"}, "checkpoint.enable is 'false': it must be true or false"),
        ("activation_checkpoint", {"mode": "ful"}, "activation_checkpoint.mode is 'ful': it must be one of"),
        ("job", {"dump_folder": 5}, "job.dump_folder is 5: it must be a text"),
        ("training", {"max_norm": 0}, "training.max_norm is 0, the norm"),
        ("training", {"max_norm": math.nan}, "training.max_norm is nan, the norm"),
        ("optimizer", {"name": "adamw"}, "optimizer.name is 'adamw': choose from Adam, AdamW"),
        ("optimizer", {"beta1": 1.5}, "optimizer.beta1 is 1.5"),
        ("optimizer", {"weight_decay": math.nan}, "optimizer.weight_decay is nan"),
    ],
)
def test_a_value_of_torchtitans_sections_that_cannot_be_is_refused(tmp_path, section, values, message):
    tables = read_toml(TINY)
    tables.setdefault(section, {}).update(values)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(tables))
    with pytest.raises(UserError, match=message):
        load_config(["--job.config_file", str(tmp_path / "config.toml")])


@pytest.mark.skipif(VERSION >= (0, 3), reason="torchtitan 0.3 has no such setting, and its validator is off")
def test_what_would_break_the_loss_or_the_gradients_is_refused(stores):
    doge = ["--mixing.method", "doge", "--optimizer.early_step_in_backward"]
    for flags, message in (
        (doge, "makes a step of every backward pass, and method doge measures with backward passes"),
        (["--validation.enable"], "validation.enable is torchtitan's own validation"),
    ):
        with pytest.raises(UserError, match=message):
            check_config([*arguments(stores), *flags], 2)
    check_config([*arguments(stores), "--optimizer.early_step_in_backward"], 2)
