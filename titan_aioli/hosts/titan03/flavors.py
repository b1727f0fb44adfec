"""The models of torchtitan 0.3 by name and flavor, and our flavors of Llama 3."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torchtitan.models import _supported_models, llama3
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm, compute_ffn_hidden_dim

from titan_aioli.errors import UserError
from titan_aioli.hosts.flavor import Flavor


def _llama(
    dim: int, n_layers: int, n_heads: int, vocab_size: int, multiple_of: int
) -> Callable[..., llama3.Llama3Model.Config]:
    """A flavor of Llama 3 as torchtitan's registry holds it: (attention backend) -> config of the model."""

    def build(attn_backend: str, **kwargs: Any) -> llama3.Llama3Model.Config:
        return llama3.Llama3Model.Config(
            dim=dim,
            vocab_size=vocab_size,
            tok_embeddings=Embedding.Config(
                num_embeddings=vocab_size, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT
            ),
            norm=RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
            lm_head=Linear.Config(
                in_features=dim, out_features=vocab_size, param_init=llama3._output_linear_init(dim)
            ),
            layers=llama3._build_llama3_layers(
                n_layers=n_layers,
                dim=dim,
                n_heads=n_heads,
                hidden_dim=compute_ffn_hidden_dim(dim, multiple_of=multiple_of),
                rope=ComplexRoPE.Config(dim=dim // n_heads, max_seq_len=131072, theta=10000),
                attn_backend=attn_backend,
                **kwargs,
            ),
        )

    return build


# The sizes of hosts/titan02/spec.py, where they are explained.
llama3.llama3_configs.update(
    mixing_debug=_llama(128, 2, 4, 4096, 64),
    mixing_small=_llama(128, 2, 4, 1024, 64),
    mixing_debug_deep=_llama(128, 4, 4, 4096, 64),
)
llama3.llama3_configs["160M"] = _llama(768, 12, 12, 50304, 256)


def model_spec(name: str, flavor: str, attn_backend: str | None) -> Any:
    """torchtitan's ModelSpec.

    Args:
        name, flavor: as in `[model]`.
        attn_backend: flex, flex_flash or varlen. None: the model's own default.
    Raises: UserError: there is no such model, flavor or backend.
    """
    configs = _configs(name)
    if flavor not in configs:
        raise UserError(f"model.flavor is {flavor!r}: model {name} has the flavors {', '.join(configs)}")
    registry = importlib.import_module(f"torchtitan.models.{name}").model_registry
    backend = {} if attn_backend is None else {"attn_backend": attn_backend}
    try:
        return registry(flavor, **backend)
    except ValueError as error:
        raise UserError(f"model.attn_backend is {attn_backend!r}: {error}") from None


def flavors() -> list[Flavor]:
    """The flavors of Llama 3, torchtitan's and ours."""
    configs = {flavor: _built("llama3", flavor) for flavor in _configs("llama3")}
    return [Flavor(_num_parameters(config), config.vocab_size, name) for name, config in configs.items()]


def vocab_sizes(name: str) -> dict[str, int]:
    """Entries of the embedding of every flavor of a model, by the flavor's name."""
    return {flavor: _built(name, flavor).vocab_size for flavor in _configs(name)}


def _configs(name: str) -> Mapping[str, Callable[..., Any]]:
    """What makes the config of each flavor, by its name.

    Raises: UserError: there is no such model.
    """
    if name not in _supported_models:
        known = ", ".join(sorted(_supported_models))
        raise UserError(f"model.name is {name!r}: torchtitan 0.3 has {known}")
    module = importlib.import_module(f"torchtitan.models.{name}")
    found = [value for key, value in vars(module).items() if key.endswith("_configs")]
    assert len(found) == 1, (name, len(found))
    return found[0]


@functools.cache
def _built(name: str, flavor: str) -> Any:
    """The config of a flavor, for looking at."""
    return importlib.import_module(f"torchtitan.models.{name}").model_registry(flavor).model


def _num_parameters(config: Any) -> int:
    """Parameters of a model without those of its norms, from its config: building one takes seconds."""
    linears = sum(part.in_features * part.out_features for _, part, _, _ in config.traverse(Linear.Config))
    embeddings = config.traverse(Embedding.Config)
    return linears + sum(part.num_embeddings * part.embedding_dim for _, part, _, _ in embeddings)
