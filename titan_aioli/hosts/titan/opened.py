"""The mixture of the job at hand: its stores are opened and its method is built once per run and rank."""

from typing import Any

from titan_aioli.config.build import Mixture, build_mixture


class _Opened:
    config: Any = None
    mixture: Mixture | None = None


def open_mixture(config: Any, vocab_size: int | None, sizes: dict[str, int]) -> Mixture:
    """What the config's `[mixing]` asks for, opened at the first call for a config.

    Args:
        config: torchtitan's, with our `mixing`.
        vocab_size: entries of the model's embedding, where they are known.
        sizes: the same of every flavor of the model, by its name.
    Raises: UserError: see `build_mixture`.
    """
    if _Opened.config is not config or _Opened.mixture is None:
        training = config.training
        mixture = build_mixture(config.mixing, training.seq_len, vocab_size, sizes, training.steps)
        _Opened.config, _Opened.mixture = config, mixture
    return _Opened.mixture
