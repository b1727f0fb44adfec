"""The config of a plain torchtitan 0.3 run."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import tyro

from titan_aioli.hosts.installed import load_config

# isort: split
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.trainer import Trainer

from titan_aioli.hosts.titan03.components import MixtureLoaderConfig


@dataclass(kw_only=True, slots=True)
class FixedConfig(MixtureLoaderConfig):
    """Builds the loader of fixed sequences."""

    loader_class: Annotated[Any, tyro.conf.Suppress] = None

    def build(self, *, dp_world_size, dp_rank, **kwargs):
        return self.loader_class(self.job, dp_world_size, dp_rank)


def plain_config(arguments, loader_class):
    """The config of a mixing run with torchtitan's own loss, and a loader of fixed sequences."""
    config = load_config(arguments)
    ours = config.loss
    inner = getattr(ours, "loss_fn", ours)
    loss = CrossEntropyLoss.Config(global_vocab_size=inner.global_vocab_size)
    if isinstance(ours, ChunkedLossWrapper.Config):
        loss = ChunkedLossWrapper.Config(num_chunks=ours.num_chunks, loss_fn=loss)
    same = {f.name: getattr(config, f.name) for f in fields(Trainer.Config)}
    same["training"] = replace(config.training, disable_cuda_graphs=False)  # torchtitan's own default
    return Trainer.Config(
        **{**same, "loss": loss, "dataloader": FixedConfig(job=config, loader_class=loader_class)}
    )
