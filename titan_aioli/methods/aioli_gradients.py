"""Aioli with gradients for evidence: where the next step on each group would take the objective.

Aioli finds its matrix A by training on perturbed mixtures, so that every number in it is a difference of two
noisy losses. To first order the same number is an inner product: a step on group j alone lowers the objective
by the learning rate times

    a_j = <g_j, P g>

with the gradients g_j of the group's loss and g of the objective's, and P the scale of the optimizer's steps:
1 / sqrt(v) of Adam, where v has seen g. One measurement takes a gradient for every group and one for the
objective, no perturbed step, and shows more than a whole round of LearnParams (docs/study.md).

The average. By a law with diminishing returns

    a_j = beta (theta_j / p_j)^curvature

theta the best mixture: the value of a group falls as its share grows. (1 is the law of aioli_bayes/law.py;
between two measurements of a run it falls less: docs/log.md.) So u_j = p_j^curvature a_j is the same wherever
p is, and is averaged over the run. Alignments fade as losses flatten, and their noise does not, so that
earlier measurements are forgotten only as fast as a new one tells more than noise: they keep exp(-i / memory)
of their weight,

    i = max(0, 1 - sigma^2 / mean_j u_j^2)

with sigma^2 the variance of what of u is not along its mean.

The step. After every measurement

    s_j     = max(u_j, 0) / sum_i max(u_i, 0)                   theta_j = s_j^(1 / curvature) / Z
    D       = mean_j (s_j - s0_j)^2 / (stderr^2 + (misfit s0_j)^2)       s0 the anchor's s
    w       = max(0, 1 - (c / D)^2)             c = 1 + (1 + 2 e (1 - w)) sqrt(2 / (G - 1) + 2 e^2 / n)
    p_j     <- p_j (theta'_j / p_j)^rate / Z                    theta' = anchor + w (theta - anchor)

so that the proportions stay at the anchor while s differs from its by no more than its standard error and
what a law that is not exact may be wrong by: D is then about 1, with a standard deviation of the root in c.
e is what part of D's denominator the error is, n the degrees of freedom of that. Where all is error, leaving
the anchor takes three deviations; the more the last w was (in c), the fewer, so that one noisy measurement
does not undo what many have found.

Repetition. The group worth most is often a small one. A row that is read again is worth less, by a law that
is known beforehand (repetition.py) and that no measurement shows in time. So u_j falls by that law as group j
is read again, and theta is the mixture with which all groups are worth the same at the end of the run. Where
nothing is read again, that is theta as above.

What it is worth. By the same law a step on p takes off the objective, in that of a step on the anchor p0,

    speed   = 1 + sum_j s_j h_j / sum_j s_j p0_j^(1 - curvature)
    h_j     = (p_j^(1 - curvature) - p0_j^(1 - curvature)) / (1 - curvature), or log (p_j / p0_j) for 1

which near the anchor is what a step is known to take off, sum_j p_j a_j, over sum_j p0_j a_j. So the run has
gained the sum of speed - 1 over its steps: as many more steps on the anchor would have done as much.

Source: gradients for A, Chen et al. 2024, arXiv:2411.05735, section 4 (DoGE), and Fan et al. 2023,
arXiv:2310.15393; the law and the averages are this project's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, NamedTuple

import numpy as np

from titan_aioli.methods.anchored import anchor_mixture, at_least, check_anchor, stepped
from titan_aioli.methods.checks import require_count, require_number, require_weights
from titan_aioli.methods.faults import report_skipped, unusable
from titan_aioli.methods.protocol import Phase
from titan_aioli.methods.repetition import kept_worth, lasting_mixture

UPDATES = 10
"""Measurements of a run, by default."""
FIRST_UPDATES = 3
"""So many of them come soon one after the other, so that their spread is known early."""
FIRST_SHARE = 1.0 / 8
"""What lies between these, over what lies between two later ones."""
CAUTION = 2.0
"""Deviations more that it takes to leave the anchor, where all that is known is uncertain."""
TOO_LARGE = 1e100
"""Observations as large as this are left out: their squares are not numbers that one can compute with."""
TOO_SMALL = 1e-100
"""A sum of the alignments, or a difference of shares, below which there is none."""

NO_GROUP_HELPS = "no group helps"
ONE_MEASUREMENT = "one measurement does not tell its own error"
BY_CHANCE = "the groups differ by no more than the measurements' error"
BY_MISFIT = "the groups differ by no more than the law may be wrong by"


class AioliGradientsState(NamedTuple):
    """All that the method knows between two phases."""

    round: int
    """Measurements so far."""
    proportions: np.ndarray
    """[G], p."""
    weight: float
    """Sum of the weights of the measurements; the last one has 1, the others what `memory` left them."""
    squares: float
    """Sum of the squares of these weights."""
    mean: np.ndarray
    """[G], weighted mean of u, nats per unit of the learning rate."""
    spread: float
    """Weighted sum of the mean squares by which u differed from the direction of its mean."""
    trust: float
    """w of the last measurement."""
    step: int
    """Optimizer steps so far."""
    epochs: np.ndarray
    """[G], epochs of each group so far, by the proportions; 0 without `epochs_of_all`."""
    gain_steps: np.ndarray
    """[2], steps on the anchor that the mixture has gained so far by the law, and the standard error."""
    skipped: np.ndarray
    """[G] bool, groups whose last observation could not be used."""


@dataclass(frozen=True)
class AioliGradients:
    """Aioli with the gradients' alignment for A, averaged over the run, and steps that fit its error."""

    observes: ClassVar[str] = "alignment"

    num_steps: int = 1024
    """Optimizer steps of the run."""
    steps_per_update: int | None = None
    """Optimizer steps between two measurements. Between the first three it is an eighth of that.
    Unset: the run has 10 measurements."""
    start: float = 0.1
    """Share of the run before the first measurement: gradients in the warm-up say nothing on later ones."""
    rate: float = 0.7
    """Share of the way to the best mixture, in logarithms, that the proportions go at each update."""
    memory: float = 3.0
    """Updates, each of them telling more than noise, after which a measurement counts 1 / e; at least 1."""
    curvature: float = 0.5
    """Power of p with which the value of a group falls as its share grows, above 0, at most 1. The smaller it
    is, the fewer groups get most of the tokens."""
    misfit: float = 0.2
    """What the law may be wrong by, as a share of a group's value at the anchor: differences as large as that
    are not acted on, however sure they are."""
    least_share: float | None = None
    """Smallest share of a group. Unset: a tenth of an even one."""
    tau: float = 8.0
    """Epochs beyond the first after which the rows of a group are worth 1 / e of new ones. A small group gets
    no more than is worth as much at the end of the run as what others give then."""
    epochs_of_all: Sequence[float] | None = None
    """[G], epochs of each group if the run were on nothing else. None: nothing is read again."""
    anchor: Sequence[float] | None = None
    """[G] weights of the mixture to start from, and to stay at without evidence. Unset: uniform."""

    def check(self, num_groups: int, num_targets: int | None = None) -> None:
        require_count("aioli_gradients.num_steps", self.num_steps)
        if self.steps_per_update is not None:
            require_count("aioli_gradients.steps_per_update", self.steps_per_update)
        require_number("aioli_gradients.start", self.start, at_least=0, below=1, what="a share of the run")
        require_number("aioli_gradients.rate", self.rate, above=0, at_most=1, what="the share of the way")
        reason = "with less than 1 update the noise of the measurements is never known, and nothing moves: it"
        require_number("aioli_gradients.memory", self.memory, at_least=1, at_most=1e9, what=reason)
        require_number("aioli_gradients.curvature", self.curvature, above=0, at_most=1, what="the power")
        require_number("aioli_gradients.misfit", self.misfit, at_least=0)
        require_number("aioli_gradients.tau", self.tau, above=0, at_most=1e9, what="a number of repetitions")
        if self.epochs_of_all is not None:
            require_weights("aioli_gradients.epochs_of_all", self.epochs_of_all, num_groups)
        check_anchor("aioli_gradients", self.anchor, self.least_share, num_groups)

    def init(self, num_groups: int, num_targets: int | None = None) -> AioliGradientsState:
        return AioliGradientsState(
            round=0,
            proportions=self._anchor(num_groups),
            weight=0.0,
            squares=0.0,
            mean=np.zeros(num_groups),
            spread=0.0,
            trust=0.0,
            step=0,
            epochs=np.zeros(num_groups),
            gain_steps=np.zeros(2),
            skipped=np.zeros(num_groups, dtype=bool),
        )

    def phase(self, state: AioliGradientsState) -> Phase:
        return Phase(state.proportions.copy(), self._steps(state.round), "train")

    def update(self, state: AioliGradientsState, observation: np.ndarray | None) -> AioliGradientsState:
        assert observation is not None, "aioli_gradients observes the alignment of gradients"
        observation = np.where(np.abs(observation) < TOO_LARGE, observation, np.inf)
        steps = self._steps(state.round)
        state = self._read(state, steps)._replace(round=state.round + 1, skipped=unusable(observation))
        if state.skipped.any():
            return self._gain(state, steps)
        state = self._learn(state, state.proportions**self.curvature * observation)
        return self._move(self._gain(state, steps))

    def report(self, state: AioliGradientsState) -> dict[str, np.ndarray | str]:
        note: dict[str, np.ndarray | str] = {**report_skipped(state.skipped)}
        if state.weight == 0:
            return note
        values, error = self._values(state)
        found = {
            "best": self._mixture(state, values),
            "best_stderr": np.array(error / self.curvature),  # of a share that is about even
            "trust": np.array(state.trust),
        }
        if math.isfinite(error):
            found |= {"speed": self._speed(state.proportions, values, error), "gain_steps": state.gain_steps}
        return found | self._why_it_stays(state, values, error) | note

    def metrics(self, state: AioliGradientsState) -> dict[str, np.ndarray]:
        return {"aioli/best": self._mixture(state, self._values(state)[0])} if state.weight else {}

    def result(self, state: AioliGradientsState) -> np.ndarray:
        return state.proportions

    def outlook(self, num_groups: int) -> dict[str, str]:
        """When the run measures, and the smallest difference that it will probably act on, for `check`."""
        times = list(accumulate(map(self._steps, range(FIRST_UPDATES + 1))))
        later = range(times[-1], self.num_steps, self._steps(FIRST_UPDATES))
        times = [step for step in times[:-1] if step < self.num_steps]
        number = len(times) + len(later)
        first = ", ".join(f"{step:,}" for step in (*times, *later[:2]))
        said = {"measures": f"{number:,} times, after {first}{', ...' * (number > 5)} steps"}
        if num_groups == 1 or number < 2:
            return said
        exact, noisy = (self.smallest_seen(num_groups, number, noise) for noise in (0.0, 1.0))
        return said | {
            "can see": f"groups whose values differ by {exact:.0%}, or by {noisy:.0%} where the error of one "
            "measurement is as large as a value"
        }

    def smallest_seen(self, num_groups: int, num_updates: int, noise: float) -> float:
        """The smallest difference between groups that moves the proportions, as a share of a group's value.

        As the root mean square over the groups, from an even anchor, where chance adds nothing to it.

        Args:
            num_updates: measurements, 2 or more.
            noise: standard deviation of one measurement of a group, in the same unit.
        """
        kept = math.exp(-1.0 / (1.0 + noise**2) / self.memory)
        weight, squares = ((1.0 - k**num_updates) / (1.0 - k) for k in (kept, kept**2))
        error = noise * math.sqrt(squares) / weight
        doubt = math.hypot(error, self.misfit)
        by_error = (error / doubt) ** 2 if doubt else 0.0
        return doubt * math.sqrt(_by_chance(by_error, num_groups, weight**2 / squares, 1.0))

    def _steps(self, number: int) -> int:
        """Optimizer steps before the measurement of that number."""
        if number == 0:
            return max(1, round(self.start * self.num_steps))
        default = (1.0 - self.start) * self.num_steps / (UPDATES - FIRST_UPDATES + 1)
        steps = self.steps_per_update or max(1, round(default))
        return steps if number >= FIRST_UPDATES else max(1, round(FIRST_SHARE * steps))

    def _read(self, state: AioliGradientsState, steps: int) -> AioliGradientsState:
        """The state after the steps of a phase: rows of what was read again are worth less, by the law."""
        read = steps * state.proportions * self._epochs_of_a_step(len(state.mean))
        epochs = state.epochs + read
        mean = state.mean * kept_worth(state.epochs, epochs, self.tau)
        size = float(state.mean @ state.mean)
        shrunk = float(mean @ mean) / size if size > 0 else 1.0
        return state._replace(step=state.step + steps, epochs=epochs, mean=mean, spread=shrunk * state.spread)

    def _epochs_of_a_step(self, num_groups: int) -> np.ndarray:
        """[G], what a step on each group alone reads of it, in epochs."""
        of_all = np.zeros(num_groups) if self.epochs_of_all is None else np.array(self.epochs_of_all)
        return of_all / self.num_steps

    def _learn(self, state: AioliGradientsState, u: np.ndarray) -> AioliGradientsState:
        """The averages with one more measurement of u [G]."""
        kept = math.exp(-_above_noise(u, _variance(state)) / self.memory)
        weight, squares = kept * state.weight + 1.0, kept**2 * state.squares + 1.0
        mean = state.mean + (u - state.mean) / weight
        spread = kept * state.spread + (1.0 - 1.0 / weight) * _off_direction(u, state.mean)
        return state._replace(weight=weight, squares=squares, mean=mean, spread=spread)

    def _values(self, state: AioliGradientsState) -> tuple[np.ndarray, float]:
        """s [G] and its standard error, infinite with one measurement.

        One number for all groups, since a few measurements tell too little of each. The last factor is what
        the error of the sum adds.
        """
        positive = np.maximum(state.mean, 0.0)
        total = positive.sum()
        if total < TOO_SMALL:  # no group helps
            return self._anchor_values(len(positive)), math.inf
        values = positive / total
        variance = _variance(state) * state.squares / state.weight**2
        return values, math.sqrt(variance * (1.0 + float(values @ values))) / total

    def _mixture(self, state: AioliGradientsState, values: np.ndarray) -> np.ndarray:
        """theta [G] by s [G], for the rest of the run."""
        ahead = max(0, self.num_steps - state.step) * self._epochs_of_a_step(len(values))
        return lasting_mixture(values, self.curvature, state.epochs, ahead, self.tau)

    def _move(self, state: AioliGradientsState) -> AioliGradientsState:
        """The proportions after an update."""
        anchor = self._anchor(len(state.mean))
        values, error = self._values(state)
        best, trust = self._mixture(state, values), self._trust(state, values, error)
        theta = at_least(anchor + trust * (best - anchor), self.least_share)
        following = stepped(state.proportions, theta, self.rate, self.least_share)
        return state._replace(proportions=following, trust=trust)

    def _trust(self, state: AioliGradientsState, values: np.ndarray, error: float) -> float:
        """w, how far theta is followed, by s [G] and its standard error."""
        if not math.isfinite(error):
            return 0.0
        distance, by_error = self._evidence(values, error)
        most = _by_chance(by_error, len(values), _number(state), 1.0 - state.trust)
        return 1.0 - (most / distance) ** 2 if distance > most else 0.0

    def _evidence(self, values: np.ndarray, error: float) -> tuple[float, float]:
        """D and e, by s [G] and its standard error."""
        expected = self._anchor_values(len(values))
        doubt = np.hypot(error, self.misfit * expected) + TOO_SMALL  # no squares: an error may be huge
        distance = float((((values - expected) / doubt) ** 2).mean())
        return distance, float(((error / doubt) ** 2).mean())

    def _why_it_stays(self, state: AioliGradientsState, values: np.ndarray, error: float) -> dict[str, str]:
        """Why theta is not followed at all; {} where it is."""
        if state.trust > 0:
            return {}
        if state.mean.max() <= 0:
            return {"stays": NO_GROUP_HELPS}
        if not math.isfinite(error):
            return {"stays": ONE_MEASUREMENT}
        return {"stays": BY_CHANCE if self._evidence(values, error)[1] > 0.5 else BY_MISFIT}

    def _speed(self, proportions: np.ndarray, values: np.ndarray, error: float) -> np.ndarray:
        """[2], the speed on p [G] and its standard error, by s [G] and its standard error."""
        anchor, power = self._anchor(len(values)), 1.0 - self.curvature
        before = anchor**power
        following = proportions**power
        change = (following - before) / power if power else np.log(proportions / anchor)
        gain, unit = float(values @ change), float(values @ before)
        return np.array(
            [1.0 + gain / unit, error * float(np.linalg.norm(change - gain / unit * before)) / unit]
        )

    def _gain(self, state: AioliGradientsState, steps: int) -> AioliGradientsState:
        """The state with what the steps of a phase have gained, by what is known when it is over.

        The speeds of all phases follow from one average, so that their errors are taken for one.
        """
        values, error = self._values(state) if state.weight else (state.mean, math.inf)
        if not math.isfinite(error):  # nothing has moved yet, or no group helps
            return state
        speed, stderr = self._speed(state.proportions, values, error)
        return state._replace(gain_steps=state.gain_steps + steps * np.array([speed - 1.0, stderr]))

    def _anchor_values(self, num_groups: int) -> np.ndarray:
        """[G], the s with which the anchor is the best mixture."""
        values = self._anchor(num_groups) ** self.curvature
        return values / values.sum()

    def _anchor(self, num_groups: int) -> np.ndarray:
        """[G], the anchor, with no share below the least one."""
        return anchor_mixture("aioli_gradients", self.anchor, self.least_share, num_groups)


