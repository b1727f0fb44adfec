"""What a checkpoint overrules: settings of the optimizer that were changed for a resume, without effect."""

from collections.abc import Iterator
from typing import Any

import numpy as np


def overruled(config: Any, optimizers: Any, lr_schedulers: Any) -> Iterator[str]:
    """One line for each changed setting, with both values. Call it after the checkpoint was loaded.

    torchtitan keeps the learning rate before the schedule, and the optimizer's other settings, in the
    checkpoint, and loads them over those of the config. The schedule itself is the config's.

    Args:
        config: torchtitan's JobConfig.
        optimizers, lr_schedulers: the trainer's.
    """
    wanted, group = config.optimizer, next(iter(optimizers)).param_groups[0]
    pairs = [("lr", wanted.lr, lr_schedulers.schedulers[0].base_lrs[0])]
    pairs += [(name, getattr(wanted, name), group.get(name)) for name in ("eps", "weight_decay")]
    pairs += [("beta1", wanted.beta1, group["betas"][0]), ("beta2", wanted.beta2, group["betas"][1])]
    for name, asked, loaded in pairs:
        if loaded is not None and not np.isclose(float(asked), float(loaded), rtol=1e-9):
            yield (
                f"optimizer.{name} is {asked:g}, but the checkpoint was written with {float(loaded):g}, "
                "which is what training continues with: set it back; for another one, start a new run from "
                "the weights (--checkpoint.initial_load_path, another job.dump_folder)"
            )
