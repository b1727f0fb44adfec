"""What Aioli's hyperparameters may be, and what to do about those that may not."""

import warnings
from typing import TYPE_CHECKING

from titan_aioli.methods.checks import require_choice, require_count, require_number, require_weights

if TYPE_CHECKING:
    from titan_aioli.methods.aioli.aioli import Aioli


def check_aioli(method: "Aioli", num_groups: int) -> None:
    """Refuse hyperparameters that make no sense for so many groups.

    Raises: ValueError: which, its value, what is allowed.
    """
    require_count("aioli.num_sweeps", method.num_sweeps)
    require_count("aioli.steps_per_mixture", method.steps_per_mixture)
    require_number("aioli.eta", method.eta, above=0, what="the step size")
    require_choice("aioli.update", method.update_rule, ("cumulative", "restart"))
    require_choice("aioli.order", method.order, ("per_sweep", "shuffled"))
    require_choice("aioli.mixtures", method.mixtures, ("one_hot", "centred", "opposite"))
    if method.ema is not None:
        require_number("aioli.ema", method.ema, at_least=0, below=1, what="the weight on the past")
    if method.pooling is not None:
        require_number("aioli.pooling", method.pooling, at_least=0, below=1, what="the weight on past rounds")
    elif method.pool_training:
        raise ValueError(
            "aioli.pool_training is true but aioli.pooling is not set: set it, to 0.8 for example"
        )
    if num_groups > 1 and not 1.0 / num_groups < method.one_hot_factor <= 1.0:
        raise ValueError(
            f"aioli.one_hot_factor is {method.one_hot_factor}: with {num_groups} groups it must be above "
            f"1/{num_groups} = {1.0 / num_groups:.4g} and at most 1. At 1/{num_groups} every perturbed "
            "mixture is uniform and A cannot be solved for; below it the swept group is trained on least"
        )
    if method.train_steps(num_groups) < 1:
        mixtures = method.num_mixtures(num_groups)
        raise ValueError(
            f"aioli.steps_per_round is {method.steps_per_round}, but LearnParams alone takes num_sweeps x "
            f"steps_per_mixture x {'groups' if mixtures == num_groups else 'mixtures'} = "
            f"{method.num_sweeps} x {method.steps_per_mixture} x {mixtures} = "
            f"{method.learn_params_steps(num_groups)} steps: "
            "set it above that, or fewer sweeps or steps"
        )
    if method.diagonal and method.one_hot_factor == 1.0:
        warnings.warn("aioli.diagonal does nothing at one_hot_factor 1: the full A is used", stacklevel=3)
    _check_regression(method, num_groups)
    _check_prior_and_orders(method, num_groups)


def _check_regression(method: "Aioli", num_groups: int) -> None:
    """The options that rest on the regression of evidence.py."""
    options = {
        f'mixtures = "{method.mixtures}"': method.mixtures != "one_hot",
        "pooling": method.pooling is not None,
        "shrink": method.shrink,
    }
    chosen = [name for name, is_chosen in options.items() if is_chosen]
    if not chosen or num_groups == 1:
        return
    if method.diagonal:
        raise ValueError(f"aioli.diagonal is true: it cannot be combined with {' and '.join(chosen)}")
    stretches = method.num_sweeps * method.num_mixtures(num_groups)
    if method.pooling is None and stretches < num_groups + 2:
        raise ValueError(
            f"aioli.num_sweeps is {method.num_sweeps}: with {' and '.join(chosen)} it must be at least 2, "
            f"since {stretches} stretches cannot tell noise from signal (or set aioli.pooling)"
        )


def _check_prior_and_orders(method: "Aioli", num_groups: int) -> None:
    require_count("aioli.prior_steps", method.prior_steps, smallest=0, why="0: no prior")
    if method.prior is not None:
        require_weights("aioli.prior", method.prior, num_groups)
    elif method.prior_steps > 0:
        raise ValueError(f"aioli.prior_steps is {method.prior_steps} but no aioli.prior is given")
    expected = sorted(list(range(method.num_mixtures(num_groups))) * method.num_sweeps)
    for round_, order in enumerate(method.orders or ()):
        if sorted(order) != expected:
            raise ValueError(
                f"aioli.orders[{round_}] is {list(order)}: it must name each of the groups 0 to "
                f"{method.num_mixtures(num_groups) - 1} exactly num_sweeps = {method.num_sweeps} times"
            )
