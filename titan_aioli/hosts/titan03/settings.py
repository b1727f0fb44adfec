"""The settings that people write for a mixing run, under the names of torchtitan 0.2, for torchtitan 0.3.

A TOML file and flags such as `--training.steps 100` or `--optimizer.lr 3e-4` mean the same with both.
Sections that torchtitan 0.3 still has are its own; the others stand here and are translated.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig
from torchtitan.config.configs import (
    CommConfig,
    CompileConfig,
    DebugConfig,
    ParallelismConfig,
    TrainingConfig,
)
from torchtitan.distributed.activation_checkpoint import FullAC, MemoryBudgetAC, SelectiveAC
from torchtitan.tools.profiler import Profiler

from titan_aioli.config import Mixing
from titan_aioli.config.read import build_section
from titan_aioli.errors import UserError, perhaps


@dataclass
class Job:
    config_file: str | None = None
    """A TOML file with these sections."""
    dump_folder: str = "./outputs"
    """Folder of the run."""
    description: str = ""
    """For people; not used."""
    print_config: bool = False
    """Print the settings to the terminal."""
    custom_config_module: str = "titan_aioli.config"
    """Not used: torchtitan 0.2 finds the [mixing] section by it."""


@dataclass
class Model:
    name: str = "llama3"
    """A model of torchtitan."""
    flavor: str = "debugmodel"
    """Its size."""
    hf_assets_path: str = "./tests/assets/tokenizer"
    """Folder of the tokenizer, which only `mixing.separate_documents` needs."""
    attn_backend: Literal["flex", "flex_flash", "varlen"] | None = None
    """torchtitan's attention. Unset: the model's default."""


@dataclass
class Optimizer:
    """One group of all parameters."""

    name: str = "AdamW"
    """Adam or AdamW."""
    lr: float = 8e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    implementation: Literal["for-loop", "foreach", "fused", "fused_opt_states_bf16"] = "fused"

    def build_config(self) -> OptimizersContainer.Config:
        """torchtitan 0.3's."""
        kwargs = {"lr": self.lr, "betas": (self.beta1, self.beta2)}
        kwargs |= {"eps": self.eps, "weight_decay": self.weight_decay}
        group = ParamGroupConfig(pattern=r".*", optimizer_name=self.name, optimizer_kwargs=kwargs)
        return OptimizersContainer.Config(param_groups=[group], implementation=self.implementation)


@dataclass
class ActivationCheckpoint:
    mode: Literal["none", "selective", "full", "memory_budget"] = "selective"
    selective_ac_option: str = "op"
    """Operators are chosen ("op"); torchtitan 0.3 has no other way."""
    memory_budget: float = 0.5
    """For mode memory_budget."""

    def build_config(self) -> Any:
        """torchtitan 0.3's; None: no recomputation.

        Raises: UserError: only layers of a number were to be recomputed.
        """
        if self.mode == "selective" and self.selective_ac_option != "op":
            raise UserError(
                f"activation_checkpoint.selective_ac_option is {self.selective_ac_option!r}: torchtitan 0.3 "
                'has "op" only'
            )
        if self.mode == "memory_budget":
            return MemoryBudgetAC.Config(memory_budget=self.memory_budget)
        return {"none": None, "selective": SelectiveAC.Config(), "full": FullAC.Config()}[self.mode]


@dataclass
class Loss:
    num_chunks: int = 8
    """Pieces of the sequence whose logits are in memory one after the other. 1: all at once."""

    def build_config(self, vocab_size: int) -> Any:
        """torchtitan 0.3's cross entropy, in chunks or not."""
        plain = CrossEntropyLoss.Config(global_vocab_size=vocab_size)
        return (
            ChunkedLossWrapper.Config(num_chunks=self.num_chunks, loss_fn=plain)
            if self.num_chunks != 1
            else plain
        )


@dataclass
class JobConfig:
    """All sections."""

    job: Job = field(default_factory=Job)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    activation_checkpoint: ActivationCheckpoint = field(default_factory=ActivationCheckpoint)
    lr_scheduler: LRSchedulersContainer.Config = field(default_factory=LRSchedulersContainer.Config)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    parallelism: ParallelismConfig = field(default_factory=ParallelismConfig)
    checkpoint: CheckpointManager.Config = field(default_factory=CheckpointManager.Config)
    compile: CompileConfig = field(default_factory=CompileConfig)
    comm: CommConfig = field(default_factory=CommConfig)
    metrics: MetricsProcessor.Config = field(default_factory=MetricsProcessor.Config)
    profiling: Profiler.Config = field(default_factory=Profiler.Config)
    debug: DebugConfig = field(default_factory=lambda: DebugConfig(enable_structured_logging=False))
    mixing: Mixing = field(default_factory=Mixing)


def apply_tables(config: Any, tables: dict[str, Any]) -> None:
    """Write the tables of a TOML file into the sections of a config.

    Raises: UserError: a section or key is unknown; says which there are.
    """
    sections = [entry.name for entry in dataclasses.fields(config)]
    for name, table in tables.items():
        if name not in sections:
            raise UserError(
                f"[{name}] is no section of torchtitan 0.3's settings{perhaps(name, sections)}: leave it "
                f"out, or choose from {', '.join(sections)}"
            )
        if name == "mixing":
            config.mixing = build_section(Mixing, table)
        elif dataclasses.is_dataclass(getattr(config, name)) and isinstance(table, dict):
            _fill(getattr(config, name), table, name)
        else:
            setattr(config, name, table)


def _fill(section: Any, table: dict[str, Any], name: str) -> None:
    keys = [entry.name for entry in dataclasses.fields(section)]
    for key, value in table.items():
        if key not in keys:
            raise UserError(
                f"[{name}] has an unknown key {key!r}{perhaps(key, keys)} (torchtitan 0.3); it may have: "
                f"{', '.join(keys)}"
            )
        if dataclasses.is_dataclass(getattr(section, key)) and isinstance(value, dict):
            _fill(getattr(section, key), value, f"{name}.{key}")
        else:
            setattr(section, key, value)
    if hasattr(section, "__post_init__"):
        try:
            section.__post_init__()
        except ValueError as error:
            raise UserError(f"[{name}]: {error}") from None
