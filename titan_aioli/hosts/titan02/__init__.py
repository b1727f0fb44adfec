"""torchtitan 0.2.2 as the host: the only folder that imports torchtitan.

`enable_cpu()` must run before the first import of torchtitan, so it runs here, before the folder's modules.
"""

from titan_aioli.hosts.titan02.cpu import enable_cpu

enable_cpu()
