"""The config of a small run, as the studies train it: everything but what it is trained on."""

from pathlib import Path
from typing import Any


def small_config(
    output: Path, steps: int, batch_size: int, seq_len: int, learning_rate: float, log_freq: int, seed: int
) -> dict[str, Any]:
    """Tables of a TOML, without `[mixing]`: one process, 0.7M parameters, a tenth of warm-up, then a cosine.

    Args:
        output: folder with the tokenizer.
        steps: optimizer steps.
        batch_size: sequences of a step.
        seq_len: tokens of a sequence.
        learning_rate: its peak.
        log_freq: steps between two lines of the log.
        seed: of the initial weights.
    """
    return {
        "model": {
            "name": "llama3",
            "flavor": "mixing_small",
            "hf_assets_path": str(output / "tokenizer"),
        },
        "optimizer": {"lr": learning_rate, "implementation": "foreach"},
        "lr_scheduler": {"warmup_steps": steps // 10, "decay_type": "cosine", "min_lr_factor": 0.1},
        "training": {
            "local_batch_size": batch_size,
            "seq_len": seq_len,
            "steps": steps,
            "mixed_precision_param": "float32",
        },
        "metrics": {"log_freq": log_freq},
        "activation_checkpoint": {"mode": "none"},
        "debug": {"seed": seed},
    }
