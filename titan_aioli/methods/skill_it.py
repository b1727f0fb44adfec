"""Skill-It: a fixed graph of which group helps which, applied to the current losses.

The graph is learned before the run by training on each group alone (`skill_graph`); during the run it costs
one evaluation every `steps_per_evaluation`, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from titan_aioli.methods.checks import require_choice, require_count, require_number
from titan_aioli.methods.faults import report_skipped, unusable
from titan_aioli.methods.objective import Objective
from titan_aioli.methods.protocol import Phase
from titan_aioli.proportions import softmax

When = Literal["end", "start"]
Graph = Sequence[Sequence[float]]
"""graph[trained][evaluated]: relative loss drop of the evaluated target after training on the trained group
alone. Rows are trained groups, so it is the transpose of a mixing matrix A."""


def skill_graph(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The graph from runs on single groups: G_ij = (L_j(start) - L_j(end of run i)) / L_j(start).

    Args:
        start: [K], held-out losses before training, nats per token, positive.
        end: [G, K], end[i] after training on group i alone.
    Returns: [G, K], row = trained group.
    """
    start = np.asarray(start, dtype=np.float64)
    return (start - np.asarray(end, dtype=np.float64)) / start


class SkillItState(NamedTuple):
    """All that Skill-It knows between two phases."""

    round: int
    """Updates of the proportions so far."""
    num_evaluations: int
    window_losses: np.ndarray
    """[window, K], the last evaluations, newest last, nats per token; 0 where there was none yet, and where
    the loss of a target that is only watched was not finite."""
    proportions: np.ndarray
    """[G], what is trained on."""
    skipped: np.ndarray
    """[K] bool, targets whose last observation could not be used."""
    target_memory: np.ndarray
    """[3, K], what the weights of the targets depend on (objective.py); [3, 0] if on the config alone."""


