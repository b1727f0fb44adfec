"""The loader: restored before any step it gives the same rest; ranks share rows; phases bound reading."""

import time

import numpy as np
import pytest
import torch

import titan_aioli.data.loader as loading
from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.data.loader import MixtureLoader
from titan_aioli.testing.stores import numbered_group

PHASES = ((0, [0.5, 0.5]), (3, [0.1, 0.9]), (4, [0.8, 0.2]), (10, [0.25, 0.75]))
END = 14
BATCH_SIZE = 4


def make_loader(rank=0, num_ranks=1, local_batch_size=BATCH_SIZE, read_ahead=2, on_step=None):
    """Two groups of 7 and 11 sequences: both are read through more than once in 14 steps of 4 rows."""
    groups = [numbered_group("a", 0, 7), numbered_group("b", 1000, 11)]
    return MixtureLoader(
        groups,
        Ledger(),
        BATCH_SIZE,
        local_batch_size,
        rank,
        num_ranks,
        read_ahead=read_ahead,
        on_step=on_step,
    )


def drain(loader):
    """The batches of the rest of the run, as (group ids, first tokens) of each micro-batch."""
    batches, iterator = [], iter(loader)
    starts = [start for start, _ in PHASES] + [END]
    for (start, proportions), end in zip(PHASES, starts[1:], strict=True):
        if loader.position.step >= end:
            continue
        if len(loader.ledger) == 0 or loader.ledger[-1].step < start:
            loader.ledger.append(LedgerEntry(start, start * BATCH_SIZE, np.array(proportions), "train", 0))
        loader.start_phase(end)
        while loader.position.step < end:
            inputs, labels = next(iterator)
            assert (inputs["input"][:, 1:] == labels[:, :-1]).all()
            batches.append((inputs["group"].tolist(), inputs["input"][:, 0].tolist(), loader.state_dict()))
    return batches


def ledger_until(step):
    entries = [LedgerEntry(s, s * BATCH_SIZE, np.array(p), "train", 0) for s, p in PHASES if s <= step]
    return Ledger(entries)


@pytest.mark.parametrize("read_ahead", [0, 3])
def test_restored_before_every_step_the_rest_is_the_same(read_ahead):
    whole = [rows for *rows, _ in drain(make_loader())]
    states = [state for *_, state in drain(make_loader())]
    for done in range(1, END):
        loader = make_loader(read_ahead=read_ahead)
        loader.load_state_dict(states[done - 1])
        loader.ledger.replace(ledger_until(done - 1))  # a phase's first entry is made after the save
        assert [rows for *rows, _ in drain(loader)] == whole[done:]


def test_the_state_is_equal_on_all_ranks_and_at_any_number_of_them():
    alone = drain(make_loader())
    first, second = (drain(make_loader(rank, 2, local_batch_size=2)) for rank in (0, 1))
    for one, a, b in zip(alone, first, second, strict=True):
        assert a[2] == b[2] == one[2]
        assert a[0] + b[0] == one[0] and a[1] + b[1] == one[1]


def test_a_group_that_was_left_out_for_a_while_continues():
    """No row of it is read again, although its groups changed twice."""

    def take(loader, steps):
        share = np.full(len(loader.groups), 1 / len(loader.groups))
        start = loader.position.step
        loader.ledger.append(LedgerEntry(start, loader.position.first_row, share, "train", 0))
        loader.start_phase(start + steps)
        return [row for batch in loader for row in batch[0]["input"][:, 0].tolist()]

    def of_groups(*names):
        sizes = {"a": (0, 70), "b": (1000, 110), "c": (2000, 90)}
        groups = [numbered_group(name, *sizes[name]) for name in names]
        return MixtureLoader(groups, Ledger(), BATCH_SIZE, BATCH_SIZE)

    rows, state = [], None
    for names in ("abc", "ab", "b", "cab"):
        loader = of_groups(*names)
        if state is not None:
            loader.load_state_dict(state)
        rows += take(loader, 6)
        state = loader.state_dict()
    assert len(set(rows)) == len(rows) == 4 * 6 * BATCH_SIZE


