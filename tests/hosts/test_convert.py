"""A checkpoint with the names of torchtitan 0.2.2 becomes one of 0.3."""

import pytest
import torch

from titan_aioli.cli import main
from titan_aioli.hosts.installed import VERSION, load_config
from titan_aioli.testing.forked import train
from titan_aioli.testing.torchrun import TINY

pytestmark = pytest.mark.skipif(VERSION < (0, 3), reason="the command runs with torchtitan 0.3")


def old_names(state, attention):
    """The inverse of the conversion, by torchtitan's own way to take its fused matrix apart."""
    found = {}
    for name, value in state.items():
        name = name.replace("lm_head.weight", "output.weight")
        prefix, _, suffix = name.partition("qkv_linear.wqkv.")
        if not suffix:
            found[name.replace("qkv_linear.", "")] = value
            continue
        for part in ("wq", "wk", "wv"):
            found[f"{prefix}{part}.{suffix}"] = value
        if isinstance(value, torch.Tensor) and value.ndim:
            split = {"wqkv.weight": value.clone()}
            attention._split_qkv_on_save(attention, split, "", {})
            found.update({f"{prefix}{key.split('.')[0]}.{suffix}": each for key, each in split.items()})
    return found


def test_a_run_continues_from_a_converted_checkpoint(tmp_path, stores, capsys):
    """Names of 0.2.2 are refused with the remedy; converted, every number is what 0.3 had written.

    Also where the conversion is killed before its last step and run again.
    """
    from torch.distributed.checkpoint.state_dict_saver import save
    from torchtitan.models.common.attention import FusedQKVLinear

    from titan_aioli.hosts.titan03.convert import read

    train(tmp_path, stores, 1, "--training.local_batch_size", "8", "--training.steps", "4")
    newest = tmp_path / "checkpoint" / "step-4"
    written = read(newest)
    newest.rename(tmp_path / "written")
    config = load_config(["--job.config_file", str(TINY)])
    (_, attention, _, _), *_ = config.model_spec.model.traverse(FusedQKVLinear.Config)
    save(old_names(written, attention.build()), checkpoint_id=newest, no_dist=True)
    convert = ["convert-checkpoint", str(TINY), "--job.dump_folder", str(tmp_path)]
    main(convert)
    newest.rename(tmp_path / "checkpoint-0.2" / "step-4-new")
    main(convert)
    assert capsys.readouterr().out.count("step-4 is converted") == 2
    converted = read(newest)
    assert set(converted) == set(written)
    for name, value in written.items():
        same = torch.equal(value, converted[name]) if isinstance(value, torch.Tensor) else True
        assert same, name
    train(tmp_path, stores, 1, "--training.local_batch_size", "8", "--training.steps", "6")
    with pytest.raises(SystemExit):
        main(convert)
    assert "it has no output.weight" in capsys.readouterr().err
