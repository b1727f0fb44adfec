"""DoReMi's observation: how far the model is behind a reference model, on the rows it trains on.

The reference is a second model of the same kind, loaded once from a checkpoint of an earlier run and never
trained (`Host.reference`). It costs its weights in memory and one forward pass for each micro-batch.
"""

from pathlib import Path

import torch

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.errors import UserError
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.losses import row_sums
from titan_aioli.measure.observer import MicroBatch, Settings, TrainObserver


class ExcessObserver(TrainObserver):
    """Mean excess loss of every group over the phase, [G]; nan for a group without tokens.

    Source: Xie et al. 2023, arXiv:2305.10429, section 2: the excess of each token is clipped at 0. The code
    released with arXiv:2411.05735 clips the mean of a group only (`clip_tokens` False).
    """

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        super().__init__(host, held_out, loader, settings)
        self._row_loss = host.row_loss
        self._clip_tokens = settings.clip_tokens
        self._reference = host.reference(settings.reference)
        self._row_loss.keep_tokens = True

    def see(self, batch: MicroBatch) -> None:
        with torch.no_grad():
            self._reference(batch.inputs_BS, batch.labels_BS)
        tokens_BS, reference_BS = batch.rows.tokens_BS, self._row_loss.rows().tokens_BS
        assert tokens_BS is not None and reference_BS is not None
        excess_BS = tokens_BS - reference_BS
        if self._clip_tokens:
            excess_BS = excess_BS.clamp(min=0.0)
        sums_2B = torch.stack([row_sums(excess_BS), batch.rows.sums_2B[1]])
        self._stats.add(sums_2B, batch.group_B)


def check_reference(checkpoint: str, has_pipeline: bool) -> None:
    """Refuse a layout with pipeline stages, and a reference that is no checkpoint.

    Args:
        checkpoint: folder of a distributed checkpoint.
        has_pipeline: whether the model is cut into pipeline stages.
    Raises: UserError: says what to do.
    """
    if has_pipeline:
        raise UserError("doremi does not run with pipeline parallelism: set pipeline_parallel_degree to 1")
    if not checkpoint or not Path(checkpoint, ".metadata").is_file():
        raise UserError(
            f"mixing.doremi.reference is {checkpoint!r}: it must be a checkpoint folder "
            "(.../checkpoint/step-N) of a run with the same model flavor, a stratified one as a rule"
        )
