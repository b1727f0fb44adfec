"""A mixture of experts whose routers are looked at after every step, with all that the step's end measures.

The optimizer step moves the biases by the counted tokens and sets the counts to zero, so whatever is counted
after it was not trained on. Rank 0 writes router_loads.json: of each step the tokens that its routers counted
in it ([layers], each as often as it is sent to an expert), the largest count after it, the largest bias.
"""

import json
import sys

import torch.distributed as dist

from titan_aioli.hosts.installed import launch
from titan_aioli.hosts.leaving import leave
from titan_aioli.train import MixingTrainer


class RouterLoads(MixingTrainer):
    def __init__(self, config):
        super().__init__(config)
        step = self.optimizers.step

        def counted_step(*args, **kwargs):
            self.counted = [float(load.sum()) for load in self.buffers_of("tokens_per_expert")]
            return step(*args, **kwargs)

        self.optimizers.step = counted_step

    def buffers_of(self, name):
        """The buffers of a name, of every layer."""
        buffers = [
            buffer
            for model in self.model_parts
            for path, buffer in model.named_buffers()
            if path.rpartition(".")[2] in (name, f"{name}_E")
        ]
        assert buffers, f"no {name} in this model"
        return buffers

    def train_step(self, data_iterator):
        super().train_step(data_iterator)
        names = ("tokens_per_expert", "expert_bias")
        largest = [max(float(buffer.abs().max()) for buffer in self.buffers_of(name)) for name in names]
        found = [self.counted, *largest]
        if dist.get_rank() == 0:
            path = self.folder / "router_loads.json"
            lines = json.loads(path.read_text()) if path.exists() else []
            path.write_text(json.dumps([*lines, found]))


if __name__ == "__main__":
    leave(launch(RouterLoads, sys.argv[1:]))
