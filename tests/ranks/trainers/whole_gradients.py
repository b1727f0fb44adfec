"""DoGE on one process, with the observation computed a second time from whole, unsharded gradients.

Writes both as JSON: {"observed": [G, 3], "whole": [G, 3]}.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from titan_aioli.data.streams import fixed_sample
from titan_aioli.hosts.titan02.launch import launch
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.train import MixingTrainer


class WholeGradients(MixingTrainer):
    def gradient(self, inputs, labels):
        """The gradient of the mean token loss, one flat float64 vector."""
        model = self.model_parts[0]
        loss = F.cross_entropy(model(inputs).flatten(0, 1).float(), labels.flatten())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([gradient.flatten().double() for gradient in gradients])

    def held_out_gradient(self):
        """Mean over groups of the gradient of each group's mean held-out loss."""
        parts = []
        for index, group in enumerate(self.held_out.groups):
            rows = fixed_sample(group.name, group.num_sequences, self.mixing.doge.sequences)
            tokens, _ = read_rows(self.held_out.groups, [(index, int(k)) for k in rows], len(rows))
            parts.append(self.gradient(tokens[:, :-1], tokens[:, 1:]))
        return torch.stack(parts).mean(dim=0)

    def _finish_phases(self):
        if self.controller.phase_is_over and self.step == 1:
            ((inputs, labels, group_B),) = self.observer._step_batches
            v, whole = self.held_out_gradient(), []
            for group in range(len(self.group_names)):
                g = self.gradient(inputs[group_B == group], labels[group_B == group])
                whole.append([float(g @ v), float(g.norm()), float(v.norm())])
            content = {"observed": self.observer.measure().tolist(), "whole": whole}
            Path(self.folder / "gradients.json").write_text(json.dumps(content))
        super()._finish_phases()


if __name__ == "__main__":
    sys.exit(launch(WholeGradients, sys.argv[1:]))