@dataclass(frozen=True)
class SkillIt:
    """p_i in proportion to exp(eta * sum_j G_ij * (L_j summed over the window)), from ones at every update.

    Source: Chen et al. 2023, arXiv:2307.14430, Algorithm 1, as run by Chen et al. 2024, arXiv:2411.05735.
    The window sums evaluations (it does not average them), as in both. The released code of the second reads
    the losses in alphabetical order of the groups and the graph in the order given; here both are in the
    order given. What else it does otherwise is offered as `evaluate` and `halve_ones`. Each target's losses
    are multiplied by what it counts in the objective.
    """

    observes: ClassVar[str] = "validation"

    graph: Graph | None = None
    """[G][K], see Graph: row = group trained on, column = target evaluated. None: identity."""
    eta: float = 0.2
    """Step size of the update of the proportions."""
    window: int = 3
    """Evaluations that are summed."""
    steps_per_round: int = 500
    """Optimizer steps between two updates of the proportions."""
    steps_per_evaluation: int | None = None
    """Optimizer steps between two evaluations; divides steps_per_round. Unset: one evaluation per round."""
    evaluate: When = "end"  # start: an update sees losses that are steps_per_evaluation old
    """Evaluate at the end of each interval, or at its start (the released code)."""
    halve_ones: bool = False
    """Use 0.5 for off-diagonal entries of exactly 1, as the released code does."""
    objective: Objective | None = None
    """What each target counts. None: every target the same."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_number("skill_it.eta", self.eta, above=0, what="the step size")
        require_count("skill_it.window", self.window, why="an empty window says nothing about the losses")
        require_count("skill_it.steps_per_round", self.steps_per_round)
        require_choice("skill_it.evaluate", self.evaluate, get_args(When))
        if self.steps_per_evaluation is not None:
            require_count("skill_it.steps_per_evaluation", self.steps_per_evaluation)
        if self.steps_per_round % self._steps():
            raise ValueError(
                f"skill_it.steps_per_evaluation is {self._steps()}: it must divide steps_per_round = "
                f"{self.steps_per_round}, because the proportions change only where there are new losses"
            )
        num_targets = num_groups if num_targets is None else num_targets
        self._objective.check(num_targets)
        self._check_graph(num_groups, num_targets)

    def _check_graph(self, num_groups: int, num_targets: int) -> None:
        """The graph has a row for each group and a column for each target."""
        if self.graph is None:
            if num_targets != num_groups:
                raise ValueError(
                    f"skill_it.graph is not set, and this run has {num_targets} targets for {num_groups} "
                    "groups: without a graph each target must be a group: make one with `titan-aioli sweep "
                    "--single-groups`"
                )
            return
        try:
            graph = np.array(self.graph, dtype=np.float64)
        except ValueError:
            raise ValueError(
                "skill_it.graph is no table: its lists differ in length, or hold what is no number"
            ) from None
        if graph.shape != (num_groups, num_targets) or not np.isfinite(graph).all():
            raise ValueError(
                f"skill_it.graph has shape {list(graph.shape)}: it must be {num_groups} lists (one for each "
                f"trained group) of {num_targets} finite numbers (one for each evaluated target)"
            )

    def init(self, num_groups: int, num_targets: int | None = None) -> SkillItState:
        num_targets = num_groups if num_targets is None else num_targets
        memory = self._objective.start(num_targets)
        weights = self._objective.row_weights(memory, num_targets)
        if not np.isfinite(weights).all():  # what is relative to a loss is not known yet
            weights = np.ones(num_targets)
        return SkillItState(
            round=0,
            num_evaluations=0,
            window_losses=np.zeros((self.window, num_targets)),
            proportions=softmax(self.eta * self._influence(weights)),
            skipped=np.zeros(num_targets, dtype=bool),
            target_memory=memory,
        )

    def phase(self, state: SkillItState) -> Phase:
        if self.evaluate == "start" and state.num_evaluations == 0:
            return Phase(state.proportions.copy(), 0, "measure")
        return Phase(state.proportions.copy(), self._steps(), "train")

    def update(self, state: SkillItState, observation: np.ndarray | None) -> SkillItState:
        assert observation is not None, "skill_it observes held-out losses"
        num_evaluations = state.num_evaluations + 1
        watched = self.only_watched(len(observation))
        bad = unusable(observation) & ~watched
        window_losses = state.window_losses
        if not bad.any():
            losses = np.where(watched & unusable(observation), 0.0, observation)
            window_losses = np.vstack([state.window_losses[1:], losses])
        following = state._replace(num_evaluations=num_evaluations, window_losses=window_losses, skipped=bad)
        trained = num_evaluations - (self.evaluate == "start")
        if trained == 0 or trained * self._steps() % self.steps_per_round:
            return following
        following = following._replace(round=state.round + 1)
        window = (state if self.evaluate == "start" else following).window_losses
        if bad.any() or not window.any():  # every loss so far was skipped
            return following
        return self._update_proportions(following, window)

    def report(self, state: SkillItState) -> dict[str, np.ndarray | str]:
        return {**report_skipped(state.skipped)}

    def metrics(self, state: SkillItState) -> dict[str, np.ndarray]:
        return {}

    def result(self, state: SkillItState) -> np.ndarray:
        return state.proportions

    def only_watched(self, num_targets: int) -> np.ndarray:
        """[K] bool, targets whose losses never matter."""
        return self._objective.only_watched(num_targets)

    def _update_proportions(self, state: SkillItState, window_losses: np.ndarray) -> SkillItState:
        with np.errstate(over="ignore"):
            losses = window_losses.sum(axis=0)
        memory = self._objective.begin_round(state.target_memory, window_losses[-1])
        if memory.size:
            graph = np.eye(len(losses)) if self.graph is None else self._graph()
            predicted = state.proportions @ graph * window_losses[-1]  # the graph's drops are relative
            memory = self._objective.strengthen(memory, predicted)
        weights = self._objective.row_weights(memory, len(losses))
        with np.errstate(over="ignore", invalid="ignore"):
            log_weights = self.eta * self._influence(weights * losses)
        if (bad := unusable(log_weights)).any():
            return state._replace(skipped=bad if len(bad) == len(losses) else np.isfinite(losses))
        return state._replace(proportions=softmax(log_weights), target_memory=memory)

    @property
    def _objective(self) -> Objective:
        return Objective() if self.objective is None else self.objective

    def _influence(self, losses: np.ndarray) -> np.ndarray:
        """G L [G]: what training on each group alone would take off the losses [K], by the graph."""
        return losses if self.graph is None else self._graph() @ losses

    def _graph(self) -> np.ndarray:
        graph = np.array(self.graph, dtype=np.float64)
        if self.halve_ones:
            graph[(graph == 1.0) & ~np.eye(*graph.shape, dtype=bool)] = 0.5
        return graph

    def _steps(self) -> int:
        return self.steps_per_round if self.steps_per_evaluation is None else self.steps_per_evaluation
