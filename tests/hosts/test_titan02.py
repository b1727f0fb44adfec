"""torchtitan's host, as far as it can be seen without ranks; tests/ranks has the rest."""

import pytest

from titan_aioli.hosts.titan02 import spec
from titan_aioli.hosts.titan02.job import check_config, load_config
from titan_aioli.testing.torchrun import TINY


def arguments(stores):
    return ["--job.config_file", str(TINY), "--mixing.stores", str(stores)]


def test_stores_are_opened_and_the_method_is_built_once_per_run(stores, monkeypatch):
    checked = check_config(arguments(stores), 2)
    monkeypatch.setattr(spec, "build_mixture", lambda *args: pytest.fail("opened again"))
    assert spec.open_mixture(checked.config) is checked.mixture


def test_another_config_is_opened_for_itself(stores):
    first, second = (load_config(arguments(stores)) for _ in range(2))
    assert spec.open_mixture(first) is not spec.open_mixture(second)


def test_a_batch_without_a_global_size_is_a_micro_batch_of_every_rank(stores):
    training = load_config(arguments(stores)).training
    assert spec.global_batch_size(training, 2) == 8
    training.global_batch_size = -1
    assert spec.global_batch_size(training, 3) == 3 * training.local_batch_size
