"""Per-group losses: torchtitan's loss bit for bit, and two processes equal to one."""

import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from titan_aioli.measure.losses import (
    IGNORE_INDEX,
    GroupStats,
    RowLoss,
    cross_entropy_by_row,
    row_sums,
    with_row_numbers,
)
from titan_aioli.testing.torchrun import free_port

CPU = torch.device("cpu")


def batch(num_rows=6, seq_len=16, vocab_size=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((num_rows, seq_len, vocab_size), generator=generator) * 3
    labels = torch.randint(0, vocab_size, (num_rows, seq_len), generator=generator)
    labels[0, :5] = IGNORE_INDEX
    return logits, labels, torch.tensor([0, 2, 2, 0, 1, 2])[:num_rows]


def plain(logits, labels):
    flat = labels.flatten(0, 1)
    return F.cross_entropy(logits.flatten(0, 1).float(), flat, reduction="sum", ignore_index=IGNORE_INDEX)


def stats_of(logits, labels, group, num_groups=3):
    loss, stats = RowLoss(plain), GroupStats(num_groups, CPU, is_reporter=True)
    loss.expect(len(labels), CPU)
    loss(logits, with_row_numbers(labels))
    stats.add(loss.rows().sums_2B, group)
    return stats


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_torchtitans_bit_for_bit(dtype):
    logits, labels, _ = batch()
    ours, theirs = (logits.to(dtype).clone().requires_grad_() for _ in range(2))
    loss, *_ = cross_entropy_by_row(ours, labels)
    reference = plain(theirs, labels)
    loss.backward()
    reference.backward()
    assert torch.equal(loss, reference)
    assert torch.equal(ours.grad, theirs.grad)


def test_means_by_hand():
    logits = torch.zeros((3, 2, 4))  # every token costs ln 4
    logits[1, :, 3] = 100.0  # certain of token 3
    labels = torch.tensor([[0, 1], [3, 3], [2, IGNORE_INDEX]])
    means = stats_of(logits, labels, torch.tensor([0, 1, 0]), num_groups=3).means()
    assert means[:2] == pytest.approx([np.log(4), 0.0])
    assert np.isnan(means[2])  # a group without tokens has no loss


def test_rows_written_twice_count_once():
    """Pipeline schedules call the loss once more on garbage; the real call overwrites it."""
    logits, labels, group = batch()
    loss, stats = RowLoss(plain), GroupStats(3, CPU, is_reporter=True)
    loss.expect(len(labels), CPU)
    loss(logits * float("nan"), with_row_numbers(labels))
    for half in (slice(3, 6), slice(0, 3)):  # micro-batches in any order
        loss(logits[half], with_row_numbers(labels)[half])
    stats.add(loss.rows().sums_2B, group)
    assert torch.equal(stats.sums_2G, stats_of(logits, labels, group).sums_2G)


def test_rows_in_pieces_of_the_sequence_are_the_rows_in_one():
    """Losses in chunks call once for each piece; a first round on garbage is void."""
    logits, labels, _ = batch()
    whole, cut = RowLoss(plain), RowLoss(plain)
    for loss in (whole, cut):
        loss.keep_tokens = True
        loss.expect(len(labels), CPU)
    total = whole(logits, with_row_numbers(labels))
    for factor in (float("nan"), 1.0):
        with cut.in_pieces(with_row_numbers(labels)) as labels_BS:
            both = zip(logits.split(4, dim=1), labels_BS.split(4, dim=1), strict=True)
            pieces = [cut(logits_BSV * factor, part_BS) for logits_BSV, part_BS in both]
    torch.testing.assert_close(sum(pieces), total)
    torch.testing.assert_close(cut.rows().sums_2B, whole.rows().sums_2B)
    assert torch.equal(cut.rows().tokens_BS, whole.rows().tokens_BS)


def test_a_nan_stays_in_its_group():
    logits, labels, group = batch()
    logits[4] = float("nan")  # the only row of group 1
    means = stats_of(logits, labels, group).means()
    assert np.isinf(means).tolist() == [False, True, False]


def test_padding_rows_count_nowhere():
    logits, labels, group = batch()
    stats = stats_of(logits, labels, torch.where(group == 2, -1, group))
    assert stats.sums_2G[1].tolist() == [11 + 16, 16, 0]


def test_a_rank_that_does_not_report_adds_nothing():
    stats = GroupStats(2, CPU, is_reporter=False)
    stats.sums_2G += 5.0
    assert np.isnan(stats.means()).all()


def _two_ranks(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo")
    logits, labels, group = batch()
    half = slice(3 * rank, 3 * rank + 3)
    stats = stats_of(logits[half], labels[half], group[half])
    reduced = stats.reduced()
    collapsed = stats.collapse(is_holder=rank == 0)
    torch.save((reduced, torch.from_numpy(collapsed), stats.reduced()), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    mp.spawn(_two_ranks, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)  # bit for bit on the ranks
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    joined = stats_of(*batch()).sums_2G
    assert torch.allclose(first[0], joined, rtol=1e-14)


def test_the_order_of_the_additions_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.rand((400, 64), generator=generator) ** 8 * 12  # from 1e-9 to 12 nats
    sums = row_sums(tokens)
    assert (sums - tokens.double().sum(1)).abs().max() <= 2.0**-21
    orders = [torch.randperm(400, generator=generator) for _ in range(20)]

    def totals(rows):  # one addition after the other: sum() corrects its rounding since Python 3.12
        return {rows[order].cumsum(0)[-1].item() for order in orders}

    assert len(totals(sums)) == 1
    assert len(totals(tokens.double().sum(1))) > 1  # without rounding
    unusual = row_sums(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]]))
    assert unusual.isnan().tolist() == [True, False] and unusual[1] == float("inf")
