"""A training run of one process, as the studies make them: its config, its log, its results in one folder."""

import sys
from pathlib import Path

from titan_aioli.errors import UserError
from titan_aioli.testing.torchrun import rank_environment, start

ROOT = Path(__file__).resolve().parents[2]
TORCHTITAN = "titan_aioli.train"


def train_one_rank(folder: Path, config: str, module: str = TORCHTITAN) -> None:
    """Train a config in its folder, unless it holds this very run, finished.

    Args:
        folder: of the run.
        config: text of its TOML file.
        module: what the rank executes, as `python -m` would; it takes the flags of titan_aioli.train.
    Raises:
        UserError: the folder holds a finished run of another config.
        RuntimeError: the run failed; its log is named.
    """
    path = folder / "config.toml"
    if (folder / "results.json").is_file():
        if path.read_text() != config:
            raise UserError(f"{folder} holds a run of another config: choose another --output, or remove it")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(config)
    words = [sys.executable, "-m", module, "--job.config_file", str(path)]
    words += ["--job.dump_folder", str(folder), "--checkpoint.no-enable"]
    if start(words, folder / "log.txt", ROOT, **rank_environment()).wait():
        raise RuntimeError(f"{folder} failed, see {folder / 'log.txt'}")
