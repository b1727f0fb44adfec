"""Every test of this folder starts real ranks: one worker of pytest-xdist runs them all, one by one."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """Called with the items of every folder, so those of this one are picked out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("ranks"))
