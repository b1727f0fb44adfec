"""The config tables of the mixing methods, `[mixing.NAME]`: hyperparameters as people write them.

Each field has the name and the default of the method's dataclass (methods/NAME.py says more). What is per
group there is here a table by group name, or the path of a plan.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Static:
    """Method `static`: one mixture for the whole run."""

    by: Literal["weight", "tokens", "plan"] = "weight"
    """Proportions by the groups' `weight`, by their number of training tokens, or from a plan."""
    plan: str = ""
    """With by = "plan": file made by `titan-aioli plan`, or the plan.json that a run leaves."""
    temperature: float = 1.0
    """Proportions ** (1 / temperature), renormalised: above 1 flatter, below 1 sharper."""


@dataclass
class Aioli:
    """Method `aioli` (Chen et al. 2024, arXiv:2411.05735)."""

    num_sweeps: int = 4
    """Passes over the perturbed mixtures, one for each group, in one LearnParams."""
    steps_per_mixture: int = 4
    """Consecutive optimizer steps on one perturbed mixture."""
    steps_per_round: int | None = None
    """Optimizer steps of a round: LearnParams and the training after it. Unset: 8 times LearnParams."""
    one_hot_factor: float = 0.75
    """Share of the swept group in its perturbed mixture, above 1 / number of groups, at most 1."""
    eta: float = 0.2
    """Step size of the update of the proportions."""
    ema: float | None = None
    """Weight on the past in a moving average of the mixing matrix A. Unset: no average."""
    diagonal: bool = False
    """Use the diagonal of A only."""
    normalize: bool = True
    """Shift A to be non-negative and divide it by its sum before the update."""
    update: Literal["cumulative", "restart"] = "cumulative"
    """Weights multiply over the rounds (the paper), or start from uniform in every round."""
    order: Literal["per_sweep", "shuffled"] = "per_sweep"
    """Order of the perturbed mixtures: a permutation for every sweep, or one over all sweeps."""
    mixtures: Literal["one_hot", "centred", "opposite"] = "one_hot"
    """Perturbed mixtures: around uniform (the paper), centred on the current proportions, or opposite pairs
    of them, towards and away from each group."""
    pooling: float | None = None
    """Weight on the evidence of past rounds in a running regression. Unset: each round alone (the paper)."""
    pool_training: bool = False
    """With pooling: count the training stretches in the regression too, not those of LearnParams alone."""
    shrink: bool = False
    """Shorten the step where the column sums of A differ little beyond their standard errors."""
    orders_from: str = ""
    """Path of a recorded run's ledger.jsonl whose order of swept groups is repeated."""
    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the mixture trained on first (Aioli restricted)."""
    prior_plan: str = ""
    """A plan to take the prior from, instead of `prior`."""
    prior_steps: int = 0
    """Optimizer steps on the prior. 0: no prior."""


@dataclass
class SkillIt:
    """Method `skill_it` (Chen et al. 2023, arXiv:2307.14430)."""

    graph: str = ""
    """JSON file with the graph, as `titan-aioli sweep --single-groups` makes it. Unset: identity."""
    eta: float = 0.2
    """Step size of the update of the proportions."""
    window: int = 3
    """Evaluations that are summed."""
    steps_per_round: int = 500
    """Optimizer steps between two updates of the proportions."""
    steps_per_evaluation: int | None = None
    """Optimizer steps between two evaluations; divides steps_per_round. Unset: one evaluation a round."""
    evaluate: Literal["end", "start"] = "end"
    """Evaluate at the end of each interval, or at its start (the released code)."""
    halve_ones: bool = False
    """Use 0.5 for off-diagonal entries of exactly 1, as the released code does."""


@dataclass
class DoReMi:
    """Method `doremi` (Xie et al. 2023, arXiv:2305.10429). Not with pipeline parallelism."""

    reference: str = ""
    """Checkpoint folder (.../checkpoint/step-N) of the reference model: same flavor, trained beforehand."""
    clip_tokens: bool = True
    """Clip the excess loss of each token at 0 (the paper), or only the mean of a group (False)."""
    mu: float = 1.0
    """Step size of the update of the proportions, per nat."""
    smoothing: float = 1e-3
    """Share of the uniform mixture in the proportions."""
    steps_per_update: int = 1
    """Optimizer steps over which an excess loss is averaged."""


@dataclass
class DoGE:
    """Method `doge` (Fan et al. 2023, arXiv:2310.15393). Not with pipeline parallelism."""

    sequences: int = 4
    """Held-out sequences of every group in the held-out gradient."""
    mu: float = 0.01
    """Strength of the pull towards the last proportions: the step size is learning_rate / mu."""
    learning_rate: float = 5e-4
    """Learning rate that the scores are measured in; usually the peak of the schedule."""
    max_norm: float = 1.0
    """Every gradient is first scaled down to at most this norm."""
    max_score: float = 5.0
    """Scores are clipped to [0, max_score] learning rates."""
    smoothing: float = 0.0
    """Share of the uniform mixture in the proportions."""
    steps_per_update: int = 1
    """Optimizer steps between two measurements, each as dear as one more step for every group."""


@dataclass
class ODM:
    """Method `odm`, Online Data Mixing (Albalak et al. 2023, arXiv:2312.02406)."""

    alpha: float = 0.9
    """Weight on the past in the moving average of the rewards, in [0, 1)."""
    importance_weighted: bool = True
    """Divide the loss of a group by its share, as in the paper."""
    warmup_updates: int = 0
    """Updates on `prior`, in which only rewards are gathered."""
    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the warm-up. Empty: uniform."""
    steps_per_update: int = 1
    """Optimizer steps over which the losses are averaged."""


@dataclass
class ADO:
    """Method `ado`, Adaptive Data Optimization (Jiang et al. 2024, arXiv:2410.11820)."""

    prior: dict[str, float] = field(default_factory=dict)
    """Weight of every group in the prior, usually its size. Empty: uniform."""
    steps_per_update: int = 10
    """Optimizer steps over which the losses are averaged."""
    warmup_updates: int = 50
    """Updates trained on the prior, while the loss curves begin."""
    ignored_updates: int = 10
    """Updates at the start whose losses are left out of the fit."""
    gamma1: float = 0.1
    """Weight of the newest proportions in the credit, in (0, 1]."""
    gamma2: float = 0.1
    """Weight of the newest preference in the proportions, in (0, 1]."""
    s: float = 0.5
    """Exponent of the credit. 0: no credit assignment."""
    min_share: float = 0.01
    """Least share of a group."""
    num_bins: int = 64
    """Points of each loss curve that are kept, an even number."""


@dataclass
class Replay:
    """Method `replay`: the mixtures of a recorded run as a fixed schedule."""

    ledger: str = ""
    """The recorded run's ledger.jsonl. With its seed, batch size and stores the rows are its rows. Unset:
    uniform."""


@dataclass
class Guards:
    """Bounds on the proportions of any method; all off by default."""

    min_share: float = 0.0
    """Least share of every group. 0: off."""
    max_change: float = 1.0
    """Largest change of any group's share at one update. 1: off."""
    anchor: dict[str, float] = field(default_factory=dict)
    """Weights of a prior mixture that the proportions are pulled to. Empty: uniform."""
    anchor_strength: float = 0.0
    """From 0 (off) to 1 (the anchor alone)."""
