"""What tests of several methods drive them with."""

from itertools import count, islice

from titan_aioli.methods.walk import walk


def state_after(method, losses_at, num_updates, num_groups):
    """The method's state after `num_updates` updates, the t-th of them with losses_at(t)."""
    losses = map(losses_at, count(1))
    *_, last = islice(walk(method, num_groups, lambda _: next(losses)), num_updates + 1)
    return last.state


def drive(method, num_groups, observe, num_rounds, num_targets=None):
    """States at the start of each training phase; `observe(phase, losses, round)` gives the next losses."""
    losses, trained = None, []

    def next_losses(stretch):
        nonlocal losses
        losses = observe(stretch.phase, losses, stretch.state.round)
        return losses

    for stretch in walk(method, num_groups, next_losses, num_targets=num_targets):
        if stretch.phase.name == "train":
            trained.append(stretch.state)
        if len(trained) == num_rounds:
            return trained


def linear_world(A, start):
    """Losses fall by A @ p for every 4 steps."""

    def observe(phase, losses, round_):
        return start if losses is None else losses - A @ phase.proportions * phase.num_steps / 4

    return observe
