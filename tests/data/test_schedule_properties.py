"""Any ledger, limits, batch sizes and ranks: every row once, each as the ledger asks, none beyond a limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.allocate import allocate, allocate_steps
from titan_aioli.data.group import Group
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.data.schedule import Position, Schedule
from titan_aioli.data.streams import CYCLE_ROWS, Streams, WeightedStores
from titan_aioli.proportions import normalize
from titan_aioli.stores.tokens import TokenStore
from titan_aioli.testing.stores import numbered_group

SIZES = (7, 11, 4, 30)


def mixtures(num_groups):
    weights = st.lists(
        st.sampled_from([0.0, 0.0, 0.01, 0.2, 1.0, 3.0]), min_size=num_groups, max_size=num_groups
    )
    return weights.filter(any).map(normalize)


LEDGERS = st.lists(st.tuples(mixtures(4), st.integers(1, 9)), min_size=1, max_size=5)


def train(ledger, batch_size=8, num_ranks=1, local_batch_size=1, resumes=(), limits=None, read_ahead=0):
    """Every rank's rows of a whole run: (step, row in the step, group, first token) in training order.

    Where a step is in `resumes`, a new loader goes on from the state that the old one saved.
    """
    rows = []
    for rank in range(num_ranks):
        entries, state, step = Ledger(), None, 0
        for proportions, num_steps in ledger:
            entries.append(LedgerEntry(step, step * batch_size, proportions, "train", 0))
            end, step = step + num_steps, step
            while step < end:
                groups = [numbered_group(f"g{i}", 1000 * i, size) for i, size in enumerate(SIZES)]
                loader = MixtureLoader(
                    groups,
                    entries,
                    batch_size,
                    local_batch_size,
                    rank,
                    num_ranks,
                    3,
                    read_ahead,
                    max_drawn=limits,
                )
                if state:
                    loader.load_state_dict(state)
                loader.start_phase(end)
                stop = min([until for until in resumes if step < until < end], default=end)
                for number, (inputs, _) in zip(
                    range((stop - step) * loader.num_micro_batches), loader, strict=False
                ):
                    at, micro_batch = divmod(number, loader.num_micro_batches)
                    pairs = zip(inputs["group"].tolist(), inputs["input"][:, 0].tolist(), strict=True)
                    for place, (group, token) in zip(loader.local_rows[micro_batch], pairs, strict=True):
                        rows.append((step + at, int(place), group, token))
                state = loader.state_dict()
                if loader.position.step < stop:  # a group is used up
                    return sorted(rows), loader
                step = stop
    return sorted(rows), loader


@given(ledger=LEDGERS, layout=st.sampled_from([(1, 2), (2, 1), (4, 2), (2, 4), (8, 1)]), data=st.data())
@settings(max_examples=25, deadline=None)
def test_rows_depend_on_neither_ranks_nor_resumes_nor_read_ahead(ledger, layout, data):
    total = sum(num_steps for _, num_steps in ledger)
    resumes = data.draw(st.sets(st.integers(1, max(1, total - 1)), max_size=4))
    expected, _ = train(ledger)
    num_ranks, local_batch_size = layout
    rows, loader = train(ledger, 8, num_ranks, local_batch_size, resumes, read_ahead=3)
    assert rows == expected
    assert [(step, place) for step, place, *_ in rows] == [(s, p) for s in range(total) for p in range(8)]
    assert loader.position.first_row == total * 8


@given(ledger=LEDGERS, batch_sizes=st.lists(st.integers(1, 24), min_size=5, max_size=5))
@settings(max_examples=40, deadline=None)
def test_counts_stay_near_what_was_asked_through_other_batch_sizes(ledger, batch_sizes):
    position, asked, drawn = Position.start(4), np.zeros(4), []
    for (proportions, num_steps), batch_size in zip(ledger, batch_sizes, strict=False):
        schedule = Schedule([f"g{i}" for i in range(4)], SIZES, batch_size, 0)
        block = schedule.plan(position, proportions, num_steps)
        position = block.position_after(num_steps - 1)
        asked += proportions * batch_size * num_steps
        drawn += list(zip(block.groups.flat, block.epochs.flat, block.sequences.flat, strict=True))
        assert not np.isin(np.flatnonzero(proportions == 0), block.groups).any()
    assert abs(asked - position.drawn).max() < 2
    assert len(set(drawn)) == len(drawn) == position.first_row == position.drawn.sum()
    assert np.bincount([group for group, *_ in drawn], minlength=4).tolist() == position.drawn.tolist()


@given(ledger=LEDGERS, limits=st.lists(st.integers(0, 40), min_size=4, max_size=4), at=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_no_group_is_drawn_beyond_its_limit_and_steps_end_no_earlier(ledger, limits, at):
    limits = np.array(limits)
    free, _ = train(ledger)
    rows, loader = train(ledger, limits=limits, resumes=[at])
    counts = np.bincount([group for _, _, group, _ in rows], minlength=4)
    assert rows == free[: len(rows)]
    assert (counts <= limits).all() and counts.tolist() == loader.position.drawn.tolist()
    if len(rows) < len(free):
        following = [group for step, _, group, _ in free if step == loader.position.step]
        beyond = counts + np.bincount(following, minlength=4) > limits
        assert loader.used_up().tolist() == np.flatnonzero(beyond).tolist() != []


def allocate_by_definition(quota, batch_size, carry):
    """The whole rows that are owed, then each row on its own, to or from whom it is owed most or least."""
    target = quota + carry
    counts = np.maximum(0, target.astype(int))
    while counts.sum() < batch_size:
        counts[np.argmax(target - counts)] += 1
    while counts.sum() > batch_size:
        counts[np.argmin(np.where(counts > 0, target - counts, np.inf))] -= 1
    return counts, target - counts


@given(data=st.data(), num_groups=st.integers(1, 60), batch_size=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_rows_go_one_by_one_to_the_group_that_is_owed_most(data, num_groups, batch_size):
    some_weights = st.lists(
        st.sampled_from([0.001, 0.2, 1.0, 1.0, 30.0]), min_size=num_groups, max_size=num_groups
    )
    carry = np.zeros(num_groups)
    for weights in [data.draw(some_weights) for _ in range(3)]:
        proportions = normalize(weights)
        rows, end = allocate_steps(proportions, batch_size, carry, 5)
        for index in range(5):
            counts, carry = allocate_by_definition(proportions * batch_size, batch_size, carry)
            assert np.bincount(rows[index], minlength=num_groups).tolist() == counts.tolist()
        assert end.tolist() == carry.tolist()


@pytest.mark.parametrize(("num_groups", "batch_size"), [(300, 1), (300, 3), (300, 40), (1000, 8)])
def test_rows_of_many_groups_are_those_of_the_definition(num_groups, batch_size):
    """Most steps look at few candidates; where these are too few, all groups are looked at."""
    proportions = np.random.default_rng(0).dirichlet(np.full(num_groups, 0.5)) + 1e-12
    proportions /= proportions.sum()
    rows, end = allocate_steps(proportions, batch_size, np.zeros(num_groups), 300)
    carry = np.zeros(num_groups)
    for row in rows:
        counts, carry = allocate_by_definition(proportions * batch_size, batch_size, carry)
        assert np.bincount(row, minlength=num_groups).tolist() == counts.tolist()
    assert end.tolist() == carry.tolist()


def test_many_steps_at_once_are_single_steps_repeated():
    for num_groups in (3, 30):
        proportions = np.random.default_rng(0).dirichlet(np.ones(num_groups))
        rows, end = allocate_steps(proportions, 10, np.zeros(num_groups), 30)
        carry = np.zeros(num_groups)
        for index in range(30):
            counts, carry = allocate(proportions, 10, carry)
            assert np.bincount(rows[index], minlength=num_groups).tolist() == counts.tolist()
        assert end.tolist() == carry.tolist()


@given(
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=5), data=st.data(), start=st.integers(0, 10**9)
)
@settings(max_examples=40, deadline=None)
def test_store_weights_hold_in_every_cycle_and_each_store_is_read_through(sizes, data, start):
    weights = data.draw(st.lists(st.floats(0.05, 5), min_size=len(sizes), max_size=len(sizes)))
    streams = Streams(["g"], [sum(sizes)], 5, {0: WeightedStores(sizes, weights)})
    first = start // CYCLE_ROWS * CYCLE_ROWS
    epochs, sequences = streams.sequences(np.zeros(2 * CYCLE_ROWS, int), first + np.arange(2 * CYCLE_ROWS))
    stores = np.searchsorted(np.cumsum(sizes), sequences, side="right")
    for cycle in (stores[:CYCLE_ROWS], stores[CYCLE_ROWS:]):
        realised = np.bincount(cycle, minlength=len(sizes)) / CYCLE_ROWS
        assert abs(realised - normalize(weights)).max() < 3 * len(sizes) / CYCLE_ROWS
    pairs = set(zip(epochs.tolist(), sequences.tolist(), strict=True))
    assert len(pairs) == 2 * CYCLE_ROWS  # no sequence twice in an epoch of its store
    one, other = (streams.sequences(np.zeros(1, int), np.array([first + n])) for n in (0, 17))
    assert (one[1][0], other[1][0]) == (sequences[0], sequences[17])  # any row alone


def test_stores_of_any_kind_and_place_are_read_alike():
    """Rows of several dtypes, of a slice that is not aligned and of chunks: the tokens that were written."""
    numbers = np.arange(64)
    odd = np.frombuffer(b"\0" + numbers.astype("<u4").tobytes(), dtype="<u4", offset=1)
    arrays = [numbers.astype(np.uint16), numbers.astype(np.int32), numbers.astype(np.uint16) + 100, odd]
    groups = [Group(f"g{i}", [TokenStore(str(i), tokens)], 8) for i, tokens in enumerate(arrays)]
    loader = MixtureLoader(groups, Ledger([LedgerEntry(0, 0, np.full(4, 0.25), "train", 0)]), 8, 8)
    loader.start_phase(7)  # 7 sequences each
    found = {group: set() for group in range(4)}
    for _, (inputs, labels) in zip(range(7), loader, strict=False):
        assert (inputs["input"][:, 1:] == labels[:, :-1]).all()
        for group, tokens in zip(inputs["group"].tolist(), inputs["input"], strict=True):
            assert tokens.tolist() == list(range(int(tokens[0]), int(tokens[0]) + 8))
            found[group].add(int(tokens[0]))
    assert found == {
        0: {*range(0, 56, 8)},
        1: {*range(0, 56, 8)},
        2: {*range(100, 156, 8)},
        3: {*range(0, 56, 8)},
    }


def test_a_group_may_have_proportion_zero():
    ledger = [(np.array([0.0, 0.5, 0.5, 0.0]), 3), (np.array([0.25, 0.25, 0.25, 0.25]), 2)]
    rows, _ = train(ledger)
    assert {group for step, _, group, _ in rows if step < 3} == {1, 2}
    assert {group for step, _, group, _ in rows if step >= 3} == {0, 1, 2, 3}
