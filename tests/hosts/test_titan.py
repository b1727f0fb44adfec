"""torchtitan's host, as far as it can be seen without ranks; tests/ranks has the rest."""

import pytest

from titan_aioli.hosts.installed import check_config, load_config
from titan_aioli.hosts.titan import checks, opened
from titan_aioli.testing.torchrun import TINY


def arguments(stores):
    return ["--job.config_file", str(TINY), "--mixing.stores", str(stores)]


def test_stores_are_opened_and_the_method_is_built_once_per_run(stores, monkeypatch):
    checked = check_config(arguments(stores), 2)
    monkeypatch.setattr(opened, "build_mixture", lambda *args: pytest.fail("opened again"))
    assert opened.open_mixture(checked.config, None, {}) is checked.mixture


def test_another_config_is_opened_for_itself(stores):
    first, second = (check_config(arguments(stores), 2) for _ in range(2))
    assert first.mixture is not second.mixture


def test_a_batch_without_a_global_size_is_a_micro_batch_of_every_rank(stores):
    training = load_config(arguments(stores)).training
    assert checks.global_batch_size(training, 2) == 8
    training.global_batch_size = -1
    assert checks.global_batch_size(training, 3) == 3 * training.local_batch_size
