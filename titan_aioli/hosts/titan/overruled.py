"""What a checkpoint overrules: settings of the optimizer that were changed for a resume, without effect."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def overruled(asked: Mapping[str, float], optimizers: Any, lr_schedulers: Any) -> Iterator[str]:
    """One line for each changed setting, with both values. Call it after the checkpoint was loaded.

    torchtitan keeps the learning rate before the schedule, and the optimizer's other settings, in the
    checkpoint, and loads them over those of the config. The schedule itself is the config's.

    Args:
        asked: lr, eps, weight_decay, beta1 and beta2 of the config.
        optimizers, lr_schedulers: the trainer's.
    """
    group = next(iter(optimizers)).param_groups[0]
    found = {"lr": lr_schedulers.schedulers[0].base_lrs[0], "eps": group.get("eps")}
    found["weight_decay"] = group.get("weight_decay")
    found["beta1"], found["beta2"] = group["betas"]
    for name, value in asked.items():
        loaded = found[name]
        if loaded is not None and not np.isclose(float(value), float(loaded), rtol=1e-9):
            yield (
                f"optimizer.{name} is {value:g}, but the checkpoint was written with {float(loaded):g}, "
                "which is what training continues with: set it back; for another one, start a new run from "
                "the weights (--checkpoint.initial_load_path, another job.dump_folder)"
            )
