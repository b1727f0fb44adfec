"""The checkpoints in a run's folder, and one that is put in the place of another."""

from titan_aioli.runs.checkpoints import LAST_WRITTEN, checkpoints, put_in_place


def write_checkpoint(path):
    path.mkdir(parents=True)
    (path / LAST_WRITTEN[0]).write_text(path.name)
    return path


def test_a_conversion_that_was_killed_between_its_last_two_steps_is_finished(tmp_path):
    folder, aside = tmp_path / "checkpoint", tmp_path / "checkpoint-0.2"
    write_checkpoint(folder / "step-2")
    write_checkpoint(aside / "step-4")
    write_checkpoint(aside / "step-4-new")
    assert put_in_place(folder, aside) == folder / "step-4"
    assert checkpoints(folder) == {2: folder / "step-2", 4: folder / "step-4"}
    assert (folder / "step-4" / LAST_WRITTEN[0]).read_text() == "step-4-new"
    assert put_in_place(folder, aside) is None


def test_a_conversion_that_was_killed_before_is_begun_again(tmp_path):
    folder, aside = tmp_path / "checkpoint", tmp_path / "checkpoint-0.2"
    write_checkpoint(folder / "step-4")
    assert put_in_place(folder, aside) is None
    (aside / "step-4-new").mkdir(parents=True)  # half-written, and the old one is where it was
    assert put_in_place(folder, aside) is None and checkpoints(folder) == {4: folder / "step-4"}
