"""DoReMi's observation: how far the model is behind a reference model, on the rows it trains on.

The reference is a second model of the same flavour, sharded like the first, loaded once from a checkpoint of
an earlier run and never trained. It costs its weights in memory and one forward pass for each micro-batch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torchtitan.components.checkpoint import ModelWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools import utils

from titan_aioli.errors import UserError
from titan_aioli.measure.observers import TrainObserver

if TYPE_CHECKING:
    from titan_aioli.train import MixingTrainer


class ExcessObserver(TrainObserver):
    """Mean excess loss of every group over the phase, [G]; nan for a group without tokens.

    Source: Xie et al. 2023, arXiv:2305.10429, section 2: the excess of each token is clipped at 0. The code
    released with arXiv:2411.05735 clips the mean of a group only (`clip_tokens` False).
    """

    def __init__(self, trainer: "MixingTrainer"):
        super().__init__(trainer)
        self._clip_tokens = trainer.mixing.doremi.clip_tokens
        self._reference = load_reference(trainer, trainer.mixing.doremi.reference)
        trainer.row_loss.keep_tokens = True

    def see(self, input_dict: dict[str, Any], labels: torch.Tensor) -> None:
        trainer, loss = self.trainer, self.trainer.row_loss
        tokens_BS = loss.tokens_BS.clone()
        inputs, labels, extra_inputs, extra_kwargs = trainer.post_dataloading_process(input_dict, labels)
        with torch.no_grad(), trainer.train_context(), trainer.maybe_enable_amp:
            loss(self._reference(inputs, **extra_inputs, **extra_kwargs), labels)
        excess_BS = tokens_BS - loss.tokens_BS
        if self._clip_tokens:
            excess_BS = excess_BS.clamp(min=0.0)
        loss.set_sums(excess_BS.double().sum(dim=1))
        super().see(input_dict, labels)


def check_reference(checkpoint: str, has_pipeline: bool) -> None:
    """Refuse a layout with pipeline stages, and a reference that is no checkpoint.

    Raises: UserError: says what to do.
    """
    if has_pipeline:
        raise UserError("doremi does not run with pipeline parallelism: set pipeline_parallel_degree to 1")
    if not checkpoint or not Path(checkpoint, ".metadata").is_file():
        raise UserError(
            f"mixing.doremi.reference is {checkpoint!r}: it must be a checkpoint folder "
            "(.../checkpoint/step-N) of a run with the same model flavor, a stratified one as a rule"
        )


def load_reference(trainer: "MixingTrainer", checkpoint: str) -> torch.nn.Module:
    """The reference model, parallelised as the trained one, with the weights of a checkpoint.

    Raises: UserError: no checkpoint is named or there, it does not fit the flavour, or the layout has
        pipeline stages.
    """
    config = trainer.job_config
    check_reference(checkpoint, trainer.parallel_dims.pp_enabled)
    with torch.device("meta"), utils.set_default_dtype(TORCH_DTYPE_MAP[config.training.dtype]):
        model = trainer.train_spec.model_cls(trainer.model_args)  # pyright: ignore[reportCallIssue]
    model = trainer.train_spec.parallelize_fn(model, trainer.parallel_dims, config)
    model.to_empty(device=trainer.device)
    with torch.no_grad(), torch.random.fork_rng(devices=()):  # the initial weights are overwritten below
        model.init_weights(buffer_device=None)  # pyright: ignore[reportCallIssue]
    state_dict = ModelWrapper([model]).state_dict()
    try:
        load_checkpoint(state_dict, checkpoint_id=checkpoint)
    except Exception as error:
        raise UserError(f"mixing.doremi.reference {checkpoint} does not fit this model: {error}") from error
    return model.requires_grad_(False).eval()
