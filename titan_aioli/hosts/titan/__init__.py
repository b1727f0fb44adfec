"""What the hosts of torchtitan share, whatever its version.

`enable_cpu()` must run before the first import of torchtitan, so it runs here, before the folder's modules.
"""

from titan_aioli.hosts.titan.cpu import enable_cpu

enable_cpu()
