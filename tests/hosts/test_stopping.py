"""Stopping at a signal: all ranks after the same step, however many there are."""

import signal

import pytest
import torch.distributed as dist

from titan_aioli.hosts import stopping
from titan_aioli.hosts.stopping import Stopping


class Store:
    """A key-value store that counts how many have asked."""

    def __init__(self):
        self.values, self.asked = {}, 0

    def compare_set(self, key, expected, desired):
        self.values.setdefault(key, desired)

    def check(self, keys):
        self.asked += 1
        return all(key in self.values for key in keys)

    def get(self, key):
        return self.values[key].encode()


@pytest.fixture
def ranks(monkeypatch):
    """Eight ranks, of which two look after the same step, and their store."""
    store, found = Store(), []
    monkeypatch.setattr(stopping, "RANKS_PER_STEP", 2)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    for rank in range(8):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        found.append(Stopping())
    yield found, store
    for each in reversed(found):
        each.close()


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("receiver", [0, 5])
@pytest.mark.parametrize("ahead", [0, 1])
def test_ranks_that_look_now_and_then_stop_after_the_same_step(ranks, at, receiver, ahead):
    """Half of the ranks are up to a step ahead of the one that has received the signal."""
    found, _ = ranks
    stopped = {}
    for step in range(1, 30):
        if step == 10 + at:
            found[receiver]._receive(signal.SIGTERM, None)
        for rank, each in enumerate(found):
            own = step + (ahead if rank % 2 != receiver % 2 else 0)
            if rank not in stopped and each.after_step(own):
                stopped[rank] = own
    assert len(stopped) == 8 and len(set(stopped.values())) == 1
    assert 10 + at < stopped[0] <= 10 + at + 2 + 3


def test_of_many_ranks_few_look_after_each_step(ranks):
    found, store = ranks
    for step in range(1, 5):
        before = store.asked
        assert not any(each.after_step(step) for each in found)
        assert store.asked - before == 2
