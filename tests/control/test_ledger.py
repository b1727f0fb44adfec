"""The ledger and its file: what was appended is read back, and a resume cuts the file back."""

from pathlib import Path

import numpy as np
import pytest

from titan_aioli.control.ledger import Ledger, LedgerEntry
from titan_aioli.control.ledger_file import LedgerFile, read_ledger_file

HALF = np.array([0.5, 0.5])


def entry(step, proportions=HALF, phase="train"):
    return LedgerEntry(step, step * 8, np.asarray(proportions), phase, 0)


def test_a_step_is_decided_by_the_last_entry_at_or_before_it():
    ledger = Ledger([entry(0), entry(4, [1.0, 0.0])])
    assert [ledger.at_step(step).proportions[0] for step in (0, 3, 4, 99)] == [0.5, 0.5, 1.0, 1.0]


def test_of_two_entries_at_one_step_the_later_decides():
    ledger = Ledger([entry(0, phase="measure"), entry(0, [0.1, 0.9], "learn_params")])
    assert ledger.at_step(0).phase == "learn_params"


def test_a_step_before_the_first_entry_has_no_proportions():
    with pytest.raises(ValueError, match="no entry for step 2; it starts at step 5"):
        Ledger([entry(5)]).at_step(2)


def test_of_a_long_ledger_few_entries_are_looked_at():
    compared = []

    class Step(int):
        def __gt__(self, other):
            compared.append(other)
            return int(self) > int(other)

        def __le__(self, other):
            return not self > other

    ledger = Ledger([entry(Step(step)) for step in range(0, 8000, 2)])
    assert ledger.at_step(2001).step == 2000 and ledger.batch_size_at(2001) == 8
    assert ledger.after_step(2000).step == 2002 and ledger.after_step(7998) is None
    assert 0 < len(compared) < 100


def test_arrays_give_the_same_ledger_back():
    ledger = Ledger([entry(0, [0.1, 0.9]), entry(3, [1 / 3, 2 / 3], "learn_params")])
    assert Ledger.from_arrays(ledger.to_arrays()).digest() == ledger.digest()


def test_one_bit_changes_the_digest():
    bent = np.nextafter(HALF, 1)
    assert Ledger([entry(0)]).digest() != Ledger([entry(0, bent)]).digest()


def test_a_rewound_file_equals_one_never_written_further(tmp_path):
    file, ledger = LedgerFile(tmp_path / "ledger.jsonl", is_writer=True), Ledger([entry(0)])
    file.append({**entry(0)._asdict(), "observation": None})
    kept, before = file.num_bytes, file.path.read_bytes()
    file.append({**entry(4)._asdict(), "observation": np.array([1.5, 2.5])})
    assert len(read_ledger_file(file.path)) == 2
    file.rewind(kept, ledger, {})
    assert file.path.read_bytes() == before


def test_a_lost_file_is_written_again_from_the_ledger(tmp_path):
    file, ledger = LedgerFile(tmp_path / "ledger.jsonl", is_writer=True), Ledger([entry(0), entry(4)])
    file.rewind(1000, ledger, {})
    records = read_ledger_file(file.path)
    assert [(record["step"], record["observation"]) for record in records] == [(0, None), (4, None)]


@pytest.mark.parametrize("num_entries", [1, 60_000 // 100])
def test_a_file_of_another_run_is_written_again(tmp_path, num_entries):
    """It may be longer: another mixture was begun in the folder, and then an older checkpoint resumed."""
    file = LedgerFile(tmp_path / "ledger.jsonl", is_writer=True)
    ledger = Ledger([entry(step) for step in range(num_entries)])
    for each in ledger:
        file.append({**each._asdict(), "observation": [0.5] * 20})
    kept = file.num_bytes
    other = LedgerFile(file.path, is_writer=True)
    for step in range(num_entries + 1):
        other.append({**entry(step, [0.25, 0.75])._asdict(), "observation": [0.25] * 20, "note": "another"})
    file.rewind(kept, ledger, {})
    assert file.path.stat().st_size == kept
    records = read_ledger_file(file.path)
    assert [record["proportions"] for record in records] == [HALF.tolist()] * num_entries


def test_a_full_disk_is_an_error_that_names_the_file():
    """/dev/full is a file on a disk that is always full."""
    file = LedgerFile(Path("/dev/full"), is_writer=True)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        file.append({**entry(0)._asdict(), "observation": None})


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(ValueError, match="line 1: not a ledger record"):
        read_ledger_file(tmp_path / "ledger.jsonl")


def test_lines_out_of_order_are_refused(tmp_path):
    file = LedgerFile(tmp_path / "ledger.jsonl", is_writer=True)
    for step in (0, 4, 2):
        file.append({**entry(step)._asdict(), "observation": None})
    with pytest.raises(ValueError, match="line 3: step is 2, in the line before it is 4: lines must be in"):
        read_ledger_file(file.path)


def test_half_a_last_line_is_left_out_where_a_run_may_have_left_it(tmp_path):
    file = LedgerFile(tmp_path / "ledger.jsonl", is_writer=True)
    file.append({**entry(0)._asdict(), "observation": None})
    with open(file.path, "a") as half:
        half.write('{"step": 4, "first')
    assert [record["step"] for record in read_ledger_file(file.path, may_be_cut=True)] == [0]
    with pytest.raises(ValueError, match=r"line 2: not a ledger record .*without an end of line"):
        read_ledger_file(file.path)
