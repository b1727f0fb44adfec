"""What several test files start from."""

import pytest
from hypothesis import settings

from titan_aioli.testing.stores import write_stores

settings.register_profile("same", derandomize=True)  # the same examples on every machine
settings.load_profile("same")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with the toy token stores of three groups."""
    return write_stores(tmp_path_factory.mktemp("stores"))
