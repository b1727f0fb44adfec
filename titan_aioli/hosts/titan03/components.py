"""Components of torchtitan 0.3's config that a mixing run brings: the loader, and no tokenizer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from titan_aioli.config.build import Mixture
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.hosts.build import build_loader
from titan_aioli.hosts.titan.checks import global_batch_size
from titan_aioli.hosts.titan.opened import open_mixture
from titan_aioli.hosts.titan03.flavors import vocab_sizes


def open_job_mixture(config: Any, world_size: int | None = None) -> Mixture:
    """What the config's `[mixing]` asks for, opened at the first call for a config.

    Raises: UserError: see `build_mixture`.
    """
    model = config.model_spec.model
    return open_mixture(config, model.vocab_size, vocab_sizes(config.model_spec.name), world_size)


@dataclass(kw_only=True, slots=True)
class MixtureLoaderConfig(BaseDataLoader.Config):
    """Builds the loader of one data-parallel rank; `job` is the trainer's config, which holds this one."""

    job: Annotated[Any, tyro.conf.Suppress] = None

    def build(
        self, *, dp_world_size: int, dp_rank: int, local_batch_size: int, **kwargs: Any
    ) -> MixtureLoader:
        """torchtitan's call. With pipeline stages, `local_batch_size` is their micro-batch."""
        return build_loader(
            self.job.mixing,
            open_job_mixture(self.job),
            Path(self.job.dump_folder),
            batch_size=global_batch_size(self.job.training, dp_world_size),
            local_batch_size=local_batch_size,
            rank=dp_rank,
            num_ranks=dp_world_size,
            is_writer=torch.distributed.get_rank() == 0,
        )

    def to_dict(self) -> dict:
        return {"mixing": "see the [mixing] section"}

    def traverse(self, config_cls: type, *, recurse: bool = False, _prefix: str = "") -> Iterator[Any]:
        """Nothing: `job` would lead back to where the traversal began."""
        return iter(())


@dataclass(kw_only=True, slots=True)
class NoTokenizerConfig(BaseTokenizer.Config):
    """The data is tokenized already."""

    def build(self, **kwargs: Any) -> None:
        return None
