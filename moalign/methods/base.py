"""What a method is, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.policy.adapters import AdapterStack

if TYPE_CHECKING:
    from moalign.policy.engine import Engine
    from moalign.problem import Problem


class Method(Protocol):
    """How preference weights become policies. Implementations are frozen keyword-only dataclasses."""

    @property
    def kl_strength(self) -> float | None:
        """beta of the objective w . r - beta KL that is maximised, in reward units per nat; None if there is none."""

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns one sentence per reason why this method cannot run; loads no model."""

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns policies for `weights` [weights, objectives]; remembered work is not repeated."""


@final
@dataclass(frozen=True, eq=False)
class PolicySet:
    """A stack of adapters and the preference weights each was trained for.

    Attributes:
        stack: the adapters.
        weights: [policies, objectives].
        trainings: names of the engine trainings that made them, one per policy, with the policy's row there.
    """

    stack: AdapterStack
    weights: FloatArray
    trainings: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.stack)

    def for_weights(self, weights: Sequence[float] | FloatArray) -> Selection:
        """Returns the policy that serves these preference weights: the one trained for them, or the nearest."""
        distance = np.abs(self.weights - np.asarray(weights, dtype=np.float64)).sum(axis=1)
        index = int(distance.argmin())
        return Selection(index, "trained" if distance[index] < 1e-9 else "nearest", float(distance[index]))


@final
@dataclass(frozen=True)
class Selection:
    """Which policy of a set serves some weights, how it was found, and how far (L1) its own weights are."""

    policy: int
    how: str
    distance: float
