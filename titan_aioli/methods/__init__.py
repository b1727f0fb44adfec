"""The mixing methods: what decides the proportions.

`METHODS` names them; `build_method` checks the hyperparameters against the numbers of groups and targets.
Nothing here imports torch.
"""

from typing import Any

from titan_aioli.methods.ado import ADO
from titan_aioli.methods.aioli import Aioli
from titan_aioli.methods.aioli_bayes import AioliBayes
from titan_aioli.methods.aioli_gradients import AioliGradients
from titan_aioli.methods.checks import require_fields
from titan_aioli.methods.doge import DoGE
from titan_aioli.methods.doremi import DoReMi
from titan_aioli.methods.guards import Guarded
from titan_aioli.methods.objective import Objective, to_objective
from titan_aioli.methods.odm import ODM
from titan_aioli.methods.protocol import OBSERVES, UNTIL_END, MixingMethod, Phase
from titan_aioli.methods.replay import Replay
from titan_aioli.methods.skill_it import SkillIt
from titan_aioli.methods.static import Static, Stratified
from titan_aioli.methods.target_excess import TargetExcess

__all__ = [
    "METHODS",
    "OBSERVES",
    "UNTIL_END",
    "Guarded",
    "MixingMethod",
    "Objective",
    "Phase",
    "build_method",
]

METHODS: dict[str, type] = {
    "stratified": Stratified,
    "static": Static,
    "aioli": Aioli,
    "aioli_bayes": AioliBayes,
    "aioli_gradients": AioliGradients,
    "skill_it": SkillIt,
    "doremi": DoReMi,
    "doge": DoGE,
    "odm": ODM,
    "ado": ADO,
    "target_excess": TargetExcess,
    "replay": Replay,
}


def build_method(
    name: str, num_groups: int, num_targets: int | None = None, **hyperparameters: Any
) -> MixingMethod:
    """The named method, its hyperparameters checked against the numbers of groups and targets.

    Args:
        name: a key of METHODS.
        num_groups: G, at least 1.
        num_targets: K, at least 1. None: the targets are the groups.
        hyperparameters: fields of the method's dataclass; every one has a default that runs.
    Raises: ValueError: an unknown method or hyperparameter, or a value that cannot work.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    aliases = getattr(METHODS[name], "aliases", {})
    hyperparameters = {aliases.get(key, key): value for key, value in hyperparameters.items()}
    if "objective" in hyperparameters:
        hyperparameters["objective"] = to_objective(hyperparameters["objective"])
    require_fields(name, METHODS[name], hyperparameters)
    method = METHODS[name](**hyperparameters)
    method.check(num_groups, num_targets)
    return method
