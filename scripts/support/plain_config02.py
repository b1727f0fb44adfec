"""The config of a plain torchtitan 0.2.2 run."""

from dataclasses import replace

from titan_aioli.hosts.installed import load_config

# isort: split
from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan_aioli.hosts.titan.cpu import for_cpu
from titan_aioli.hosts.titan02.spec import FLAVORS

PLAIN_NAME = "plain_llama3"
"""torchtitan's Llama with our flavours; the name keeps our launcher from changing anything else."""


def plain_config(arguments, loader_class):
    """The config of a mixing run, for a model that our host has not touched."""
    base = get_train_spec("llama3")
    config = load_config(arguments)  # puts our spec in the place of "llama3"

    def build_loader(dp_world_size, dp_rank, tokenizer, job_config):
        return loader_class(job_config, dp_world_size, dp_rank)

    if config.model.name != PLAIN_NAME and PLAIN_NAME not in _registered:
        _registered.add(PLAIN_NAME)
        register_train_spec(
            PLAIN_NAME,
            replace(
                base,
                model_args={**base.model_args, **FLAVORS["llama3"]},
                parallelize_fn=for_cpu(base.parallelize_fn),
                build_tokenizer_fn=None,
                build_dataloader_fn=build_loader,
            ),
        )
    config.model.name = PLAIN_NAME
    return config


_registered: set[str] = set()
