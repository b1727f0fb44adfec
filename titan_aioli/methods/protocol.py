"""What a mixing method is: pure functions on an explicit state.

A method never trains, never reads a file, never draws from a generator that lives on. It says what to
train on next (`phase`), is told what was seen when that phase is over (`update`), and keeps all it knows
in a small state of ints, floats and numpy arrays, so that a run can stop between any two steps.

A new method is one file beside this one and one entry in `METHODS` (methods/__init__.py).
"""

import sys
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import numpy as np

UNTIL_END = sys.maxsize
"""`Phase.num_steps` of a phase that lasts as long as the run."""

PHASES = ("measure", "learn_params", "train", "prior")
"""Names of phases; their place here is their number in the metric `mixing/phase`."""

OBSERVES = ("nothing", "validation", "train", "excess", "gradients", "alignment")

OF_GRADIENTS = ("gradients", "alignment")
"""Those of OBSERVES that take gradients of one group alone, and the gradient of one objective."""


class Phase(NamedTuple):
    """What to train on now, and for how long."""

    proportions: np.ndarray
    """[G], on the simplex."""
    num_steps: int
    """Optimizer steps. 0: only measure. UNTIL_END: as long as the run."""
    name: str
    """One of PHASES."""


class MixingMethod(Protocol):
    """A frozen dataclass of hyperparameters with these functions on its state.

    The state is a NamedTuple of ints, floats and numpy arrays whose shapes depend on the numbers of groups
    and targets and the hyperparameters alone. It has a field `round: int` (one learn_params and the training
    after it), which goes into the ledger, and a field `proportions` [G]: what phases named `train` train on.
    """

    @property
    def observes(self) -> str:
        """What `update` is given at the end of a phase, one of OBSERVES.

        - `validation`: held-out loss of every target [K], mean nats per token; without targets of its own a
          run's targets are its groups;
        - `train`: mean training loss of every group over the phase [G], nan where a group had no token;
        - `excess`: DoReMi: mean over the phase of training loss minus that of a reference model [G], nats per
          token, nan where a group had no token. Whether the excess of each token is clipped at 0 first (the
          paper) or not is decided by the trainer; the method clips the mean in any case;
        - `gradients`: DoGE: a row for each group [G, 3], measured at the end of the phase: the inner product
          of the gradient of the group's mean training loss with that of the objective (the mean over the
          targets of their held-out loss), the norm of the first, and the norm of the second (the same in
          every row), all unclipped. The first two are nan where the group had no token;
        - `alignment`: the inner product of the gradient of each group's training loss, on the rows that come
          next, with that of the objective, divided as the optimizer does, [G]: to first order what the
          objective falls by in a step on that group alone, nats per unit of the learning rate;
        - `nothing`: None.
        """
        ...

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        """Refuse hyperparameters that cannot work with this many groups and targets.

        Args:
            num_groups: G.
            num_targets: K. None: as many as groups.

        Raises: ValueError: names the hyperparameter, its value, what is allowed and why.
        """
        ...

    def init(self, num_groups: int, num_targets: int | None = None) -> Any:
        """The state before the first step; K targets, as many as groups if left out."""
        ...

    def phase(self, state: Any) -> Phase:
        """What to train on now. Called any number of times; the answer depends on the state alone."""
        ...

    def update(self, state: Any, observation: np.ndarray | None) -> Any:
        """The state after a phase is over. Called once per phase; neither argument is changed."""
        ...

    def report(self, state: Any) -> dict[str, np.ndarray | str]:
        """What the last update learned, for the ledger; {} if nothing.

        A key `note` holds a sentence for the log, for example why the proportions did not move.
        """
        ...

    def metrics(self, state: Any) -> dict[str, np.ndarray]:
        """What the last update learned as one vector per group [G], by metric name; {} if nothing.

        Those that the method's class lists in `over_targets` are vectors over the targets [K] instead.
        """
        ...

    def result(self, state: Any) -> np.ndarray:
        """What a static run should train on, [G]: the proportions, unless a method says otherwise."""
        ...


def settings_in_use(method: Any, state: Any) -> dict[str, Any]:
    """Hyperparameters that must stay as they are where this state continues, by name.

    A method names in its function `settings_in_use` what those of its measurements were made with that still
    count; one without that function has none.
    """
    return method.settings_in_use(state) if hasattr(method, "settings_in_use") else {}


def shape_observed(method: Any, num_groups: int, num_targets: int | None = None) -> tuple[int, ...]:
    """Shape of one observation; K targets, as many as groups if left out."""
    if method.observes == "validation" and num_targets is not None:
        return (num_targets,)
    return {"nothing": (), "gradients": (num_groups, 3)}.get(method.observes, (num_groups,))


def over_targets(method: Any) -> Collection[str]:
    """Names of the method's metrics that are vectors over the targets, not over the groups."""
    return getattr(method, "over_targets", ())


def only_watched(method: Any, num_observed: int) -> np.ndarray:
    """[K] bool, of what an observation has as many rows as: those that never count, and are never at fault.

    A method with targets of which some are only watched names them in its function `only_watched`.
    """
    if hasattr(method, "only_watched"):
        return method.only_watched(num_observed)
    return np.zeros(num_observed, dtype=bool)


def outlook(method: Any, num_groups: int) -> dict[str, str]:
    """What a run could see with this method, in words by topic; {} for a method that does not say.

    A method that can tell before the run how it will cut it, and how small a difference it will find, says so
    in its function `outlook`.
    """
    return method.outlook(num_groups) if hasattr(method, "outlook") else {}
