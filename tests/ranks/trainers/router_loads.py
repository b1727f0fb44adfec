"""A mixture of experts whose routers are looked at after every step, with all that the step's end measures.

The optimizer step moves the biases by the counted tokens and sets the counts to zero, so whatever is counted
after it was not trained on. Rank 0 writes router_loads.json: of each step [largest count, largest bias].
"""

import json
import sys

import torch.distributed as dist

from titan_aioli.hosts.installed import launch
from titan_aioli.train import MixingTrainer


class RouterLoads(MixingTrainer):
    def largest(self, name):
        """The largest absolute value in the buffers of a name, over all layers."""
        buffers = [
            buffer
            for model in self.model_parts
            for path, buffer in model.named_buffers()
            if path.rpartition(".")[2] in (name, f"{name}_E")
        ]
        assert buffers, f"no {name} in this model"
        return max(float(buffer.abs().max()) for buffer in buffers)

    def train_step(self, data_iterator):
        super().train_step(data_iterator)
        found = [self.largest("tokens_per_expert"), self.largest("expert_bias")]
        if dist.get_rank() == 0:
            path = self.folder / "router_loads.json"
            lines = json.loads(path.read_text()) if path.exists() else []
            path.write_text(json.dumps([*lines, found]))


if __name__ == "__main__":
    sys.exit(launch(RouterLoads, sys.argv[1:]))
