"""torchtitan 0.2.2's trainer as a `Host`: how it does a pass through the model."""

import torch
from torchtitan.components.checkpoint import ModelWrapper
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.protocols.model_converter import build_model_converters
from torchtitan.tools import utils

from titan_aioli.hosts.titan.host import Prepared, TitanHost, forward_actions_only


class Titan02Host(TitanHost):
    """What measuring sees of a torchtitan 0.2.2 trainer; see `measure.host.Host`."""

    wrapper = ModelWrapper

    def prepare(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> Prepared:
        """What a pass over these rows takes; the loss expects them next."""
        self.row_loss.expect(len(labels_BS), self.device)
        inputs, labels, *more = self._trainer.post_dataloading_process({"input": inputs_BS}, labels_BS)
        return Prepared(inputs, labels, {**more[0], **more[1]})

    def loss_of(self, model: torch.nn.Module, rows: Prepared, scale: float | None = None) -> torch.Tensor:
        """The summed loss of rows, which the loss keeps: `scale` times it, if that is given."""
        with self._trainer.maybe_enable_amp:
            loss = self.row_loss(model(rows.inputs, **rows.more), rows.labels)
            return loss if scale is None else loss * scale

    def forward_stages(self, inputs_BS: torch.Tensor, labels_BS: torch.Tensor) -> None:
        """`forward` through pipeline stages, which cut the rows into micro-batches themselves."""
        trainer, rows = self._trainer, self.prepare(inputs_BS, labels_BS)
        target, losses = (rows.labels, []) if trainer.pp_has_last_stage else (None, None)
        args = (rows.inputs,) if trainer.pp_has_first_stage else ()
        with trainer.train_context(), forward_actions_only(trainer.pp_schedule):
            trainer.pp_schedule.eval(*args, **rows.more, target=target, losses=losses)

    def empty_model(self) -> torch.nn.Module:
        """A model of the trained one's flavor and layout on its device, its weights undefined."""
        trainer, config = self._trainer, self._trainer.job_config
        with torch.device("meta"), utils.set_default_dtype(TORCH_DTYPE_MAP[config.training.dtype]):
            model = trainer.train_spec.model_cls(trainer.model_args)
        build_model_converters(config, trainer.parallel_dims).convert(model)  # float8, as the trained one
        model = trainer.train_spec.parallelize_fn(model, trainer.parallel_dims, config)
        return model.to_empty(device=trainer.device)
