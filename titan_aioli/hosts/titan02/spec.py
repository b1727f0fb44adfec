"""What torchtitan builds for a mixing run: its train spec with our loader, loss, metrics and flavours.

Any model that torchtitan has a train spec for can be mixed; nothing of the model is changed.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.models.llama3 import TransformerModelArgs
from torchtitan.protocols.train_spec import TrainSpec, get_train_spec, register_train_spec

from titan_aioli.config.build import Mixture, build_mixture
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.build import build_loader
from titan_aioli.hosts.titan02.cpu import for_cpu
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
        register_train_spec(model_name, mixing_spec(model_name, get_train_spec(model_name)))
        _registered.add(model_name)


def mixing_spec(model_name: str, base: TrainSpec) -> TrainSpec:
    """The model's train spec with a mixture-aware loader, per-group losses and their metrics."""
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
        build_metrics_processor_fn=build_metrics,
    )


def vocab_size(job_config: Any) -> int | None:
    """Entries of the model's embedding, where its flavour says so."""
    model_args = get_train_spec(job_config.model.name).model_args[job_config.model.flavor]
    return getattr(model_args, "vocab_size", None)


def flavors(model_name: str) -> dict[str, Any]:
    """The model arguments of every flavor, torchtitan's and ours."""
    register_mixing_spec(model_name)
    return dict(get_train_spec(model_name).model_args)


class _Opened:
    """The mixture of the job at hand: its stores are opened and its method is built once per run and rank."""

    job_config: Any = None
    mixture: Mixture | None = None


def open_mixture(job_config: Any) -> Mixture:
    """What the config's `[mixing]` asks for, opened at the first call for a config.

    Raises: UserError: see `build_mixture`.
    """
    if _Opened.job_config is not job_config or _Opened.mixture is None:
        sizes = {
            name: getattr(args, "vocab_size", 0) for name, args in flavors(job_config.model.name).items()
        }
        size = vocab_size(job_config)
        training = job_config.training
        mixture = build_mixture(job_config.mixing, training.seq_len, size, sizes, training.steps)
        _Opened.job_config, _Opened.mixture = job_config, mixture
    return _Opened.mixture


def build_dataloader(*, dp_world_size: int, dp_rank: int, tokenizer: Any, job_config: Any) -> MixtureLoader:
    """The loader of one data-parallel rank; torchtitan's `build_dataloader_fn`."""
    training = job_config.training
    return build_loader(
        job_config.mixing,
        open_mixture(job_config),
        Path(job_config.job.dump_folder),
        batch_size=global_batch_size(training, dp_world_size),
        local_batch_size=training.local_batch_size,
        rank=dp_rank,
        num_ranks=dp_world_size,
        is_writer=torch.distributed.get_rank() == 0,
    )


def global_batch_size(training: Any, num_data_ranks: int) -> int:
    """B, rows of one optimizer step: as given, or one micro-batch of every rank."""
    if training.global_batch_size < 0:
        return training.local_batch_size * num_data_ranks
    return training.global_batch_size


def build_row_loss(job_config: Any, **kwargs: Any) -> RowLoss:
    """torchtitan's cross entropy, compiled where the config says so, that can keep rows."""
    plain, by_row = cross_entropy_loss, cross_entropy_by_row
    if job_config.compile.enable and "loss" in job_config.compile.components:
        plain = torch.compile(plain, backend=job_config.compile.backend)
        by_row = torch.compile(by_row, backend=job_config.compile.backend)
    return RowLoss(plain, by_row)


def build_metrics(job_config: Any, parallel_dims: Any, model_args: Any) -> "MixingMetrics":
    """torchtitan's metrics processor, with those of the mixture."""
    return MixingMetrics(job_config, parallel_dims)


class MixingMetrics(MetricsProcessor):
    """torchtitan's metrics with those of the mixture added where a step is logged."""

    mixture_metrics: Callable[[], dict[str, float]] | None = None
    """Called on every rank of a logging step, so it may reduce over ranks."""

    def log(self, step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
        extra = dict(extra_metrics or {})
        if self.mixture_metrics is not None:
            extra.update(self.mixture_metrics())
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra)
