"""A few policies for many users: which k of a front to serve, when every user takes the best one for them.

The utility of a set for a user is that of the best policy in it. Its mean over users is monotone and submodular, so
choosing greedily reaches at least 1 - 1/e of the best possible gain, and exchanges afterwards rarely leave much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, IntArray, as_matrix, as_vector
from moalign.errors import DefinitionError

MOST_SUBSETS = 20_000  # are tried one by one, which is exact; more are searched greedily with exchanges
ROUNDING = 1e-12  # relative; an exchange has to gain more

Goal = Literal["mean", "worst"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Portfolio:
    """Chosen policies and what they give. Utilities are those of the best chosen policy for each user."""

    chosen: tuple[int, ...]  # positions, in the order of choice
    utilities: Float[np.ndarray, " users"]
    assigned: Int[np.ndarray, " users"]  # position of each user's policy
    groups: dict[Any, float]  # mean utility by group; empty without groups
    shares: dict[int, float]  # share of the users that each chosen policy serves
    mean: float  # weighted mean over users
    regret: float  # what users would gain on average if every policy were served
    exact: bool  # whether all subsets were tried

    def moved(self, rows: IntArray) -> Portfolio:
        """Returns the same portfolio with policy i called rows[i]."""
        return replace(
            self,
            chosen=tuple(int(rows[c]) for c in self.chosen),
            assigned=rows[self.assigned],
            shares={int(rows[c]): share for c, share in self.shares.items()},
        )


def portfolio(
    utilities: ArrayLike,
    k: int,
    *,
    goal: Goal = "mean",
    groups: Sequence[Any] | None = None,
    floors: dict[Any, float] | float | None = None,
    user_weights: ArrayLike | None = None,
) -> Portfolio:
    """Returns the k policies that serve a population of users best.

    Up to 20,000 subsets are all tried. Beyond, policies are added greedily and then exchanged while that helps; with
    the mean as the goal and no floors that is at least 63 % of the best gain over the worst policy.

    Args:
        utilities: [policies, users]; for users with preference weights: `front.F @ user_weights.T`, on scales that
            may be compared between users.
        k: policies to serve, at least 1.
        goal: "mean" over users, or "worst": the lowest group mean (without groups: the least happy user).
        groups: group of every user.
        floors: lowest mean utility allowed for a group, one number for all or by group. Floors come first: of
            portfolios that miss them the one with the smallest total shortfall wins.
        user_weights: how much each user counts in means, equal when None.

    Raises:
        DefinitionError: k out of range, floors without groups or for unknown groups, shapes that do not fit.
    """
    table = as_matrix(utilities, "utilities")
    policies, users = table.shape
    if not users or not 1 <= k <= policies:
        raise DefinitionError(
            f"k must be from 1 to the number of policies, {policies}, with at least one user; got {k}."
        )
    names, members = _members(groups, users)
    weight = np.full(users, 1 / users) if user_weights is None else as_vector(user_weights, "user_weights", users)
    if (weight < 0).any() or weight.sum() <= 0:
        raise DefinitionError("user_weights must be >= 0 with a positive sum.")
    weight = weight / weight.sum()
    shares = [(weight * (members == g)) / max((weight * (members == g)).sum(), 1e-300) for g in range(len(names))]
    means = np.stack([*shares, weight])  # [groups + 1, users]: the last row is everybody
    lowest = _floors(floors, names)

    def worth(best: FloatArray) -> tuple[float, float]:
        """Returns (minus the shortfall below the floors, the goal), to be compared in this order."""
        value = means @ best
        short = float(np.maximum(lowest - value[:-1], 0).sum())
        worst = value[:-1].min() if names else best.min()
        return -short, float(worst if goal == "worst" else value[-1])

    exact = math.comb(policies, k) <= MOST_SUBSETS
    chosen = _best_subset(table, k, worth) if exact else _exchanged(table, _greedy(table, k, worth), worth)
    best = table[list(chosen)]
    assigned = np.array(chosen)[best.argmax(axis=0)]
    value = means @ best.max(axis=0)
    return Portfolio(
        chosen=tuple(int(c) for c in chosen),
        utilities=best.max(axis=0),
        assigned=assigned,
        groups=dict(zip(names, value[:-1].tolist(), strict=True)),
        shares={int(c): float(weight[assigned == c].sum()) for c in chosen},
        mean=float(value[-1]),
        regret=float(weight @ table.max(axis=0) - value[-1]),
        exact=exact,
    )


Worth = Callable[[FloatArray], tuple[float, float]]


def _best_subset(table: FloatArray, k: int, worth: Worth) -> tuple[int, ...]:
    return max(itertools.combinations(range(len(table)), k), key=lambda subset: worth(table[list(subset)].max(axis=0)))


def _greedy(table: FloatArray, k: int, worth: Worth) -> tuple[int, ...]:
    chosen: list[int] = []
    best = np.full(table.shape[1], -np.inf)
    for _ in range(k):
        others = [i for i in range(len(table)) if i not in chosen]
        chosen.append(max(others, key=lambda i: (*worth(np.maximum(best, table[i])), -i)))
        best = np.maximum(best, table[chosen[-1]])
    return tuple(chosen)


def _exchanged(table: FloatArray, chosen: tuple[int, ...], worth: Worth) -> tuple[int, ...]:
    """Returns the subset after single exchanges, the best one first, until none helps."""
    now = worth(table[list(chosen)].max(axis=0))
    while True:
        found: tuple[tuple[float, float], tuple[int, ...]] | None = None
        for place in range(len(chosen)):
            rest = [c for i, c in enumerate(chosen) if i != place]
            without = table[rest].max(axis=0, initial=-np.inf)
            for other in set(range(len(table))) - set(chosen):
                there = worth(np.maximum(without, table[other]))
                if _better(there, now if found is None else found[0]):
                    found = there, (*chosen[:place], other, *chosen[place + 1 :])
        if found is None:
            return chosen
        now, chosen = found


def _better(a: tuple[float, float], b: tuple[float, float]) -> bool:
    for first, second in zip(a, b, strict=True):
        margin = ROUNDING * max(1.0, abs(second))
        if abs(first - second) > margin:
            return first > second
    return False


def _members(groups: Sequence[Any] | None, users: int) -> tuple[list[Any], IntArray]:
    if groups is None:
        return [], np.zeros(users, dtype=np.int64)
    if len(groups) != users:
        raise DefinitionError(f"groups must name the group of each of the {users} users, got {len(groups)}.")
    names = list(dict.fromkeys(groups))
    return names, np.array([names.index(g) for g in groups], dtype=np.int64)


def _floors(floors: dict[Any, float] | float | None, names: list[Any]) -> FloatArray:
    if floors is None:
        return np.full(len(names), -np.inf)
    if not names:
        raise DefinitionError("floors are mean utilities of groups; name the group of every user in groups=.")
    if not isinstance(floors, dict):
        return np.full(len(names), float(floors))
    unknown = [name for name in floors if name not in names]
    if unknown:
        raise DefinitionError(f"floors name {unknown}, but the groups are {names}.")
    return np.array([floors.get(name, -np.inf) for name in names], dtype=np.float64)
