"""torchtitan's metrics with those of the mixture."""

from collections.abc import Callable
from typing import Any


class MixtureMetrics:
    """A base class ahead of torchtitan's MetricsProcessor: adds the mixture's where a step is logged."""

    mixture_metrics: Callable[[], dict[str, float]] | None = None
    """Called on every rank of a logging step, so it may reduce over ranks."""

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        extra = dict(extra_metrics or {})
        if self.mixture_metrics is not None:
            extra.update(self.mixture_metrics())
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra)  # pyright: ignore
