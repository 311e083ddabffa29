"""Rewarded soups: one expert per objective, and any weights in between by interpolating their parameters.

Experts are trained for the vertices of the simplex by another method from the same start; the policy for weights w is
the base plus sum_i w_i delta_i (arXiv 2306.04488). No training per weight vector, and weights nobody thought of before
can be served. Interpolation is of the full updates, exactly: never of LoRA's A and B, whose product is not linear.

Needs: what the experts' method needs. Assumes: experts that lie in one basin, which a common start makes likely and
nothing guarantees; a policy in between is measured when it is evaluated, not promised.
Differs from the original in working on LoRA updates, where the interpolation is again an adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.methods.base import Method, PolicySet, WeightSpace
from moalign.methods.modpo import MODPO
from moalign.methods.serving import Interpolated
from moalign.policy.engine import Engine
from moalign.problem import Problem


@final
@dataclass(frozen=True, kw_only=True)
class Soups:
    """Rewarded soups (arXiv 2306.04488): theta(w) = base + sum_i w_i (theta_i - base).

    Attributes:
        experts: the method that trains one policy per objective; its KL strength is the soup's.
        keep: share of the interpolated update that is kept, one number or one per block of layers from bottom to top;
            the rest is the reference policy's, which gives back abilities that training has cost (arXiv 2309.06256).
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    experts: Method = field(default_factory=MODPO)
    keep: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.keep or not all(math.isfinite(k) and 0 <= k <= 1 for k in self.keep):
            raise DefinitionError(
                f"Soups keep must be shares in [0, 1], one or one per block of layers; got {self.keep}."
            )

    @property
    def kl_strength(self) -> float | None:
        return self.experts.kl_strength

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns what keeps the experts' method from training one policy per objective."""
        return self.experts.problems(problem, np.eye(len(problem.names)))

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns the experts, which serve any weights by interpolation."""
        experts = self.experts.fit(problem, np.eye(len(problem.names)), engine)
        return PolicySet(experts.stack, experts.weights, experts.trainings, Interpolated(self.keep))
