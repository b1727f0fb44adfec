"""A training run of one process, as the studies make them: its config, its log, its results in one folder."""

import sys
from pathlib import Path

from titan_aioli.testing.torchrun import rank_environment, start

ROOT = Path(__file__).resolve().parents[2]


def train_one_rank(folder: Path, config: str) -> None:
    """Train a config in its folder, unless it holds a finished run already.

    Raises: RuntimeError: the run failed; its log is named.
    """
    if (folder / "results.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config)
    words = [sys.executable, "-m", "titan_aioli.train", "--job.config_file", str(folder / "config.toml")]
    words += ["--job.dump_folder", str(folder), "--checkpoint.no-enable"]
    if start(words, folder / "log.txt", ROOT, **rank_environment()).wait():
        raise RuntimeError(f"{folder} failed, see {folder / 'log.txt'}")
