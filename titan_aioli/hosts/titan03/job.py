"""The job of a torchtitan 0.3 run: its config, read from TOML and flags, and checked before training.

Two ways lead to the same trainer: a TOML file and flags under the names of torchtitan 0.2, and torchtitan
0.3's own `--module M --config C`, where a TOML file may add the `[mixing]` section and overrule others.

CUDA graphs are off: a replay would not keep the losses of rows, nor see an evaluation in between.
"""

import dataclasses
import logging
import os
from pathlib import Path

import tyro
from torchtitan.config.manager import ConfigManager, custom_registry
from torchtitan.tools.logging import logger
from torchtitan.trainer import Trainer

from titan_aioli.config.validate import check_mixing_keys, check_sections
from titan_aioli.errors import UserError
from titan_aioli.files import read_toml
from titan_aioli.hosts.titan.arguments import parsed, with_plain_switches
from titan_aioli.hosts.titan.checks import Checked, check_counts, check_job, check_optimizer
from titan_aioli.hosts.titan.cpu import for_cpu, has_accelerator
from titan_aioli.hosts.titan03 import attention, exchange
from titan_aioli.hosts.titan03.components import MixtureLoaderConfig, NoTokenizerConfig, open_job_mixture
from titan_aioli.hosts.titan03.faults import refuse_known_faults
from titan_aioli.hosts.titan03.flavors import model_spec
from titan_aioli.hosts.titan03.loss import with_rows
from titan_aioli.hosts.titan03.mixing_trainer import MixingTrainer
from titan_aioli.hosts.titan03.settings import JobConfig, apply_tables

ConfigManager.register_tyro_rules(custom_registry)


def check_config(arguments: list[str], world_size: int = 0) -> Checked:
    """Read a config as a run would, open its stores, build its method, and check its layout.

    Args:
        arguments: of `python -m titan_aioli.train`.
        world_size: ranks that will run it. 0: as few as its layout allows.
    Raises: UserError: the first fault, in one line.
    """
    config = load_config(arguments)
    spec = config.model_spec
    mixture = open_job_mixture(config, world_size)
    return check_job(config, mixture, world_size, Path(config.dump_folder), f"{spec.name} {spec.flavor}")


def load_config(args: list[str]) -> MixingTrainer.Config:
    """torchtitan's config of a mixing run, from a TOML file, a config function, and flags.

    Raises: UserError: the file is missing or not TOML, a key is unknown, or torchtitan cannot train so.
    """
    args = with_plain_switches(args)
    check_mixing_keys(args)
    is_own_way = any(word.split("=")[0] in ("--module", "--config") for word in args)
    logger.addFilter(_is_worth_saying)
    try:
        config = _from_function(args) if is_own_way else _from_settings(args)
    finally:
        logger.removeFilter(_is_worth_saying)
    check_counts(config)
    refuse_known_faults(config)
    return _prepared(config)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Not torchtitan's warning about a default of its own, which it gives whenever a config is made."""
    return not record.getMessage().startswith("initial_load_model_only=True has no effect")


def _from_settings(args: list[str]) -> MixingTrainer.Config:
    """The config of settings under the names of torchtitan 0.2."""
    path, _ = _without_config_file(args)
    settings = JobConfig()
    apply_tables(settings, {} if path is None else read_toml(path))
    settings = parsed(lambda: tyro.cli(JobConfig, args=args, default=settings, registry=custom_registry))
    check_sections(settings)
    check_optimizer(settings.optimizer, settings.training.max_norm)
    model, same = settings.model, ("lr_scheduler", "training", "parallelism", "checkpoint", "compile", "comm")
    spec = model_spec(model.name, model.flavor, model.attn_backend)
    settings.training.disable_cuda_graphs = True
    settings.debug.print_config |= settings.job.print_config
    return parsed(
        lambda: MixingTrainer.Config(
            model_spec=spec,
            hf_assets_path=model.hf_assets_path,
            dump_folder=settings.job.dump_folder,
            loss=settings.loss.build_config(spec.model.vocab_size),
            optimizer=settings.optimizer.build_config(),
            activation_checkpoint=settings.activation_checkpoint.build_config(),
            profiler=settings.profiling,
            metrics=settings.metrics,
            debug=settings.debug,
            mixing=settings.mixing,
            **{name: getattr(settings, name) for name in same},
        )
    )


def _from_function(args: list[str]) -> MixingTrainer.Config:
    """The config that torchtitan 0.3's `--module` and `--config` name, with a TOML file's tables in it."""
    path, words = _without_config_file(args)
    config, words = parsed(lambda: ConfigManager()._load_config(words))
    if type(config) is Trainer.Config:
        values = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(config)}
        values["training"].disable_cuda_graphs = True
        config = MixingTrainer.Config(**values)
    if not isinstance(config, MixingTrainer.Config):
        raise UserError(
            f"--config returns a {type(config).__qualname__}: a mixture is trained from a Trainer.Config of "
            "torchtitan, or a MixingTrainer.Config of titan_aioli.train"
        )
    apply_tables(config, {} if path is None else read_toml(path))
    return parsed(lambda: tyro.cli(type(config), args=words, default=config, registry=custom_registry))


def _without_config_file(args: list[str]) -> tuple[Path | None, list[str]]:
    """The TOML file that the arguments name, and the other arguments."""
    path, words, rest = None, [], iter(args)
    for word in rest:
        key, equals, value = word.partition("=")
        if key.replace("-", "_") == "__job.config_file":
            path = Path(value if equals else next(rest, ""))
        else:
            words.append(word)
    return path, words


def _prepared(config: MixingTrainer.Config) -> MixingTrainer.Config:
    """The config with our loader and loss in it, and what CPU ranks need."""
    config.training.disable_cuda_graphs = True
    spec = config.model_spec
    if not has_accelerator():
        attention.use_on_cpu(spec.model)
        exchange.use_on_cpu()
        spec.parallelize_fn = for_cpu(spec.parallelize_fn)
    config.loss = with_rows(config.loss)
    config.dataloader = MixtureLoaderConfig(job=config)
    config.validator.enable = False
    if not os.path.exists(config.hf_assets_path):
        config.tokenizer = NoTokenizerConfig()
    return config
