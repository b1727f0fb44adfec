"""torchtitan 0.3 as the host; it needs Python 3.11 and torch 2.14."""

import torch

import titan_aioli.hosts.titan  # noqa: F401  before the first import of torchtitan
from titan_aioli.errors import UserError

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 14):
    raise UserError(
        f"torchtitan 0.3 needs torch 2.14 or newer, and torch {torch.__version__} is installed: install a "
        "newer torch, or 'torchtitan<0.3'"
    )
