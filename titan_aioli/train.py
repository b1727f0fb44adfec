"""Train with a mixture that changes on the way, in torchtitan's training loop.

torchrun --nproc_per_node=2 -m titan_aioli.train --job.config_file train_configs/debug_aioli.toml
"""

import os
import sys
from collections.abc import Iterator

from titan_aioli.hosts.installed import Checked, MixingTrainer, launch
from titan_aioli.hosts.leaving import leave

__all__ = ["MixingTrainer"]


def doubtful(checked: Checked) -> Iterator[str]:
    """What `titan-aioli check` would warn of, for the log of the run."""
    from titan_aioli.commands.check.doubts import doubts
    from titan_aioli.commands.check.forecast import forecast

    expected = forecast(checked.config, checked.mixture, checked.batch_size)
    yield from doubts(checked.config, len(checked.mixture.train), expected)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    leave(launch(MixingTrainer, sys.argv[1:], doubtful))
