"""Which folder may import which: the contracts of pyproject.toml ([tool.importlinter])."""

import subprocess
import sys
from pathlib import Path


def test_the_import_contracts_are_kept():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
