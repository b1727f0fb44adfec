"""`titan-aioli convert-checkpoint`: the newest checkpoint of a run, from torchtitan 0.2.2 to 0.3."""

from pathlib import Path
from typing import Annotated

import tyro

from titan_aioli.errors import UserError


def convert_checkpoint(
    config: Annotated[Path, tyro.conf.Positional],
    *,
    flags: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Make the newest checkpoint of a run one of torchtitan 0.3, where 0.2.2 has written it.

    Llama 3 only. Run it with torchtitan 0.3; the run's own command then continues from there. The old
    checkpoint is kept, in a folder of its own beside the others. Needs memory for the whole checkpoint.
    Further flags are those of training:

        titan-aioli convert-checkpoint my_run.toml --job.dump_folder outputs/my_run

    Args:
        config: TOML file of the run, as for --job.config_file.
    """
    from titan_aioli.hosts.installed import VERSION

    if VERSION < (0, 3):
        raise UserError("convert-checkpoint runs with torchtitan 0.3, and an older one is installed")
    from titan_aioli.hosts.titan03.convert import convert_newest

    converted, kept = convert_newest(["--job.config_file", str(config), *flags])
    print(f"{converted} is converted; the old one is kept as {kept}")
