"""Stands in for a training run of a sweep: leaves the files of one, its losses 2 - share of each group,
and those of targets 4, 5, ... times 1 - share of group a / 4.

python toy_run.py CONFIG.toml     fails where a file `fail` lies beside the config
"""

import json
import os
import sys
import time
from pathlib import Path

from titan_aioli.files import read_toml


def objective(targets, table):
    """As a run describes it; one nat is 2 bits per byte of the first target, 1 of the others."""
    scales = [2.0] + [1.0] * (len(targets) - 1)
    return {
        "weights": [target.get("weight", 1.0) for target in targets.values()],
        "scales": scales if table.get("unit") == "bits_per_byte" else None,
        "tolerances": [0.0 if target.get("role") == "guard" else None for target in targets.values()],
        "relative": table.get("unit") == "relative",
        "unit": table.get("unit", "nats"),
    }


def main(path):
    config = read_toml(path)
    folder = Path(config["job"]["dump_folder"])
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    print("[titan] step:  3  loss: 7.1")
    if (folder / "fail").exists():
        print("titan_aioli: error: no token store at nowhere [rank 0]")
        return 1
    groups = {name: group["weight"] for name, group in config["mixing"]["groups"].items()}
    losses = [2.0 - share for share in groups.values()]
    files = {
        "mixture.json": {"method": config["mixing"]["method"], "groups": list(groups)},
        "ledger.jsonl": {
            "step": 0,
            "first_row": 0,
            "proportions": [*groups.values()],
            "phase": "train",
            "round": 0,
        },
        "losses.jsonl": {"step": 0, "validation_loss": [2.0] * len(groups)},
        "results.json": {"step": 3, "validation_loss": losses, "test_loss": [1.0 + x for x in losses]},
    }
    if targets := config["mixing"].get("targets", {}):
        files["mixture.json"]["targets"] = list(targets)
        files["mixture.json"]["objective"] = objective(targets, config["mixing"].get("objective", {}))
        files["losses.jsonl"]["target_loss"] = [k + 4.0 for k in range(len(targets))]
        files["results.json"]["target_validation_loss"] = [
            (k + 4.0) * (1 - groups["a"] / 4) for k in range(len(targets))
        ]
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content) + "\n")
    with open(folder / "starts", "a") as file:
        file.write("x")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
