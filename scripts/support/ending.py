"""How a script ends that is given something wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

from titan_aioli.errors import UserError


def run_script(main: Callable[[], None]) -> None:
    """Call `main`; what its user or the machine did wrong is one line, and exit status 1."""
    try:
        main()
    except (UserError, OSError, RuntimeError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: error: {error}")
