"""The host of the torchtitan that is installed: everything outside `hosts` takes it from here."""

from functools import partial
from importlib.metadata import version

from titan_aioli.hosts.titan.checks import Checked
from titan_aioli.hosts.titan.launch import launch_with

VERSION = tuple(int(part) for part in version("torchtitan").split(".")[:2])
"""(major, minor) of torchtitan."""

if VERSION < (0, 3):
    from titan_aioli.hosts.titan02.host import Titan02Host as InstalledHost
    from titan_aioli.hosts.titan02.job import check_config, load_config
    from titan_aioli.hosts.titan02.mixing_trainer import MixingTrainer
    from titan_aioli.hosts.titan02.spec import flavors
else:
    from titan_aioli.hosts.titan03.flavors import flavors
    from titan_aioli.hosts.titan03.host import Titan03Host as InstalledHost
    from titan_aioli.hosts.titan03.job import check_config, load_config
    from titan_aioli.hosts.titan03.mixing_trainer import MixingTrainer

launch = partial(launch_with, check_config)
"""`launch_with` the installed torchtitan's config: (trainer class, arguments, doubtful) -> exit status."""

__all__ = [
    "VERSION",
    "Checked",
    "InstalledHost",
    "MixingTrainer",
    "check_config",
    "flavors",
    "launch",
    "load_config",
]
