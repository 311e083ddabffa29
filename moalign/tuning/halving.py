"""Successive halving: many trials with few training steps, and only the better part of them goes on.

Jamieson and Talwalkar, arXiv 1502.07943; ranked over several objectives by non-domination, then by hypervolume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.front import hypervolume_contributions, infer_reference_point, non_dominated


@final
@dataclass(frozen=True, kw_only=True)
class Halving:
    """Trains every batch of trials with a share of the steps first; one of `keep` goes on with `keep` times as many.

    Each budget is a training of its own with a complete schedule, so its values are those of a policy and not of an
    unfinished one.

    Attributes:
        keep: one of how many goes on, at least 2.
        rungs: budgets, the full one among them; 3 with keep=3 gives 1/9, 1/3 and all of the steps.
    """

    keep: int = 3
    rungs: int = 3

    def __post_init__(self) -> None:
        if self.keep < 2 or self.rungs < 2:
            raise DefinitionError(f"Halving needs keep >= 2 and rungs >= 2, got {self.keep} and {self.rungs}.")

    @property
    def fidelities(self) -> tuple[float, ...]:
        """Shares of the steps, rising to 1."""
        return tuple(float(self.keep) ** -(self.rungs - 1 - i) for i in range(self.rungs))

    def survivors(self, values: FloatArray) -> list[int]:
        """Returns which trials go on, from their values at one budget [trials, objectives], in their order.

        Fronts are peeled off one after another; within the last one taken, what adds more hypervolume goes first.
        """
        wanted = math.ceil(len(values) / self.keep)
        left, kept = np.arange(len(values)), list[int]()
        while len(kept) < wanted:
            best = left[non_dominated(values[left])] if values.shape[1] > 1 else left[[values[left, 0].argmax()]]
            adds = _contributions(values[best])
            kept += best[np.argsort(-adds, kind="stable")].tolist()
            left = np.setdiff1d(left, best)
        return sorted(kept[:wanted])


def _contributions(values: FloatArray) -> FloatArray:
    if len(values) < 2 or values.shape[1] < 2:
        return np.zeros(len(values))
    return hypervolume_contributions(values, infer_reference_point(values))
