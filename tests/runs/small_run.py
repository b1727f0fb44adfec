"""The folder of a small run, written by hand."""

import json

GROUPS = ["law", "code"]


def write_run(folder, method="aioli", results=True, steps=6):
    """Six steps of 4 rows: LearnParams on law, then on code, then training."""
    folder.mkdir(parents=True)
    mixture = {"method": method, "groups": GROUPS, "seed": 0, "batch_size": 4, "seq_len": 4}
    mixture.update(num_sequences=[10, 20], stores={"law": ["x"], "code": ["y"]})
    (folder / "mixture.json").write_text(json.dumps(mixture))
    matrix = [[0.4, 0.1], [0.2, 0.3]]
    records = [
        {"step": 0, "proportions": [0.5, 0.5], "phase": "measure", "observation": None},
        {"step": 0, "proportions": [0.75, 0.25], "phase": "learn_params", "observation": [4.0, 3.0]},
        {"step": 1, "proportions": [0.25, 0.75], "phase": "learn_params", "observation": [3.9, 2.9]},
        {
            "step": 2,
            "proportions": [0.6, 0.4],
            "phase": "train",
            "normalized_A": matrix,
            "observation": [3.8, 2.8],
        },
    ]
    with open(folder / "ledger.jsonl", "w") as file:
        for record in records:
            file.write(json.dumps({"first_row": record["step"] * 4, "round": 0, **record}) + "\n")
    (folder / "losses.jsonl").write_text('{"step": 2, "validation_loss": [3.8, 2.8]}\n')
    if results:
        losses = {"validation_loss": [3.5, 2.5], "validation_loss_mean": 3.0}
        losses.update(test_loss=[3.6, 2.4], test_loss_mean=3.0)
        (folder / "results.json").write_text(json.dumps({"step": steps, "method": method, **losses}))
    return folder
