"""DoReMi's reference: a second model of the same flavor with the weights of a checkpoint."""

from typing import Any

import torch
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torchtitan.components.checkpoint import ModelWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools import utils

from titan_aioli.errors import UserError
from titan_aioli.measure.excess import check_reference


def load_reference(trainer: Any, checkpoint: str) -> torch.nn.Module:
    """The reference model, parallelized as the trained one, with the weights of a checkpoint.

    Raises: UserError: no checkpoint is named or there, it does not fit the flavor, or the layout has
        pipeline stages.
    """
    config = trainer.job_config
    check_reference(checkpoint, trainer.parallel_dims.pp_enabled)
    with torch.device("meta"), utils.set_default_dtype(TORCH_DTYPE_MAP[config.training.dtype]):
        model = trainer.train_spec.model_cls(trainer.model_args)
    model = trainer.train_spec.parallelize_fn(model, trainer.parallel_dims, config)
    model.to_empty(device=trainer.device)
    with torch.no_grad(), torch.random.fork_rng(devices=()):  # the initial weights are overwritten below
        model.init_weights(buffer_device=None)
    state_dict = ModelWrapper([model]).state_dict()
    try:
        load_checkpoint(state_dict, checkpoint_id=checkpoint)
    except Exception as error:
        raise UserError(f"mixing.doremi.reference {checkpoint} does not fit this model: {error}") from error
    return model.requires_grad_(False).eval()
