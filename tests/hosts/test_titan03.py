"""torchtitan 0.3's host, as far as it can be seen without ranks; tests/ranks has the rest."""

import pytest

from titan_aioli.errors import UserError
from titan_aioli.hosts.installed import VERSION, check_config, load_config
from titan_aioli.testing.torchrun import TINY

pytestmark = pytest.mark.skipif(VERSION < (0, 3), reason="torchtitan 0.3 is not installed")

REGISTRY = """
from titan_aioli.config import Mixing
from titan_aioli.train import MixingTrainer
from titan_aioli.hosts.titan03.flavors import model_spec
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.config.configs import TrainingConfig
from torchtitan.components.optimizer import default_adamw

def tiny():
    return MixingTrainer.Config(
        model_spec=model_spec("llama3", "mixing_debug", None),
        training=TrainingConfig(seq_len=16, local_batch_size=4, steps=20, disable_cuda_graphs=True),
        optimizer=default_adamw(lr=3e-3),
        loss=CrossEntropyLoss.Config(global_vocab_size=4096),
        mixing=Mixing(method="stratified", groups={"a": {}, "b": {}}),
    )
"""


def arguments(*flags):
    return ["--job.config_file", str(TINY), *flags]


def test_settings_keep_their_names():
    flags = ["--optimizer.lr", "1e-4", "--training.steps=7", "--checkpoint.enable", "false"]
    more = ["--job.dump_folder", "x", "--activation_checkpoint.mode", "full", "--mixing.seed", "3"]
    config = load_config(arguments(*flags, *more))
    kwargs = config.optimizer.param_groups[0].optimizer_kwargs
    assert (kwargs["lr"], kwargs["betas"], config.optimizer.implementation) == (1e-4, (0.9, 0.95), "foreach")
    assert (config.training.steps, config.dump_folder, config.checkpoint.enable) == (7, "x", False)
    assert type(config.activation_checkpoint).__qualname__ == "FullAC.Config"
    assert (config.mixing.seed, list(config.mixing.groups)) == (3, ["a", "b", "c"])
    assert config.loss.num_chunks == 8 and config.training.disable_cuda_graphs


def test_torchtitans_own_way_with_a_mixing_section(tmp_path, stores, monkeypatch):
    (tmp_path / "my_registry.py").write_text(REGISTRY)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--module", "my_registry", "--config", "tiny", "--mixing.stores", str(stores)]
    checked = check_config([*words, "--mixing.method", "odm", "--training.steps", "9"], 2)
    assert checked.model == "llama3 mixing_debug" and checked.batch_size == 8
    assert (checked.config.training.steps, checked.config.mixing.method) == (9, "odm")
    assert checked.mixture.group_names == ["a", "b"]


def test_a_config_function_of_torchtitan_and_a_mixing_section_in_toml(tmp_path, stores):
    (tmp_path / "mixing.toml").write_text(
        f'[training]\nseq_len = 32\n[mixing]\nstores = "{stores}"\n[mixing.groups.b]\n[mixing.groups.c]\n'
    )
    words = ["--module", "llama3", "--config", "llama3_debugmodel"]
    checked = check_config([*words, "--job.config_file", str(tmp_path / "mixing.toml")], 2)
    assert checked.mixture.group_names == ["b", "c"] and checked.config.training.seq_len == 32
    assert checked.config.optimizer.param_groups[0].optimizer_kwargs["lr"] == 8e-4


PP2 = ["--parallelism.pipeline_parallel_degree", "2", "--parallelism.pipeline_parallel_schedule"]
AC = "--activation_checkpoint"
CP2 = ["--parallelism.context_parallel_degree", "2"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*PP2, "ZBVZeroBubble"], r"ZBVZeroBubble with loss.num_chunks 8 .* wrong by 0.4 percent"),
        (["--training.seq_len", "20"], r"seq_len is 20: .* multiple of loss.num_chunks x .* = 8"),
        (["--loss.num_chunks", "0"], "loss.num_chunks is 0: at least 1"),
        (CP2, r"seq_len is 16: with context_parallel_degree 2 .* multiple of 256"),
        (["--model.attn_backend", "varlen"], r'model.attn_backend is "varlen": torch has no CPU kernel'),
        (["--model.flavor", "7B"], r"model.flavor is '7B': model llama3 has the flavors debugmodel, 1B"),
        (["--model.name", "gpt2"], r"model.name is 'gpt2': torchtitan 0.3 has .*llama3"),
        (
            [f"{AC}.mode", "selective", f"{AC}.selective_ac_option", "2"],
            "torchtitan 0.3 has",
        ),
        (["--training.stepz", "2"], r"Unrecognized options.*--training.stepz"),
        (["--parallelism.spmd_backend", "full_dtensor"], "full_dtensor"),
        (
            ["--model.name", "qwen3", "--model.flavor", "debugmodel", *PP2, "1F1B"],
            "pipeline_parallel_degree is 2: model qwen3 debugmodel shares the weights",
        ),
    ],
)
def test_what_would_train_wrongly_or_not_at_all_is_refused_by_name(flags, message):
    with pytest.raises(UserError, match=message):
        load_config(arguments(*flags))


def test_an_unknown_key_of_a_section_is_refused_with_those_there_are(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[parallelism]\ndisable_loss_parallel = true\n")
    with pytest.raises(UserError, match=r"\[parallelism\] has an unknown key 'disable_loss_parallel'"):
        load_config(["--job.config_file", str(path)])


def test_what_torchtitan_refuses_of_a_section_is_said_with_its_name(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[checkpoint]\nkeep_latest_k = 1\n")
    with pytest.raises(UserError, match=r"\[checkpoint\]: .* at least 2 checkpoint replicas"):
        load_config(["--job.config_file", str(path)])


def test_positions_start_again_after_the_end_of_a_document():
    import torch

    from titan_aioli.hosts.titan03.positions import positions_of

    inputs = torch.tensor([[5, 0, 7, 8, 0, 0, 9], [0, 1, 2, 3, 4, 5, 0]])
    assert positions_of(inputs, None).tolist() == [list(range(7))] * 2
    assert positions_of(inputs, 0).tolist() == [[0, 1, 0, 1, 2, 0, 0], [0, 0, 1, 2, 3, 4, 5]]


def test_a_document_does_not_see_the_one_before_it():
    """The logits of a row's second document, from its own positions and mask, are those of it alone."""
    import torch

    from titan_aioli.hosts.titan03.positions import positions_of

    spec = load_config(arguments()).model_spec
    torch.manual_seed(0)
    model = spec.model.build()
    model.init_states()
    row = torch.tensor([[11, 12, 13, 0, 21, 22, 23, 24]])

    def logits(inputs, end_of_document):
        positions = positions_of(inputs, end_of_document)
        return model(inputs, positions=positions, attention_masks=model.get_attention_masks(positions))

    alone = logits(row[:, 4:], None)
    torch.testing.assert_close(logits(row, 0)[:, 4:], alone, rtol=1e-4, atol=1e-5)
    assert (logits(row, None)[:, 4:] - alone).abs().max() > 1e-2
