"""Which part of a front an aggregator can pick points from.

What "reach" is about: points that an aggregator can pick among *finitely many* reward vectors, such as candidates,
checkpoints, or the responses to a prompt. The expected rewards of all stochastic policies form a convex set, because
mixtures of policies mix expectations; over them, and with a KL term, linear weights already reach the whole front.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol, runtime_checkable

from moalign.rewards.scalarisation import Array


class Reach(Enum):
    """Which points of a front are best for some setting of an aggregator; the value is the sentence to show."""

    SUPPORTED = "Only points on the convex hull of the front; those inside a dent are best for no weights."
    WEAKLY_PARETO = "Every Pareto point, for weights in proportion to 1 / (ideal - point); also weakly efficient ties."
    PROPER = "Pareto points whose trade-offs are below about 1 / augment, also inside a dent; no weakly efficient ties."
    NEARLY_ALL = "Every Pareto point as mu goes to 0; at a given mu, dents shallower than about mu are lost."
    CONCAVE = "All supported points and some inside a dent, the more the stronger the curvature; not all."
    EXTREMES = "Points that are great in one objective; balanced ones may be best for no weights."
    ONE_POINT = "One balanced point (or ties): there are no weights to choose others with."


@runtime_checkable
class Aggregator(Protocol):
    """Rewards [..., objectives] to one number each [...], to be maximised."""

    @property
    def reach(self) -> Reach: ...

    def __call__(self, values: Array) -> Array: ...
