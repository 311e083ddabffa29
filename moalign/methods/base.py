"""What a method is, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.methods.serving import Nearest, Selection, Serving
from moalign.policy.adapters import AdapterStack

if TYPE_CHECKING:
    from moalign.policy.engine import Engine
    from moalign.problem import Problem

WeightSpace = Literal["simplex", "direction"]


class Method(Protocol):
    """How preference weights become policies. Implementations are frozen keyword-only dataclasses."""

    weight_space: ClassVar[WeightSpace]
    """Whether weights are non-negative and sum to one, or are directions (unit length, entries may be negative)."""

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
    """Trained adapters and the rule by which they serve preference weights.

    Attributes:
        stack: the trained adapters.
        weights: [policies, objectives] what each was trained for.
        trainings: names of the engine trainings that made them, one per policy, with the policy's row there.
        serving: the rule.
        facts: what the method has to report, as JSON values; recorded with the study.
    """

    stack: AdapterStack
    weights: FloatArray
    trainings: tuple[tuple[str, int], ...] = ()
    serving: Serving = Nearest()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stack)

    def for_weights(self, weights: Sequence[float] | FloatArray) -> Selection:
        """Returns what serves these preference weights, and how."""
        return self.serving(self, np.asarray(weights, dtype=np.float64))
