"""How far a step on each group would lower the objective: inner products of gradients.

As for DoGE (gradients.py) no rank ever holds a whole gradient, and one all-reduce joins the ranks. What
differs: a group's gradient is that of the rows that training would draw from it next, so that it is known for
groups of any share, and shows what is left to learn of a group that is read again; the held-out rows are
drawn afresh each time; one of the two gradients is divided as the optimizer does; and all ranks pass over a
few rows of one group together, whatever the batch size.

The noise of an inner product is in inverse proportion to the rows of either gradient, so as many rows go to
the one gradient of the objective as to those of all groups. A measurement costs a forward and a backward pass
over both, and the memory of one more sharded gradient.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.streams import fixed_sample, name_key
from titan_aioli.data.targets import HeldOutSet
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.measure.gradients import inner_product, local_gradient, num_replicas
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host, SecondMoment
from titan_aioli.measure.losses import IGNORE_INDEX
from titan_aioli.measure.observer import Observer, Settings


class AlignmentObserver(Observer):
    """For each group [G]: <g_j, g / sqrt(v)>, nats per unit of the learning rate.

    g_j: gradient of the mean training loss of group j; g: of the objective; v: Adam's second moment, which
    has seen g, as in a step with it. Otherwise the rows of an embedding whose tokens did not occur for a few
    hundred steps, and whose v is all but forgotten, would be most of the product.
    """

    def __init__(self, host: Host, held_out: HeldOut, loader: MixtureLoader, settings: Settings):
        self._host, self._loader, self._targets = host, loader, held_out.seen
        objective, num_targets = settings.objective, len(held_out.seen)
        weights = objective.row_weights(objective.start(num_targets), num_targets)
        num_counting = int(np.count_nonzero(weights))
        self._shares = weights / num_counting
        """[K], what the mean loss of each target counts."""
        self._num_rows = settings.alignment_sequences
        self._num_target_rows = -(-self._num_rows * len(loader.groups) // num_counting)

    def measure(self, step: int) -> np.ndarray:
        host, parameters = self._host, list(self._host.parameters())
        replicas = [num_replicas(parameter) for parameter in parameters]
        products = torch.zeros(len(self._loader.groups), dtype=torch.float64, device=host.device)
        with host.row_loss.recording_rows(False):
            objective = self._objective_gradient(parameters, step)
            for group in range(len(products)):
                host.zero_grad()
                self._add_gradient(self._loader.groups, group, self._next_sequences(group), 1.0)
                gradient = [local_gradient(parameter) for parameter in parameters]
                products[group] = inner_product(gradient, objective, replicas)
            host.zero_grad()
        if dist.is_initialized():
            dist.all_reduce(products)
        return products.cpu().numpy()

    def _objective_gradient(self, parameters: Sequence[torch.nn.Parameter], step: int) -> list[torch.Tensor]:
        """This rank's shards of the gradient of the objective, divided as the optimizer does."""
        self._host.zero_grad()
        for index, (target, share) in enumerate(zip(self._targets, self._shares.tolist(), strict=True)):
            if share > 0:
                count = self._num_target_rows
                first = first_place(target.name, target.num_sequences, step)
                sequences = fixed_sample(target.name, target.num_sequences, count, first)
                self._add_gradient(self._targets, index, sequences, share)
        moments = self._host.second_moments()
        return [_divided(local_gradient(p), v) for p, v in zip(parameters, moments, strict=True)]

    def _next_sequences(self, group: int) -> np.ndarray:
        """[n], the sequences that training would draw from a group next."""
        loader = self._loader
        return loader.schedule.upcoming(loader.position, group, self._num_rows)

    def _add_gradient(
        self, sets: Sequence[HeldOutSet], index: int, sequences: np.ndarray, scale: float
    ) -> None:
        """Add `scale` times the gradient of the mean loss of some sequences of a set, spread over the ranks.

        Every rank makes the same passes over as many rows, of which some only fill up.
        """
        host = self._host
        num_local = -(-len(sequences) // host.num_data_ranks)
        own = [(index, int(sequence)) for sequence in sequences[host.data_rank :: host.num_data_ranks]]
        inputs, labels, _ = read_rows(sets, own, num_local)
        count = torch.tensor(float((labels != IGNORE_INDEX).sum()), device=host.device)
        scale /= float(host.sum_over_data_ranks(count))
        for part in range(0, num_local, host.local_batch_size):
            rows = slice(part, part + host.local_batch_size)
            host.backward(inputs[rows].to(host.device), labels[rows].to(host.device), scale)


def first_place(target_name: str, num_sequences: int, step: int) -> int:
    """Where in a target's order its held-out rows of the measurement after `step` steps begin: at random.

    Not a multiple of the step: steps and numbers of sequences share factors, so that many measurements of a
    run would see the same rows, and be wrong together.
    """
    return int(np.random.default_rng((name_key(target_name), step)).integers(num_sequences))


def adams_second_moments(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Iterable[torch.nn.Parameter]
) -> list[SecondMoment | None]:
    """The second moment of each parameter; None where no optimizer keeps one."""
    found: dict[torch.Tensor, SecondMoment] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                mean = optimizer.state.get(parameter, {}).get("exp_avg_sq")
                if mean is not None:
                    found[parameter] = SecondMoment(mean, float(group["betas"][1]), float(group["eps"]))
    return [found.get(parameter) for parameter in parameters]


def _divided(gradient: torch.Tensor, moment: SecondMoment | None) -> torch.Tensor:
    """A rank's shard of a gradient over the root of its second moment; a copy of it where that is None."""
    if moment is None:
        return gradient.clone()
    mean = moment.mean.to_local() if isinstance(moment.mean, DTensor) else moment.mean
    with_this = moment.beta2 * mean + (1.0 - moment.beta2) * gradient.square()
    return gradient / (with_this.sqrt() + moment.epsilon)
