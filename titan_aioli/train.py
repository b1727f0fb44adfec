"""Train with a mixture that changes on the way, in torchtitan's training loop.

torchrun --nproc_per_node=2 -m titan_aioli.train --job.config_file train_configs/debug_aioli.toml
"""

import os
import sys

from titan_aioli.hosts.titan02.launch import launch
from titan_aioli.hosts.titan02.mixing_trainer import MixingTrainer

__all__ = ["MixingTrainer"]

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(launch(MixingTrainer, sys.argv[1:]))
