"""How a person answers which of two responses is better, in plain words or graded ones.

A person feels the difference of their own utilities with logistic noise, w . (r_a - r_b) + noise / lambda, and says
which side of 0 it lies on: so a is preferred with probability sigma(lambda w . (r_a - r_b)), Bradley-Terry. Who grades
answers says "clearly" beyond a threshold of their own, "slightly" before it (McCullagh 1980, the ordered logit). Now
and then (a share e of all answers) they answer by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np

from moalign.arrays import FloatArray

Answer: TypeAlias = Literal[
    "first", "second", "equal", "clearly first", "slightly first", "slightly second", "clearly second"
]
PLAIN: tuple[Answer, ...] = ("first", "second")
GRADED: tuple[Answer, ...] = ("clearly first", "slightly first", "slightly second", "clearly second")
FELT: dict[Answer, tuple[float, float]] = {  # where the felt difference lies, in the person's thresholds
    "first": (0.0, np.inf),
    "second": (-np.inf, 0.0),
    "clearly first": (1.0, np.inf),
    "slightly first": (0.0, 1.0),
    "slightly second": (-1.0, 0.0),
    "clearly second": (-np.inf, -1.0),
}
ANSWERS: tuple[Answer, ...] = ("equal", *FELT)


@final
@dataclass(frozen=True, kw_only=True)
class AnswerModel:
    """How reliable answers are.

    Attributes:
        rationality: lambda, log-odds per unit of utility, > 0. Utilities are scaled so that the responses that may be
            asked about span about one unit.
        lapse: share of answers that are given at random, in [0, 1).
        concentration: of the symmetric Dirichlet prior; 1 is uniform on the simplex.
        threshold: difference of utilities from which a response is called clearly better, > 0: median over people.
        threshold_sd: standard deviation over people of its logarithm, >= 0.
    """

    rationality: float = 10.0
    lapse: float = 0.02
    concentration: float = 1.0
    threshold: float = 0.2
    threshold_sd: float = 0.7

    def probability(
        self, answers: Sequence[Answer], differences: FloatArray, weights: FloatArray, thresholds: FloatArray
    ) -> FloatArray:
        """Returns how probable answers are [answers, differences, people].

        Args:
            answers: names of `FELT`.
            differences: r_first - r_second [differences, objectives].
            weights: of people, on the simplex [people, objectives].
            thresholds: of people [people].
        """
        felt = differences @ weights.T
        return np.stack([self._told(felt, *FELT[a], thresholds, _chance(a)) for a in answers])

    def log_likelihood(self, told: Told, weights: FloatArray, thresholds: FloatArray) -> FloatArray:
        """Returns the log-probability of all answers for each person [people]; arguments as of `probability`."""
        felt = told.differences @ weights.T
        p = self._told(felt, told.low[:, None], told.high[:, None], thresholds, told.chances[:, None])
        total: FloatArray = told.shares @ np.log(np.maximum(p, 1e-300))
        return total

    def _told(
        self, felt: FloatArray, low: FloatArray | float, high: FloatArray | float, thresholds: FloatArray,
        chance: FloatArray | float,
    ) -> FloatArray:  # fmt: skip
        """Returns P(low < felt + noise < high), bounds in thresholds: sigma(x - low) - sigma(x - high), in factors."""
        above = _sigmoid(self.rationality * (felt - low * thresholds))
        below = _sigmoid(self.rationality * (high * thresholds - felt))
        width = -np.expm1(-self.rationality * (high - low) * thresholds)
        return self.lapse * chance + (1 - self.lapse) * above * below * width


@final
@dataclass(frozen=True, eq=False)
class Told:
    """What a person answered, one row per answer; "equal" is half of either answer.

    Attributes:
        differences: r_first - r_second [rows, objectives].
        low, high: where the felt difference lies, in thresholds [rows].
        chances: of the answer when it is given at random [rows].
        shares: of an answer in this row [rows].
    """

    differences: FloatArray
    low: FloatArray
    high: FloatArray
    chances: FloatArray
    shares: FloatArray

    @staticmethod
    def of(differences: FloatArray, answers: Sequence[Answer]) -> Told:
        """Returns the rows of some answers, in an order that does not depend on the order of the answers."""
        parts = [
            (*difference, *FELT[name], _chance(name), 1 / len(names))
            for difference, answer in zip(differences, answers, strict=True)
            for names in [PLAIN if answer == "equal" else (answer,)]
            for name in names
        ]
        rows = np.array(sorted(parts), dtype=np.float64).reshape(-1, differences.shape[1] + 4)
        return Told(rows[:, :-4], *rows[:, -4:].T)


def _chance(answer: Answer) -> float:
    return 1 / len(GRADED if answer in GRADED else PLAIN)


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(0.5 * x))
