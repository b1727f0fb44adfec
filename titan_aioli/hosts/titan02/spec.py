"""What torchtitan builds for a mixing run: its train spec with our loader, loss and flavours.

Any model that torchtitan has a train spec for can be mixed; nothing of the model is changed.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.models.llama3 import TransformerModelArgs
from torchtitan.models.moe import MoEArgs
from torchtitan.protocols.train_spec import TrainSpec, get_train_spec, register_train_spec

from titan_aioli.config.build import Mixture
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.build import build_loader
from titan_aioli.hosts.flavor import Flavor
from titan_aioli.hosts.titan.checks import global_batch_size
from titan_aioli.hosts.titan.cpu import for_cpu, has_accelerator
from titan_aioli.hosts.titan.opened import open_mixture
from titan_aioli.hosts.titan02 import experts
from titan_aioli.measure.losses import RowLoss, cross_entropy_by_row

FLAVORS = {
    "llama3": {
        # 0.4M parameters without the embeddings: trains on two CPU cores in minutes.
        "mixing_debug": TransformerModelArgs(
            dim=128, n_layers=2, n_heads=4, vocab_size=4096, rope_theta=10000, multiple_of=64
        ),
        # The same with a vocabulary so small that a study of a hundred runs takes an hour or two.
        "mixing_small": TransformerModelArgs(
            dim=128, n_layers=2, n_heads=4, vocab_size=1024, rope_theta=10000, multiple_of=64
        ),
        # The same with enough layers for four pipeline stages.
        "mixing_debug_deep": TransformerModelArgs(
            dim=128, n_layers=4, n_heads=4, vocab_size=4096, rope_theta=10000, multiple_of=64
        ),
        # 162M parameters, the size of the Aioli paper's runs (Pythia-160M), with the GPT-NeoX vocabulary.
        "160M": TransformerModelArgs(
            dim=768, n_layers=12, n_heads=12, vocab_size=50304, rope_theta=10000, multiple_of=256
        ),
    }
}

_registered: set[str] = set()


def register_mixing_spec(model_name: str) -> None:
    """Put our train spec in the place of torchtitan's for this model; once per process."""
    if model_name not in _registered:
        if not has_accelerator():
            experts.use_on_cpu()
        register_train_spec(model_name, mixing_spec(model_name, get_train_spec(model_name)))
        _registered.add(model_name)


def mixing_spec(model_name: str, base: TrainSpec) -> TrainSpec:
    """The model's train spec with a mixture-aware loader and per-group losses."""
    build_tokenizer = base.build_tokenizer_fn

    def build_tokenizer_if_present(job_config: Any) -> Any:
        # The data is tokenized already; only attention masks by document ask for a tokenizer.
        if build_tokenizer is None or not os.path.exists(job_config.model.hf_assets_path):
            return None
        return build_tokenizer(job_config)

    return replace(
        base,
        model_args={**base.model_args, **FLAVORS.get(model_name, {})},
        parallelize_fn=for_cpu(base.parallelize_fn),
        build_tokenizer_fn=build_tokenizer_if_present,
        build_dataloader_fn=build_dataloader,
        build_loss_fn=build_row_loss,
    )


def vocab_size(job_config: Any) -> int | None:
    """Entries of the model's embedding, where its flavour says so."""
    return getattr(_args_of(job_config), "vocab_size", None)


def has_tied_weights(job_config: Any) -> bool:
    """Whether the first and the last layer of the model are one matrix."""
    return getattr(_args_of(job_config), "enable_weight_tying", False)


def experts_of(job_config: Any) -> MoEArgs | None:
    """How the model mixes experts; None: it has none."""
    args = _args_of(job_config)
    return getattr(args, "moe_args", None) if getattr(args, "moe_enabled", True) else None


def _args_of(job_config: Any) -> Any:
    """What the model of a config is built from."""
    return get_train_spec(job_config.model.name).model_args[job_config.model.flavor]


def flavors() -> list[Flavor]:
    """The flavors of Llama 3 with plain causal attention, torchtitan's and ours."""
    args_by_name = _model_args("llama3")
    plain = {name: args for name, args in args_by_name.items() if args.attn_type == "sdpa"}
    return [Flavor(_count_parameters(args), args.vocab_size, name) for name, args in plain.items()]


def _model_args(model_name: str) -> dict[str, Any]:
    """The model arguments of every flavor, torchtitan's and ours."""
    register_mixing_spec(model_name)
    return dict(get_train_spec(model_name).model_args)


def _count_parameters(args: Any) -> int:
    """Parameters of a Llama 3 model without those of its norms: embeddings, attention, feed-forward."""
    key_value_share = (args.n_kv_heads or args.n_heads) / args.n_heads
    hidden = int(8 * args.dim / 3 * (args.ffn_dim_multiplier or 1.0))
    hidden = -(-hidden // args.multiple_of) * args.multiple_of
    layer = 2 * args.dim**2 * (1 + key_value_share) + 3 * args.dim * hidden
    return int(2 * args.vocab_size * args.dim + args.n_layers * layer)


def open_job_mixture(job_config: Any, world_size: int | None = None) -> Mixture:
    """What the config's `[mixing]` asks for, opened at the first call for a config.

    Raises: UserError: see `build_mixture`.
    """
    sizes = {
        name: getattr(args, "vocab_size", 0) for name, args in _model_args(job_config.model.name).items()
    }
    return open_mixture(job_config, vocab_size(job_config), sizes, world_size)


def build_dataloader(*, dp_world_size: int, dp_rank: int, tokenizer: Any, job_config: Any) -> MixtureLoader:
    """The loader of one data-parallel rank; torchtitan's `build_dataloader_fn`."""
    training = job_config.training
    return build_loader(
        job_config.mixing,
        open_job_mixture(job_config),
        Path(job_config.job.dump_folder),
        batch_size=global_batch_size(training, dp_world_size),
        local_batch_size=training.local_batch_size,
        rank=dp_rank,
        num_ranks=dp_world_size,
        is_writer=torch.distributed.get_rank() == 0,
    )


def build_row_loss(job_config: Any, **kwargs: Any) -> RowLoss:
    """torchtitan's cross entropy, compiled where the config says so, that can keep rows."""
    plain, by_row = cross_entropy_loss, cross_entropy_by_row
    if job_config.compile.enable and "loss" in job_config.compile.components:
        plain = torch.compile(plain, backend=job_config.compile.backend)
        by_row = torch.compile(by_row, backend=job_config.compile.backend)
    return RowLoss(plain, by_row)
