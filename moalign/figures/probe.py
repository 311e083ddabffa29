"""Weights that nobody trained: the nearest evaluated policy, and what lies linearly between its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray, IntArray, as_vector, simplex_problems
from moalign.errors import DefinitionError
from moalign.figures.view import FrontView
from moalign.weights import label

_SLACK = 1e-9  # of barycentric coordinates


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Probe:
    """What the evaluated policies say about preference weights.

    Attributes:
        trial, row: the feasible policy with the nearest weights (Euclidean), and its position in the view.
        distance: to its weights.
        neighbours, shares: policies around the weights, and the convex combination of theirs that equals them.
        values, kl: the same combination of their measured rewards and KLs; None outside the evaluated weights.
    """

    trial: int
    row: int
    distance: float
    neighbours: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    values: FloatArray | None = None
    kl: float | None = None


def probe(view: FrontView, weights: Sequence[float]) -> Probe:
    """Returns what is known at `weights` [objectives].

    Raises:
        DefinitionError: weights outside the simplex, or no feasible policy with weights.
    """
    wanted = as_vector(weights, "weights", view.weights.shape[1])
    if problems := simplex_problems(wanted[None]):
        raise DefinitionError(problems)
    rows = np.flatnonzero(view.feasible)
    if not len(rows) or not len(wanted):
        raise DefinitionError(f"Study '{view.study}' has no policy within its limits to compare with.")
    distances = np.linalg.norm(view.weights[rows] - wanted, axis=1)
    row = int(rows[distances.argmin()])
    found = _combination(view.weights[rows], wanted)
    if found is None:
        return Probe(trial=view.trials[row], row=row, distance=float(distances.min()))
    members, shares = rows[found[0]], found[1]
    kl = float(shares @ view.kl[members])
    return Probe(
        trial=view.trials[row],
        row=row,
        distance=float(distances.min()),
        neighbours=tuple(view.trials[member] for member in members),
        shares=tuple(shares.tolist()),
        values=shares @ view.values[members],
        kl=kl if np.isfinite(kl) else None,
    )


def weights_text(view: FrontView, weights: Sequence[float] | FloatArray) -> str:
    """Returns weights as "helpful .33 brief .67"."""
    return label(np.asarray(weights), view.objectives)


def _combination(points: FloatArray, wanted: FloatArray) -> tuple[IntArray, FloatArray] | None:
    """Returns rows of `points` and shares with shares @ points[rows] = wanted: those of least squared distance.

    min sum_i s_i |x_i - wanted|^2 over s >= 0, sum s = 1, sum s_i x_i = wanted. Its solution is the simplex of the
    Delaunay triangulation around `wanted` (Rajan 1994), found without triangulating, in any number of objectives.
    """
    from scipy.optimize import linprog

    cost = ((points - wanted) ** 2).sum(axis=1)
    conditions = np.vstack([points.T, np.ones(len(points))])
    solved = linprog(cost, A_eq=conditions, b_eq=np.append(wanted, 1.0), bounds=(0, None), method="highs-ds")
    if not solved.success:
        return None
    rows = np.flatnonzero(solved.x > _SLACK)
    shares = solved.x[rows] / solved.x[rows].sum()
    return np.asarray(rows, dtype=np.int64), shares
