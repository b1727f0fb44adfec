"""Any ledger, limits and ranks: every row once, each as the ledger asks, none beyond a limit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.mixtures import LEDGERS, SIZES
from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.testing.stores import numbered_group


def train(ledger, batch_size=8, num_ranks=1, local_batch_size=1, resumes=(), limits=None, read_ahead=0):
    """Every rank's rows of a whole run: (step, row in the step, group, first token) in training order.

    Where a step is in `resumes`, a new loader continues from the state that the old one saved.
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


def test_a_group_may_have_proportion_zero():
    ledger = [(np.array([0.0, 0.5, 0.5, 0.0]), 3), (np.array([0.25, 0.25, 0.25, 0.25]), 2)]
    rows, _ = train(ledger)
    assert {group for step, _, group, _ in rows if step < 3} == {1, 2}
    assert {group for step, _, group, _ in rows if step >= 3} == {0, 1, 2, 3}
