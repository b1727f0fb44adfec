"""The job of a torchtitan 0.2.2 run: its config, read from TOML and flags, and checked before training."""

from pathlib import Path
from typing import Any

import torch
from torchtitan.config import ConfigManager

from titan_aioli.config.validate import check_keys, check_mixing_keys, check_sections
from titan_aioli.errors import UserError
from titan_aioli.hosts.titan.arguments import parsed, with_plain_switches
from titan_aioli.hosts.titan.checks import Checked, check_counts, check_job, check_optimizer
from titan_aioli.hosts.titan02.spec import (
    experts_of,
    has_tied_weights,
    open_job_mixture,
    register_mixing_spec,
    vocab_size,
)

CONFIG_MODULE = "titan_aioli.config"


def check_config(arguments: list[str], world_size: int = 0) -> Checked:
    """Read a config as a run would, open its stores, build its method, and check its layout.

    Args:
        arguments: of `python -m titan_aioli.train`.
        world_size: ranks that will run it. 0: as few as its layout allows.
    Raises: UserError: the first fault, in one line.
    """
    config = load_config(arguments)
    folder, model = Path(config.job.dump_folder), f"{config.model.name} {config.model.flavor}"
    checked = check_job(config, open_job_mixture(config, world_size), world_size, folder, model)
    _refuse_tied_weights(config, checked.world_size)
    _refuse_unfit_experts(config, checked.world_size)
    return checked


def load_config(args: list[str]) -> Any:
    """torchtitan's JobConfig with our `[mixing]`, from a TOML file and flags.

    Raises: UserError: the file is missing or not TOML, a key is unknown, or torchtitan cannot train so.
    """
    if not any("custom_config_module" in arg.replace("-", "_") for arg in args):
        args = [*args, f"--job.custom_config_module={CONFIG_MODULE}"]
    args = with_plain_switches(args)
    tables = check_mixing_keys(args)
    check_keys(tables, ConfigManager()._maybe_add_custom_config(args, tables))
    config = parsed(lambda: ConfigManager().parse_args(args))
    check_sections(config)
    try:
        register_mixing_spec(config.model.name)
        vocab_size(config)
    except ValueError as error:
        raise UserError(f"model.name is {config.model.name!r}: {error}") from None
    except KeyError:
        raise UserError(
            f"model.flavor is {config.model.flavor!r}: model {config.model.name} has no such flavor"
        ) from None
    check_counts(config)
    check_optimizer(config.optimizer, config.training.max_norm)
    _refuse_known_faults(config)
    return config


def _refuse_known_faults(config: Any) -> None:
    """Refuse what torchtitan 0.2.2 silently gets wrong, or cannot do.

    Raises: UserError: names the settings and what to change.
    """
    tensor_parallel = config.parallelism.tensor_parallel_degree > 1
    if config.mixing.separate_documents:
        raise UserError(
            "mixing.separate_documents needs torchtitan 0.3; with torchtitan 0.2 choose a flavor whose "
            "attention is masked by document, such as debugmodel_flex_attn"
        )
    if config.validation.enable:
        raise UserError(
            "validation.enable is torchtitan's own validation, on other data: held-out losses are those of "
            "[mixing.evaluation]: set it to false"
        )
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if config.compile.enable and tensor_parallel and release >= (2, 13):
        raise UserError(
            "compile.enable with parallelism.tensor_parallel_degree above 1 fails or gives wrong gradients "
            "with torchtitan 0.2 on torch 2.13 and newer (a graph of one rank is reused by another): "
            "set compile.enable = false"
        )
    _refuse_diverging_routers(config)


def _refuse_diverging_routers(config: Any) -> None:
    """Refuse layouts in which the weights of routers differ from rank to rank, more with every step.

    torchtitan 0.2.2 leaves out what the tokens of other tensor-parallel ranks add to a router's gradient:
    https://github.com/pytorch/torchtitan/issues/2387.

    Raises: UserError: names the flavor and what to change.
    """
    layout, experts = config.parallelism, experts_of(config)
    if layout.tensor_parallel_degree == 1 or experts is None:
        return
    borrows = layout.expert_parallel_degree > 1 and layout.expert_tensor_parallel_degree == 1
    if not experts.score_before_experts or borrows:
        degree = layout.tensor_parallel_degree
        other = f"parallelism.expert_tensor_parallel_degree to {degree}, or "
        raise UserError(
            f"parallelism.tensor_parallel_degree is {degree}: torchtitan 0.2 then gives the routers of "
            f"{config.model.name} {config.model.flavor} wrong gradients, which differ from rank to rank "
            f"(torchtitan's issue 2387): set {other * experts.score_before_experts}it to 1, or use "
            "torchtitan 0.3"
        )


def _refuse_tied_weights(config: Any, world_size: int) -> None:
    """Refuse layouts in which torchtitan 0.2.2 puts the two uses of tied weights into units of their own.

    Raises: UserError: names the flavor and what to change.
    """
    layout = config.parallelism
    whole = layout.tensor_parallel_degree * layout.data_parallel_replicate_degree
    if has_tied_weights(config) and world_size > whole:
        raise UserError(
            f"model {config.model.name} {config.model.flavor} shares the weights of its first and last "
            "layers, which torchtitan 0.2 can neither shard (FSDP, context parallelism) nor cut into stages: "
            "use torchtitan 0.3 without pipeline stages, or a flavor that does not share them"
        )


def _refuse_unfit_experts(config: Any, world_size: int) -> None:
    """Refuse a degree of expert parallelism that torchtitan 0.2.2 ignores, or cannot build a model with.

    Raises: UserError: names the degree, the ranks that can share experts, and what to change.
    """
    layout, experts = config.parallelism, experts_of(config)
    degree, name = layout.expert_parallel_degree, "parallelism.expert_parallel_degree"
    if degree == 1:
        return
    if experts is None:
        model = f"{config.model.name} {config.model.flavor}"
        raise UserError(f"{name} is {degree}, but model {model} has no experts: set it to 1")
    tensor, experts_tensor = layout.tensor_parallel_degree, layout.expert_tensor_parallel_degree
    if experts_tensor not in (1, tensor):
        raise UserError(
            f"parallelism.expert_tensor_parallel_degree is {experts_tensor}: 1, or as much as "
            f"tensor_parallel_degree, which is {tensor}"
        )
    shared = world_size // (layout.data_parallel_replicate_degree * layout.pipeline_parallel_degree * tensor)
    ranks = shared * tensor // experts_tensor
    if shared == 1 or ranks % degree or experts.num_experts % degree:
        raise UserError(
            f"{name} is {degree}: it must divide the {experts.num_experts} experts of a layer and the "
            f"{ranks} ranks that can share them, and sharding or context parallelism must give more than one "
            f"(data_parallel_shard_degree times context_parallel_degree is {shared})"
        )
