"""What tests of the controller, and of checkpoints it refuses, start from."""

from titan_aioli.control.controller import MixtureController
from titan_aioli.control.ledger import Ledger
from titan_aioli.control.ledger_file import LedgerFile
from titan_aioli.control.resume import Identity
from titan_aioli.methods import build_method

AIOLI = {"num_sweeps": 1, "steps_per_mixture": 2, "steps_per_round": 10, "seed": 3}


def make_controller(
    folder,
    name="aioli",
    groups=("a", "b", "c"),
    batch_size=8,
    stores="s",
    limits="",
    adapt=False,
    seed=0,
    seq_len=4,
    method=None,
    targets=None,
    split="",
    mixture="",
    held_out="",
    group_stores=(),
):
    """A controller that has not begun; its ledger file is in the folder. `method` replaces the named one."""
    num_targets = None if targets is None else len(targets)
    method = method or build_method(name, len(groups), num_targets, **(AIOLI if name == "aioli" else {}))
    file = LedgerFile(folder / "ledger.jsonl", is_writer=True)
    given = (name, groups, stores, limits, seed, seq_len, targets, split, mixture, held_out, group_stores)
    identity = Identity(*given)
    return MixtureController(method, identity, batch_size, Ledger(), file, adapt)
