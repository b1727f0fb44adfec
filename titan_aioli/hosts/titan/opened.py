"""The mixture of the job at hand: its stores are opened and its method is built once per run and rank."""

import os
from typing import Any

from titan_aioli.config.build import Mixture, build_mixture
from titan_aioli.hosts.titan.checks import expected_batch_size


class _Opened:
    config: Any = None
    mixture: Mixture | None = None


def open_mixture(
    config: Any, vocab_size: int | None, sizes: dict[str, int], world_size: int | None = None
) -> Mixture:
    """What the config's `[mixing]` asks for, opened at the first call for a config.

    Args:
        config: torchtitan's, with our `mixing`.
        vocab_size: entries of the model's embedding, where they are known.
        sizes: the same of every flavor of the model, by its name.
        world_size: ranks that will run it; 0: as few as its layout allows. None: those that run now.
    Raises: UserError: the ranks do not fit the layout; see `build_mixture`.
    """
    if _Opened.config is not config or _Opened.mixture is None:
        num_ranks = int(os.environ.get("WORLD_SIZE", "0")) if world_size is None else world_size
        batch_size, training = expected_batch_size(config, num_ranks), config.training
        mixture = build_mixture(
            config.mixing, training.seq_len, vocab_size, sizes, training.steps, batch_size
        )
        _Opened.config, _Opened.mixture = config, mixture
    return _Opened.mixture
