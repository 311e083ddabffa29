"""Searches that need no model of the front: a lattice, random weights, and the largest gap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.search.history import Budget, History, Stall, corners_and_centre, new_rows, smallest_lattice


def _checked(search: Lattice | Dirichlet | LargestGap) -> None:
    problems = Budget(trials=search.trials, batch=search.batch, stop=search.stop).problems(type(search).__name__)
    if problems:
        raise DefinitionError(problems)


@final
@dataclass(frozen=True, kw_only=True)
class Lattice:
    """The smallest simplex lattice with at least `trials` points, in an order whose every beginning is spread out.

    Each next point is the farthest from all before it, from the corners on; when `trials` is the size of a lattice
    (6, 10, 15, 21 for three objectives), the whole lattice is trained in the end.

    Attributes:
        trials: policies in all.
        batch: policies of one round, trained as one stack.
        stop: when to end earlier; never when None.
    """

    trials: int
    batch: int = 4
    stop: Stall | None = None
    needs_oracle = False

    def __post_init__(self) -> None:
        _checked(self)

    def problems(self, objectives: int) -> list[str]:
        return []

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns the next points of the order."""
        rows = farthest_first(smallest_lattice(history.objectives, self.trials))
        return rows[new_rows(rows, history.tried)][:count]


@final
@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Independent random weights.

    Attributes:
        trials, batch, stop: as in `Lattice`.
        alpha: concentration > 0: 1 is uniform on the simplex, below 1 favours corners, above 1 the centre.
    """

    trials: int
    batch: int = 4
    stop: Stall | None = None
    alpha: float = 1.0
    needs_oracle = False

    def __post_init__(self) -> None:
        _checked(self)
        if not (np.isfinite(self.alpha) and self.alpha > 0):
            raise DefinitionError(f"Dirichlet alpha must be finite and > 0, got {self.alpha!r}.")

    def problems(self, objectives: int) -> list[str]:
        return []

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns draws that depend on the seed and on how many weights came before."""
        rng = np.random.default_rng([history.seed, 11, len(history.tried)])
        return rng.dirichlet(np.full(history.objectives, self.alpha), size=count)


@final
@dataclass(frozen=True, kw_only=True)
class LargestGap:
    """Halves, again and again, the longest edge of the front.

    Neighbours are those of the Delaunay triangulation of the weights; an edge is as long as its policies' rewards are
    apart, each objective scaled to its range. Starts with the corners.

    Attributes:
        trials, batch, stop: as in `Lattice`.
    """

    trials: int
    batch: int = 4
    stop: Stall | None = None
    needs_oracle = False

    def __post_init__(self) -> None:
        _checked(self)

    def problems(self, objectives: int) -> list[str]:
        return [] if 2 <= objectives <= 6 else [f"LargestGap takes 2 to 6 objectives, the problem has {objectives}."]

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns corners, then midpoints of the longest edges; one already chosen counts as measured halfway."""
        start = corners_and_centre(history.objectives)[:-1]
        start = start[new_rows(start, history.tried)][:count]
        if len(start):
            return start
        if len(history.weights) < history.objectives:
            return Dirichlet(trials=1).propose(history, count)
        weights, values = history.weights, history.values
        scaled = values / np.maximum(np.ptp(values, axis=0), 1e-12)
        chosen: list[FloatArray] = []
        for _ in range(count):
            middle, between = _longest_edge(weights, scaled, np.concatenate([history.tried, *chosen]))
            if middle is None:
                break
            weights, scaled = np.vstack([weights, middle]), np.vstack([scaled, between])
            chosen.append(middle[None])
        return np.concatenate(chosen) if chosen else np.zeros((0, history.objectives))


def farthest_first(rows: FloatArray) -> FloatArray:
    """Returns the rows reordered: the corners of the simplex, then always the row farthest from all before it."""
    order = [int(row) for row in np.flatnonzero(rows.max(axis=1) == 1)] or [0]
    distance = np.linalg.norm(rows[:, None] - rows[order], axis=2).min(axis=1)
    while len(order) < len(rows):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(rows - rows[order[-1]], axis=1))
    return rows[order]


def _longest_edge(weights: FloatArray, values: FloatArray, tried: FloatArray) -> tuple[FloatArray | None, FloatArray]:
    """Returns the middle weights of the longest edge that has a new middle, and the mean of its values."""
    edges = _edges(weights)
    length = np.linalg.norm(values[edges[:, 0]] - values[edges[:, 1]], axis=1)
    for a, b in edges[np.argsort(-length, kind="stable")]:
        middle = (weights[a] + weights[b]) / 2
        if len(new_rows(middle[None], tried)):
            return middle, (values[a] + values[b]) / 2
    return None, values[0]


def _edges(weights: FloatArray) -> FloatArray:
    """Returns the pairs of neighbours [edges, 2] of points on the simplex."""
    if weights.shape[1] == 2:
        order = np.argsort(weights[:, 0], kind="stable")
        return np.stack([order[:-1], order[1:]], axis=1)
    if len(weights) <= weights.shape[1]:
        return np.array(list(combinations(range(len(weights)), 2)))
    from scipy.spatial import Delaunay

    triangles = Delaunay(weights[:, :-1], qhull_options="QJ").simplices
    pairs = {tuple(sorted(pair)) for simplex in triangles.tolist() for pair in combinations(simplex, 2)}
    return np.array(sorted(pairs))
