"""torchtitan 0.2.2 as the host."""

import titan_aioli.hosts.titan  # noqa: F401  before the first import of torchtitan
