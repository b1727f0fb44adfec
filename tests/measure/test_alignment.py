"""The alignment of gradients on the plain host, against whole gradients divided as Adam does."""

import numpy as np
import pytest
import torch

from tests.measure.test_gradients import loader_of, whole_gradient
from titan_aioli.data.streams import fixed_sample
from titan_aioli.data.targets import Targets
from titan_aioli.hosts.plain import PlainHost
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.measure.alignment import AlignmentObserver, first_place
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.observer import Settings
from titan_aioli.methods import Objective
from titan_aioli.testing.stores import numbered_group

STEP = 7
GROUPS = [numbered_group("a", 0, 9), numbered_group("b", 20, 3)]
SETS = [GROUPS[1], numbered_group("x", 40, 20), numbered_group("watched", 50, 3)]


def trained_host(num_steps):
    """A model, trained for some steps by Adam, as a host."""
    torch.manual_seed(0)
    model = Transformer(256, 4, dim=8, num_layers=1, heads=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    host = PlainHost(model, 2, torch.device("cpu"), optimizer)
    for _ in range(num_steps):
        inputs, labels = torch.randint(0, 64, (2, 2, 4))
        host.loss(inputs, labels).backward()
        optimizer.step()
        host.zero_grad()
    return host


def observer_of(host, loader, **settings):
    held_out = HeldOut(host, GROUPS, [], 2, 2, lambda *_: None, Targets(["b", "x", "watched"], SETS, []))
    objective = Objective(weights=[1.0, 3.0, 0.0])
    return AlignmentObserver(host, held_out, loader, Settings(objective=objective, **settings))


def gradient_of(model, sets, index, sequences):
    inputs, labels, _ = read_rows(sets, [(index, int(k)) for k in sequences], len(sequences))
    return whole_gradient(model, inputs, labels)


@pytest.mark.parametrize("num_steps", [0, 5])
def test_it_is_the_inner_product_of_whole_gradients_divided_as_adam_does(num_steps):
    host = trained_host(num_steps)
    loader = loader_of(GROUPS)
    observed = observer_of(host, loader, alignment_sequences=3).measure(STEP)
    # 2 groups x 3 rows: as many of the targets, 3 of each of the two that count
    b, x = (
        gradient_of(host.model, SETS, index, fixed_sample(name, size, 3, first_place(name, size, STEP)))
        for index, (name, size) in enumerate((("b", 3), ("x", 20)))
    )
    divided = 0.25 * b + 0.75 * x
    if num_steps:
        moments = [host.optimizer.state[p]["exp_avg_sq"] for p in host.parameters()]
        v = torch.cat([moment.flatten() for moment in moments]).double()
        divided /= (
            0.999 * v + 0.001 * divided**2
        ).sqrt() + 1e-8  # as in Adam's next step, with this gradient
    for group in range(2):
        next_rows = loader.schedule.upcoming(loader.position, group, 3)
        g = gradient_of(host.model, GROUPS, group, next_rows)
        assert observed[group] == pytest.approx(float(g @ divided), rel=1e-4)


@pytest.mark.parametrize("num_sequences", [64, 100, 256, 512, 1000])
def test_measurements_of_a_run_see_different_held_out_rows(num_sequences):
    """Of the rows that ten measurements of 8 could see, most are seen, whatever factors the numbers share."""
    steps = [100, 114, 128, *range(240, 1000, 112)]
    seen = {
        row
        for step in steps
        for row in fixed_sample("x", num_sequences, 8, first_place("x", num_sequences, step)).tolist()
    }
    expected = num_sequences * (1 - (1 - 8 / num_sequences) ** len(steps))  # of random places
    assert len(seen) > 0.8 * expected


def test_it_leaves_no_trace():
    host = trained_host(2)
    before = [p.detach().clone() for p in host.parameters()]
    loader = loader_of(GROUPS)
    observer = observer_of(host, loader, alignment_sequences=3)
    first = observer.measure(STEP)
    assert all(p.grad is None for p in host.parameters())
    assert all(torch.equal(p, q) for p, q in zip(host.parameters(), before, strict=True))
    np.testing.assert_array_equal(observer.measure(STEP), first)
    assert (observer.measure(STEP + 1) != first).any()  # other held-out rows


def test_it_is_what_a_small_step_on_a_group_alone_lowers_the_objective_by():
    """To first order, on the rows that were measured: with every row of the sets."""
    host = trained_host(5)
    loader = loader_of(GROUPS)
    held_out = HeldOut(host, GROUPS, [], 9, 9, lambda *_: None, Targets(["x"], SETS[1:2], []))
    observer = AlignmentObserver(host, held_out, loader, Settings(alignment_sequences=10))
    observed, parameters = observer.measure(0), list(host.parameters())
    rows = loader.schedule.upcoming(loader.position, 0, 10)
    g = gradient_of(host.model, GROUPS, 0, rows)
    moments = torch.cat([host.optimizer.state[p]["exp_avg_sq"].flatten() for p in parameters]).double()
    of_objective = gradient_of(host.model, SETS[1:2], 0, range(20))
    step = g / ((0.999 * moments + 0.001 * of_objective**2).sqrt() + 1e-8)
    losses = []
    for rate in (0.0, 1e-5):
        vector = torch.nn.utils.parameters_to_vector(parameters).double() - rate * step * (rate > 0)
        moved = Transformer(256, 4, dim=8, num_layers=1, heads=2).double()
        torch.nn.utils.vector_to_parameters(vector, moved.parameters())
        inputs, labels, _ = read_rows(SETS[1:2], [(0, k) for k in range(20)], 20)
        losses.append(
            float(torch.nn.functional.cross_entropy(moved(inputs).flatten(0, 1), labels.flatten()).detach())
        )
    assert (losses[0] - losses[1]) / 1e-5 == pytest.approx(observed[0], rel=2e-2)


def test_what_adam_has_forgotten_does_not_outweigh_the_rest():
    """Tokens that did not occur for long: the mean of their squared gradients is all but 0."""
    host = trained_host(5)
    loader = loader_of(GROUPS)
    before = observer_of(host, loader, alignment_sequences=3).measure(STEP)
    embedding = next(iter(host.parameters()))
    host.optimizer.state[embedding]["exp_avg_sq"] *= 1e-12
    after = observer_of(host, loader, alignment_sequences=3).measure(STEP)
    largest = 1 / np.sqrt(0.001)  # of anything that Adam has divided
    for group in range(2):
        rows = loader.schedule.upcoming(loader.position, group, 3)
        g = gradient_of(host.model, GROUPS, group, rows)[: embedding.numel()]
        assert 0 < abs(after[group] - before[group]) <= 2 * largest * float(g.abs().sum())
