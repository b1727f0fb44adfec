"""DoGE's observation on the plain host, against whole gradients."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from titan_aioli.control.ledger import Ledger
from titan_aioli.data.group import Group
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.targets import Targets
from titan_aioli.hosts.plain import PlainHost
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.measure.evaluate import held_out_batches
from titan_aioli.measure.gradients import GradientObserver
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.losses import IGNORE_INDEX
from titan_aioli.measure.observer import MicroBatch, Settings
from titan_aioli.methods import Objective
from titan_aioli.testing.stores import numbered_group


def loader_of(groups):
    return MixtureLoader(groups, Ledger(), batch_size=2, local_batch_size=2)


def whole_gradient(model, inputs, labels):
    """Of the mean token loss, one flat float64 vector."""
    loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten())
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    parts = zip(gradients, model.parameters(), strict=True)
    return torch.cat([(p * 0 if g is None else g).flatten().double() for g, p in parts])


def test_inner_products_and_norms_are_those_of_whole_gradients():
    torch.manual_seed(0)
    model = Transformer(64, 4, dim=8, num_layers=1, heads=2)
    host = PlainHost(model, 2, torch.device("cpu"))
    groups = [numbered_group("a", 0, 3), numbered_group("b", 20, 3), numbered_group("c", 40, 3)]
    held_out = HeldOut(host, groups, [], 2, 2, lambda step, losses: None)
    observer = GradientObserver(host, held_out, loader_of(groups), Settings(gradient_sequences=2))
    inputs, labels = torch.randint(0, 64, (2, 4, 4))
    group_B = torch.tensor([0, 1, 0, 1])  # none of group 2
    observer.begin_step()
    for half in (slice(0, 2), slice(2, 4)):
        host.loss(inputs[half], labels[half])
        observer.see(MicroBatch(inputs[half], labels[half], group_B[half], host.row_loss.rows()))
    observed = observer.measure(1)
    batches = held_out_batches(host, groups, 2)
    per_group = [
        whole_gradient(model, *(torch.cat([b[k][b[2] == g] for b in batches]) for k in (0, 1)))
        for g in range(3)
    ]
    v = torch.stack(per_group).mean(dim=0)
    for group in (0, 1):
        g = whole_gradient(model, inputs[group_B == group], labels[group_B == group])
        np.testing.assert_allclose(
            observed[group], [float(g @ v), float(g.norm()), float(v.norm())], rtol=1e-5
        )
    assert np.isnan(observed[2, :2]).all() and observed[2, 2] == observed[0, 2]


def test_the_held_out_gradient_is_that_of_the_objective():
    torch.manual_seed(0)
    model = Transformer(64, 4, dim=8, num_layers=1, heads=2)
    host = PlainHost(model, 2, torch.device("cpu"))
    groups = [numbered_group("a", 0, 3), numbered_group("b", 20, 3)]
    sets = [groups[1], numbered_group("x", 40, 3), numbered_group("watched", 50, 3)]
    targets = Targets(["b", "x", "watched"], sets, [])
    held_out = HeldOut(host, groups, [], 2, 2, lambda *_: None, targets)
    settings = Settings(
        gradient_sequences=2, objective=Objective(weights=[1.0, 3.0, 0.0], scales=[2.0, 1.0, 1.0])
    )
    observer = GradientObserver(host, held_out, loader_of(groups), settings)
    inputs, labels = torch.randint(0, 64, (2, 2, 4))
    group_B = torch.tensor([0, 1])
    observer.begin_step()
    host.loss(inputs, labels)
    observer.see(MicroBatch(inputs, labels, group_B, host.row_loss.rows()))
    observed = observer.measure(1)
    batches = held_out_batches(host, sets, 2)
    b, x = (
        whole_gradient(
            model, *(torch.cat([batch[k][batch[2] == target] for batch in batches]) for k in (0, 1))
        )
        for target in (0, 1)
    )
    v = (0.5 * 2.0 * b + 1.5 * x) / 3  # weights of mean 1 over the two that count
    g = whole_gradient(model, inputs[:1], labels[:1])
    np.testing.assert_allclose(observed[0], [float(g @ v), float(g.norm()), float(v.norm())], rtol=1e-5)


@dataclass(frozen=True)
class OfSomeTokens:
    """A held-out set of which only the last labels count, as of prompts and answers."""

    group: Group
    num_counted: int

    def __getattr__(self, name):
        return getattr(self.group, name)

    def counted(self, sequence):
        return slice(self.group.seq_len - self.num_counted, self.group.seq_len)


def test_targets_count_the_same_however_many_of_their_tokens_count():
    torch.manual_seed(0)
    model = Transformer(64, 4, dim=8, num_layers=1, heads=2)
    host, groups = PlainHost(model, 2, torch.device("cpu")), [numbered_group("a", 0, 3)]
    sets = [numbered_group("x", 20, 3), OfSomeTokens(numbered_group("y", 40, 3), 1)]
    held_out = HeldOut(host, groups, [], 2, 2, lambda *_: None, Targets(["x", "y"], sets, []))
    observed = GradientObserver(host, held_out, loader_of(groups), Settings(gradient_sequences=2)).measure(1)
    of_target = []
    for each in sets:
        inputs, labels, _ = held_out_batches(host, [each], 2)[0]
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        of_target.append(torch.cat([g.flatten().double() for g in gradients]))
    assert observed[0, 2] == pytest.approx(float(((of_target[0] + of_target[1]) / 2).norm()), rel=1e-5)
