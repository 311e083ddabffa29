"""Optimistic linear support: the weights at which the best mixture of known policies could be improved the most.

Source: Roijers, Whiteson, Oliehoek (2015), and the corner weights of Mossalam et al. (arXiv 1610.02707). Differs in
that a policy is an affine function of the weights, w . r - beta KL, because that is what training maximises; with
w . r alone the bound would be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.search.history import Budget, History, Stall, new_rows

INSET = 1e-3  # extremes are trained a little inside: all weight on one objective allows weakly dominated policies


@final
@dataclass(frozen=True, kw_only=True)
class OptimisticSupport:
    """Visits the corner weight with the largest possible gain, and stops when no gain above `tolerance` is possible.

    With exact training the policies found then lose at most `tolerance` at any weights. Training is not exact: the
    possible gain allows two standard errors, and the guarantee is about what training reaches.

    Attributes:
        trials: policies in all, at most.
        batch: policies of one round, trained as one stack.
        stop: when to end earlier; only `tolerance` when None.
        tolerance: in units of w . r - beta KL, >= 0.
    """

    trials: int
    batch: int = 1
    stop: Stall | None = None
    tolerance: float = 0.0
    needs_oracle = False

    def __post_init__(self) -> None:
        problems = Budget(trials=self.trials, batch=self.batch, stop=self.stop).problems("OptimisticSupport")
        if not (np.isfinite(self.tolerance) and self.tolerance >= 0):
            problems.append(f"OptimisticSupport tolerance must be finite and >= 0, got {self.tolerance!r}.")
        if problems:
            raise DefinitionError(problems)

    def problems(self, objectives: int) -> list[str]:
        return [] if 2 <= objectives <= 5 else [f"OptimisticSupport takes 2 to 5 objectives, not {objectives}."]

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns the extremes first, then the corner weights of highest priority."""
        extremes = (1 - history.objectives * INSET) * np.eye(history.objectives) + INSET
        start = extremes[new_rows(extremes, history.tried)]
        if len(start):
            return start[:count]
        if len(history.weights) == 0:
            return np.zeros((0, history.objectives))
        offsets = self._offsets(history)
        corners = corner_weights(history.values, offsets)
        corners = corners[new_rows(corners, history.tried)]
        priority = priorities(corners, history, offsets)
        order = np.argsort(-priority, kind="stable")
        return corners[order[priority[order] > self.tolerance]][:count]

    def _offsets(self, history: History) -> FloatArray:
        """Returns beta KL of each policy [policies]; zero where there is no KL."""
        beta = history.kl_strength or 0.0
        return beta * np.nan_to_num(history.kl) if beta else np.zeros(len(history.values))


def corner_weights(values: FloatArray, offsets: FloatArray) -> FloatArray:
    """Returns the vertices of the upper envelope of w . values_i - offsets_i over the simplex [corners, objectives].

    Args:
        values: [policies, objectives].
        offsets: [policies], beta KL.
    """
    from scipy.spatial import HalfspaceIntersection

    objectives = values.shape[1]
    centre = np.full(objectives, 1 / objectives)
    top = float((values.max(axis=1) - offsets).max()) + 1.0
    free = values[:, :-1] - values[:, -1:]  # in the first coordinates, the last weight being 1 - their sum
    # rows (a, b) mean a . (w_1 .. w_(m-1), u) + b <= 0
    planes = np.column_stack([free, -np.ones(len(values)), values[:, -1] - offsets])
    walls = np.zeros((objectives, objectives + 1))
    walls[:-1, : objectives - 1] = -np.eye(objectives - 1)
    walls[-1, : objectives - 1], walls[-1, -1] = 1.0, -1.0
    lid = np.zeros((1, objectives + 1))
    lid[0, -2], lid[0, -1] = 1.0, -top
    inside = np.append(centre[:-1], ((values @ centre - offsets).max() + top) / 2)
    vertices = HalfspaceIntersection(np.concatenate([planes, walls, lid]), inside).intersections
    vertices = vertices[np.isfinite(vertices).all(axis=1)]
    below = vertices[vertices[:, -1] < top - 1e-9]
    rows = np.clip(np.column_stack([below[:, :-1], 1 - below[:, :-1].sum(axis=1)]), 0, None)
    rows = rows / rows.sum(axis=1, keepdims=True)
    kept: list[FloatArray] = []
    for row in rows:
        if len(new_rows(row[None], np.array(kept).reshape(-1, objectives))):
            kept.append(row)
    return np.array(kept).reshape(-1, objectives)


def priorities(corners: FloatArray, history: History, offsets: FloatArray) -> FloatArray:
    """Returns how much more than the known policies any policy could have at each corner weight [corners].

    The optimum is convex in the weights, so at w it is at most the cheapest mixture of the optima at visited weights
    that w is a mixture of: min lambda . U, lambda . W = w, lambda >= 0, a linear programme.
    """
    from scipy.optimize import linprog

    weights = history.weights
    utilities = weights @ history.values.T - offsets  # [visited, policies]
    error = 2 * np.sqrt((weights**2 * history.errors**2).sum(axis=1))
    optimistic = utilities.max(axis=1) + error
    known = (corners @ history.values.T - offsets).max(axis=1)
    found = np.zeros(len(corners))
    for i, corner in enumerate(corners):
        solved = linprog(optimistic, A_eq=weights.T, b_eq=corner, bounds=(0, None))
        found[i] = solved.fun - known[i] if solved.status == 0 else np.inf  # outside of all visited: no bound yet
    return np.maximum(found, 0.0)
