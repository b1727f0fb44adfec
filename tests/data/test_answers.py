"""Prompts and answers as a target: only the answers count, and rows are filled up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from titan_aioli.data.answers import Answers
from titan_aioli.data.targets import Targets
from titan_aioli.errors import UserError
from titan_aioli.hosts.plain import PlainHost
from titan_aioli.hosts.plain.model import Transformer
from titan_aioli.measure.evaluate import read_rows
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.losses import IGNORE_INDEX
from titan_aioli.stores.tokens import TokenStore
from titan_aioli.testing.stores import numbered_group


def store_of(*pairs):
    """A store in memory of (prompt, answer) pairs."""
    documents = [[*prompt, *answer] for prompt, answer in pairs]
    offsets = np.cumsum([0, *map(len, documents)])
    prompts = np.array([len(prompt) for prompt, _ in pairs])
    return TokenStore(
        "qa",
        np.array([token for document in documents for token in document], np.int32),
        offsets,
        {},
        prompts,
    )


def rows_of(answers, count):
    _, labels, _ = read_rows([answers], [(0, k) for k in range(count)], count)
    return [[int(x) for x in row if x != IGNORE_INDEX] for row in labels]


def test_only_the_answers_count():
    answers = Answers("qa", [store_of(([5, 6], [7, 0]), ([1, 2, 3], [4, 9, 0]))], seq_len=6)
    inputs, labels, groups = read_rows([answers], [(0, 0), (0, 1)], 3)
    assert inputs[0].tolist() == [5, 6, 7, 0, 0, 0]
    assert labels[0].tolist() == [IGNORE_INDEX, 7, 0, *[IGNORE_INDEX] * 3]
    assert labels[1].tolist() == [IGNORE_INDEX, IGNORE_INDEX, 4, 9, 0, IGNORE_INDEX]
    assert (labels[2] == IGNORE_INDEX).all() and groups.tolist() == [0, 0, -1]
    assert (answers.num_sequences, answers.num_tokens) == (2, 5)


def test_a_long_prompt_loses_its_beginning_and_an_answer_needs_one_token_before_it():
    answers = Answers("qa", [store_of(([1, 2, 3, 4, 5], [6, 7, 0]), ([], [8, 9, 0]))], seq_len=4)
    inputs, _, _ = read_rows([answers], [(0, 0), (0, 1)], 2)
    assert inputs[0].tolist() == [4, 5, 6, 7]
    assert rows_of(answers, 2) == [[6, 7, 0], [9, 0]]


def test_documents_of_several_stores_are_numbered_on():
    answers = Answers("qa", [store_of(([1], [2])), store_of(([3], [4]), ([5], [6]))], seq_len=3)
    assert rows_of(answers, 3) == [[2], [4], [6]]


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match=r"document 1 of qa has an answer of 4 tokens, and a row has 3"):
        Answers("qa", [store_of(([1], [2]), ([1], [2, 3, 4, 0]))], seq_len=3)
    with pytest.raises(ValueError, match=r"document 0 of qa has an answer of 0 tokens: leave such"):
        Answers("qa", [store_of(([], [2]))], seq_len=3)
    with pytest.raises(ValueError, match="has no document"):
        Answers("qa", [store_of()], seq_len=3)
    with pytest.raises(UserError, match="document 0 of qa holds the token 70"):
        Answers("qa", [store_of(([1], [70]))], seq_len=3, vocab_size=50).read(0, np.zeros(4, np.int64))


def test_the_loss_is_that_of_the_answers_tokens():
    torch.manual_seed(0)
    model = Transformer(64, 4, dim=8, num_layers=1, heads=2)
    host = PlainHost(model, 2, torch.device("cpu"))
    answers = Answers("qa", [store_of(([5, 6], [7, 0]), ([1], [4, 9, 0]), ([2, 3, 4, 5], [6]))], seq_len=4)
    group = numbered_group("a", 0, 5)
    held_out = HeldOut(host, [group], [], 8, 8, lambda *_: None, Targets(["qa"], [answers], []))
    sums = []
    for document, first in (([5, 6, 7, 0], 2), ([1, 4, 9, 0], 1), ([2, 3, 4, 5, 6], 4)):
        logits = model(torch.tensor([[*document[:-1], *[0] * (5 - len(document))]]))[0, : len(document) - 1]
        losses = F.cross_entropy(logits, torch.tensor(document[1:]), reduction="none")
        sums.extend(losses[first - 1 :].tolist())
    np.testing.assert_allclose(held_out.sample(0), [np.mean(sums)], rtol=1e-5)
