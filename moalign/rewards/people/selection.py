"""Which start and how many prototypes: held-out log-loss, and no more prototypes than it pays for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray, IntArray

FEWEST_HELD_OUT = 30  # comparisons; fewer say nothing about a start


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """One start of one number of prototypes."""

    prototypes: int
    start: int
    loss: float  # nats per held-out comparison, or the training loss where nothing is held out
    chosen: bool = False
    log_likelihood: float | None = None  # of the fitted answers, nats; mixtures only
    bic: float | None = None


def best_starts(prototypes: Sequence[int], losses: Sequence[float]) -> dict[int, int]:
    """Returns for each number of prototypes, ascending, the position of its start of least loss."""
    best: dict[int, int] = {}
    for i in sorted(range(len(prototypes)), key=lambda i: (prototypes[i], losses[i], i)):
        best.setdefault(prototypes[i], i)
    return best


def parsimonious(losses: dict[int, FloatArray], users: IntArray) -> int:
    """Returns the smallest number of prototypes whose loss is within one standard error of the least.

    The standard error is that of the mean difference to the best number, clustered by user: answers of one user stand
    or fall together. With positions of starts as numbers, it is the first start that is as good as the best.

    Args:
        losses: number of prototypes -> loss of each held-out comparison, [n].
        users: [n], who answered.
    """
    best = min(sorted(losses), key=lambda k: float(losses[k].mean()))
    for k in sorted(losses):
        difference = losses[k] - losses[best]
        mean = float(difference.mean())
        sums = np.bincount(users, weights=difference - mean)
        if mean <= float(np.sqrt((sums**2).sum())) / len(difference):
            return k
    return best