def _by_chance(by_error: float, num_groups: int, number: float, caution: float) -> float:
    """c, the most that D is by chance.

    Args:
        by_error: e.
        number: of measurements, as many as there would be if all had the same weight.
        caution: 1 - w of the last measurement.
    """
    freedom = max(1, num_groups - 1)
    variance = 2.0 / freedom + 2.0 * by_error**2 / (freedom * (number - 1.0))
    return 1.0 + (1.0 + CAUTION * by_error * caution) * math.sqrt(variance)


def _variance(state: AioliGradientsState) -> float:
    """sigma^2, of one group's u in one measurement; infinite with one measurement."""
    number = _number(state)
    return state.spread / state.weight * number / (number - 1.0) if number > 1.5 else math.inf


def _number(state: AioliGradientsState) -> float:
    """Measurements that would tell as much if all had the same weight."""
    return state.weight**2 / state.squares if state.weight else 0.0


def _above_noise(u: np.ndarray, variance: float) -> float:
    """i, the share of the size of u [G] that is not noise; 1 while its variance is not known."""
    if not math.isfinite(variance):
        return 1.0
    size = float(np.mean(u**2))
    return 1.0 - variance / size if size > variance else 0.0


def _off_direction(u: np.ndarray, mean: np.ndarray) -> float:
    """Mean square of what of u [G] is not along `mean` [G]; 0 where that is 0.

    What all groups' numbers change by together, from one batch to the next and as losses flatten, does not
    matter to their shares.
    """
    size = float(mean @ mean)
    if size == 0:
        return 0.0
    rest = u - max(0.0, float(u @ mean) / size) * mean
    return float(rest @ rest) / max(1, len(u) - 1)
