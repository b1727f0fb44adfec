"""DoGE on one process, with the observation computed a second time from whole, unsharded gradients.

Writes both as JSON: {"observed": [G, 3], "whole": [G, 3]}.
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor

from titan_aioli.data.streams import fixed_sample
from titan_aioli.hosts.installed import VERSION, launch
from titan_aioli.hosts.leaving import leave
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.train import MixingTrainer


class WholeGradients(MixingTrainer):
    def logits(self, inputs):
        """[B, S, vocabulary], without our loss."""
        model = self.model_parts[0]
        if VERSION < (0, 3):
            return model(inputs)
        positions = torch.arange(inputs.shape[1]).expand_as(inputs).contiguous()
        hidden = model(inputs, positions=positions, attention_masks=model.get_attention_masks(positions))
        return model.lm_head(hidden)  # the loss in chunks has the model leave it out

    def gradient(self, inputs, labels):
        """The gradient of the mean token loss, one flat float64 vector."""
        self.optimizers.zero_grad()
        F.cross_entropy(self.logits(inputs).flatten(0, 1).float(), labels.flatten()).backward()
        gradients = [p.grad.flatten().double() for p in self.model_parts[0].parameters()]
        self.optimizers.zero_grad()
        return torch.cat([g.full_tensor() if isinstance(g, DTensor) else g for g in gradients])

    def held_out_gradient(self):
        """Mean over groups of the gradient of each group's mean held-out loss."""
        groups, parts = self.session.held_out.groups, []
        num_sequences = (self.job_config if VERSION < (0, 3) else self.config).mixing.doge.sequences
        for index, group in enumerate(groups):
            rows = fixed_sample(group.name, group.num_sequences, num_sequences)
            inputs, labels, _ = read_rows(groups, [(index, int(k)) for k in rows], len(rows))
            parts.append(self.gradient(inputs, labels))
        return torch.stack(parts).mean(dim=0)

    def forward_backward_step(self, *, input_dict, labels, **kwargs):
        loss = super().forward_backward_step(input_dict=input_dict, labels=labels, **kwargs)
        self.last_batch = input_dict["input"], labels, input_dict["group"]
        return loss

    def train_step(self, data_iterator):
        observer = self.session.observer
        measure = observer.measure

        def measure_and_compare(step):
            observed = measure(step)
            inputs, labels, group_B = self.last_batch
            v, whole = self.held_out_gradient(), []
            for group in range(len(self.session.group_names)):
                g = self.gradient(inputs[group_B == group], labels[group_B == group])
                whole.append([float(g @ v), float(g.norm()), float(v.norm())])
            path = self.folder / "gradients.json"
            path.write_text(json.dumps({"observed": observed.tolist(), "whole": whole}))
            return observed

        observer.measure = measure_and_compare
        super().train_step(data_iterator)


if __name__ == "__main__":
    leave(launch(WholeGradients, sys.argv[1:]))
