"""Rows to groups: exact counts, every sequence once per epoch, the same in any blocks and batch sizes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.mixtures import LEDGERS, SIZES
from titan_aioli.data.schedule import Position, Schedule


def make_schedule(sizes=(5, 9), batch_size=4, seed=1):
    return Schedule([f"g{i}" for i in range(len(sizes))], sizes, batch_size, seed)


def test_every_sequence_is_drawn_once_an_epoch():
    schedule = make_schedule(sizes=(5, 20))
    block = schedule.plan(Position.start(2), np.array([0.5, 0.5]), 10)
    first = block.groups == 0  # 20 rows of a group of 5 sequences: four epochs
    for epoch in range(4):
        assert sorted(block.sequences[first & (block.epochs == epoch)]) == [0, 1, 2, 3, 4]


def test_epochs_come_in_order_and_differ():
    schedule = make_schedule(sizes=(50,), batch_size=50)
    block = schedule.plan(Position.start(1), np.ones(1), 2)
    assert block.epochs.tolist() == [[0] * 50, [1] * 50]
    assert block.sequences[0].tolist() != block.sequences[1].tolist()


@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_any_division_into_blocks_gives_the_same_rows(cuts, seed):
    proportions = np.array([0.6, 0.1, 0.3])
    schedule = make_schedule(sizes=(5, 9, 30), batch_size=7, seed=seed)
    whole = schedule.plan(Position.start(3), proportions, sum(cuts))
    position, parts = Position.start(3), []
    for num_steps in cuts:
        parts.append(schedule.plan(position, proportions, num_steps))
        position = parts[-1].position_after(num_steps - 1)
    for name in ("groups", "epochs", "sequences"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    end = whole.position_after(sum(cuts) - 1)
    assert (position.step, position.first_row) == (end.step, end.first_row)
    np.testing.assert_array_equal(position.drawn, end.drawn)
    np.testing.assert_array_equal(position.carry, end.carry)
    inside = whole.position_after(cuts[0] - 1)
    np.testing.assert_array_equal(inside.drawn, parts[0].position_after(cuts[0] - 1).drawn)
    np.testing.assert_array_equal(inside.carry, parts[0].carry)


def test_upcoming_are_the_next_rows_of_a_group_whatever_its_share():
    schedule, proportions = make_schedule(sizes=(5, 9)), np.array([0.3, 0.7])
    position = schedule.skip(Position.start(2), proportions, 4)
    alone = schedule.plan(position._replace(carry=np.zeros(2)), np.array([1.0, 0.0]), 3)
    upcoming = schedule.upcoming(position, 0, 12)
    np.testing.assert_array_equal(np.sort(upcoming[:4]), np.sort(alone.sequences[0]))
    np.testing.assert_array_equal(np.sort(upcoming[4:8]), np.sort(alone.sequences[1]))
    assert position.drawn[0] + 12 > 2 * 5  # into the next epoch


def test_skipping_arrives_where_planning_does():
    schedule, proportions = make_schedule(), np.array([0.3, 0.7])
    planned = schedule.plan(Position.start(2), proportions, 13).position_after(12)
    skipped = schedule.skip(Position.start(2), proportions, 13)
    assert skipped.step == planned.step
    np.testing.assert_array_equal(skipped.drawn, planned.drawn)
    np.testing.assert_array_equal(skipped.carry, planned.carry)


def test_rows_of_a_group_do_not_depend_on_the_mixture():
    """The same seed gives every method the same order of sequences in each group."""
    schedule = make_schedule(sizes=(500, 500))
    few = schedule.plan(Position.start(2), np.array([0.25, 0.75]), 20)
    many = schedule.plan(Position.start(2), np.array([0.75, 0.25]), 20)
    first_20 = set(few.sequences[few.groups == 0].tolist())  # 20 steps of one row
    first_21 = set(many.sequences[:7][many.groups[:7] == 0].tolist())  # 7 steps of three rows
    assert len(first_20) == 20 and len(first_21) == 21 and first_20 < first_21


def test_a_groups_order_follows_its_name_not_its_place():
    one = Schedule(["a", "b"], [100, 100], 10, 0).plan(Position.start(2), np.array([1.0, 0.0]), 2)
    other = Schedule(["b", "a"], [100, 100], 10, 0).plan(Position.start(2), np.array([0.0, 1.0]), 2)
    np.testing.assert_array_equal(one.sequences, other.sequences)


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


def test_a_group_that_was_over_its_limit_before_does_not_end_a_block_that_draws_nothing_of_it():
    """As after a resume with a lower limit, once the group's share is 0."""
    schedule, start = make_schedule(), Position(10, 40, np.zeros(2), np.array([30, 10]))
    for proportions, num_steps, over in (([0.0, 1.0], 5, []), ([0.5, 0.5], 0, [0]), ([0.0, 1.0], 2, [1])):
        limits = np.array([20, 1000 if over != [1] else 20])
        block, groups = schedule.plan(start, np.array(proportions), 5).within(limits)
        assert (block.num_steps, groups.tolist()) == (num_steps, over)