def test_gradient_accumulation_takes_the_same_rows():
    whole, accumulated = drain(make_loader()), drain(make_loader(local_batch_size=1))
    groups = [group for batch in accumulated for group in batch[0]]
    assert groups == [group for batch in whole for group in batch[0]]


def test_the_state_counts_whole_steps_that_training_took():
    loader = make_loader(local_batch_size=2, read_ahead=3)
    loader.ledger.append(LedgerEntry(0, 0, np.array([0.5, 0.5]), "train", 0))
    loader.start_phase(8)
    iterator = iter(loader)
    next(iterator)
    assert loader.position.step == 0  # half a step
    next(iterator)
    assert loader.position.step == 1 and loader.position.drawn.sum() == BATCH_SIZE


def test_no_row_is_read_beyond_the_phase():
    loader = make_loader(read_ahead=50)
    loader.ledger.append(LedgerEntry(0, 0, np.array([1.0, 0.0]), "train", 0))
    loader.start_phase(5)
    iterator = iter(loader)
    groups = [next(iterator)[0]["group"].tolist() for _ in range(5)]
    loader.ledger.append(LedgerEntry(5, 20, np.array([0.0, 1.0]), "train", 0))
    loader.start_phase(7)
    groups += [next(iterator)[0]["group"].tolist() for _ in range(2)]
    assert groups == [[0] * 4] * 5 + [[1] * 4] * 2


def test_the_next_block_is_planned_and_read_while_training_takes_this_one(monkeypatch):
    """Blocks of one step, as where a step has more rows than are planned at once."""
    monkeypatch.setattr(loading, "BLOCK_ROWS", BATCH_SIZE)
    loader = make_loader(read_ahead=4)
    loader.ledger.append(LedgerEntry(0, 0, np.array([0.5, 0.5]), "train", 0))
    loader.start_phase(10)
    iterator = iter(loader)
    next(iterator)
    limit = time.monotonic() + 20
    while loader._phase_reader._position.step < 4:
        assert time.monotonic() < limit, "nothing is read ahead"
        time.sleep(0.001)
    assert loader.position.step == 1
    rows = [[batch[0]["group"].tolist(), batch[0]["input"][:, 0].tolist()] for batch in iterator]
    assert rows == rows_in_one_block()[1:]


def rows_in_one_block():
    """The same ten steps, planned at once."""
    loader = make_loader(read_ahead=0)
    loader.ledger.append(LedgerEntry(0, 0, np.array([0.5, 0.5]), "train", 0))
    loader.start_phase(10)
    return [[batch[0]["group"].tolist(), batch[0]["input"][:, 0].tolist()] for batch in loader]


def test_the_audit_sees_every_row_once():
    rows = []
    drain(make_loader(on_step=lambda block, index: rows.append((block.step(index), block.groups[index]))))
    assert [step for step, _ in rows] == list(range(END))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"4 rows cannot be split over 3 .* multiple of 3"):
        make_loader(num_ranks=3, local_batch_size=1)


def test_a_group_shorter_than_a_sequence_is_refused():
    with pytest.raises(ValueError, match="group 'tiny' has no sequence"):
        numbered_group("tiny", 0, 0)


def test_pinned_batches_are_the_same_and_have_no_gaps(monkeypatch):
    plain = make_loader()
    expected = [rows for *rows, _ in drain(plain)]
    empty = torch.empty
    asked = []

    def without_a_gpu(*args, pin_memory=False, **kwargs):
        asked.append(pin_memory)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", without_a_gpu)
    loader = make_loader()
    loader.pin_memory = True
    assert [rows for *rows, _ in drain(loader)] == expected and all(asked) and asked
    loader.seek(plain.position)
    loader.start_phase(END + 1)
    inputs, labels = next(iter(loader))
    assert inputs["input"].is_contiguous() and labels.is_contiguous()
