"""An ordinary PyTorch training loop as the host: the way into other trainers.

`host.py` is all that measuring needs of a trainer, `loop.py` is a training loop with the session's calls in
it, and `python -m titan_aioli.hosts.plain CONFIG.toml` trains a small model with both. To mix data in a loop
of your own, copy the lines of `loop.train` that name the session.
"""

from titan_aioli.hosts.plain.host import PlainHost
from titan_aioli.hosts.plain.loop import train

__all__ = ["PlainHost", "train"]
