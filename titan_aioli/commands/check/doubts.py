"""What a run is allowed to do and is hardly meant to: each in one line, with what to set."""

from collections.abc import Iterator
from typing import Any

from titan_aioli.commands.check.forecast import Forecast
from titan_aioli.methods import METHODS
from titan_aioli.methods.protocol import OF_GRADIENTS

FAR_ABOVE = 2.0
"""Ratio of the cost of all evaluations to `mixing.evaluation.budget` above which it is doubted."""
FEW_EPOCHS = 4
"""So many passes over a group cost little (Muennighoff et al. 2023, arXiv:2305.16264)."""


def doubts(config: Any, num_groups: int, expected: Forecast) -> Iterator[str]:
    """The lines about a run.

    Args:
        config: torchtitan's JobConfig with our `mixing`.
        num_groups: G.
        expected: what the run would do.
    """
    mixing, steps, walk = config.mixing, expected.num_steps, expected.walk
    if mixing.method == "aioli" and num_groups == 1:
        yield "aioli has one group and nothing to mix: set mixing.method to stratified, or add groups"
    elif walk.steps_in("learn_params") and not walk.steps_in("train"):
        yield (
            "the run ends inside its first LearnParams, and trains on nothing learned: raise training.steps, "
            "or lower mixing.aioli.num_sweeps or steps_per_mixture"
        )
    if mixing.method == "skill_it" and mixing.skill_it.steps_per_round >= steps:
        yield (
            f"a round of {mixing.skill_it.steps_per_round:,} steps is not over before the run ends: lower "
            "mixing.skill_it.steps_per_round"
        )
    if mixing.method == "target_excess":
        yield from _target_excess(mixing)
    if mixing.method in ("aioli_bayes", "aioli_gradients"):
        yield from _even_anchor(mixing)
    if mixing.method == "aioli_bayes":
        yield from _unbounded_repetition(mixing, expected)
    if mixing.method in ("aioli", "aioli_bayes"):
        yield from _redistribution(mixing)
    yield from _without_effect(mixing)
    if mixing.targets and METHODS[mixing.method].observes not in ("validation", *OF_GRADIENTS):
        yield (
            f"{mixing.method} does not look at targets: they are measured, and change nothing; "
            "aioli_gradients, aioli_bayes, aioli, skill_it and doge look at them, and `titan-aioli plan` "
            "finds a static mixture for them"
        )
    budget, cost = mixing.evaluation.budget, 100 * expected.measured.cost
    if budget and cost > FAR_ABOVE * budget:
        yield (
            f"evaluations cost {cost:.3g} percent, mixing.evaluation.budget is {budget:g}; it bounds only "
            "those of the method: raise mixing.evaluation.freq (0: none), or lower evaluation.sequences"
        )


def _without_effect(mixing: Any) -> Iterator[str]:
    """Settings that nothing follows from as long as another is off."""
    guards, when = mixing.guards, mixing.when_used_up
    if (guards.anchor or guards.anchor_plan) and guards.anchor_strength == 0:
        yield "mixing.guards has an anchor, and anchor_strength 0: it changes nothing: set anchor_strength"
    if when != "repeat" and not any(group.max_epochs for group in mixing.groups.values()):
        yield (
            f'mixing.when_used_up is "{when}", and no group has max_epochs: it changes nothing: set '
            "max_epochs in a group's table"
        )


def _even_anchor(mixing: Any) -> Iterator[str]:
    """An even start where the targets are groups, whose weights are a better one."""
    weights = {
        name: target.weight
        for name, target in mixing.targets.items()
        if target.role == "reward" and target.weight > 0
    }
    is_even = set(weights) == set(mixing.groups) and len(set(weights.values())) == 1
    starts_even = getattr(mixing, mixing.method).anchor == "even"
    if starts_even and weights and set(weights) <= set(mixing.groups) and not is_even:
        yield (
            f"every target is a group, and {mixing.method} starts from an even mixture: set "
            f'mixing.{mixing.method}.anchor = "targets" to start from their weights'
        )


def _unbounded_repetition(mixing: Any, expected: Forecast) -> Iterator[str]:
    """Small groups that a method which does not count with repetition would read again and again."""
    is_bounded = mixing.when_used_up in ("redistribute", "spread")
    repeated = [
        name
        for (name, group), epochs in zip(mixing.groups.items(), expected.epochs, strict=True)
        if epochs > FEW_EPOCHS and not (is_bounded and group.max_epochs)
    ]
    if repeated and len(repeated) < len(mixing.groups):
        yield (
            f"{', '.join(repeated)}: read more than {FEW_EPOCHS} times if the shares stay as they are, and "
            f"{mixing.method} may ask for more: bound it with max_epochs in its group's table and "
            'mixing.when_used_up = "spread"'
        )


def _redistribution(mixing: Any) -> Iterator[str]:
    """Groups that are used up, under a method that learns from the mixtures that it asks for."""
    limited = [name for name, group in mixing.groups.items() if group.max_epochs]
    if limited and mixing.when_used_up == "redistribute":
        yield (
            f"{', '.join(limited)}: once read max_epochs times, nothing is drawn from it, and "
            f"{mixing.method} takes what training does then for the effect of what it asked for: set "
            'mixing.when_used_up = "spread", by which no group is used up'
        )


def _target_excess(mixing: Any) -> Iterator[str]:
    """What method target_excess takes from the config in another way than a reader may think."""
    table = mixing.target_excess
    if not table.target_losses and not table.target_losses_from:
        yield (
            "target_excess has no losses to reach, so the mixture moves to the groups of the highest loss: "
            "set mixing.target_excess.target_losses or target_losses_from"
        )
    if len({(target.weight, target.role) for target in mixing.targets.values()}) > 1:
        yield (
            "target_excess treats all targets alike: their weights and roles change nothing; set the losses "
            "to reach instead"
        )
