"""Pareto dominance among points [points, objectives], all objectives maximised.

a dominates b when a_j >= b_j in every objective and a_j > b_j in at least one. Equal points do not dominate each
other. Results do not depend on the order of the rows, except that of identical rows the first one stands for all.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix
from moalign.errors import DefinitionError
from moalign.front import _moocore


def non_dominated(points: ArrayLike, keep_duplicates: bool = False) -> Bool[np.ndarray, " points"]:
    """Returns the mask of rows that no other row dominates.

    Args:
        points: [points, objectives], maximised. -inf is allowed (an objective that failed entirely), +inf is not.
        keep_duplicates: False marks only the first of identical rows, True marks all of them.

    Raises:
        DefinitionError: not a matrix, or rows with NaN or +inf; the rows are named.

    >>> non_dominated([[1, 3], [2, 2], [3, 1], [2, 2], [2, 1]]).tolist()
    [True, True, True, False, False]
    """
    return _moocore.non_dominated(_comparable(points), keep_duplicates)


def pareto_rank(points: ArrayLike) -> Int[np.ndarray, " points"]:
    """Returns the rank of each row: 0 when non-dominated, r when non-dominated once all ranks below r are removed.

    Identical rows share a rank. Arguments and refusals are those of `non_dominated`.
    """
    return _moocore.pareto_rank(_comparable(points))


def crowding_distance(points: ArrayLike) -> Float[np.ndarray, " points"]:
    """Returns how lonely each row is among `points` [points, objectives]; larger means less crowded (no unit).

    Sum over objectives of (next larger value - next smaller value) / range, where a row holding the minimum or the
    maximum of an objective is infinitely far away. An objective in which all rows agree adds nothing. Neighbours are
    distinct values, hence ties and row order do not matter; repetitions of an earlier row get 0. With at most two
    distinct rows every one of them is infinitely far away.

    Differs from NSGA-II (Deb et al. 2002), which sorts rows instead of values and lets ties depend on row order.

    Raises:
        DefinitionError: not a matrix, or rows that are not finite.
    """
    matrix = as_matrix(points, "points")
    first_rows = np.sort(np.unique(matrix, axis=0, return_index=True)[1])
    distances = np.zeros(len(matrix))
    distances[first_rows] = np.inf if len(first_rows) <= 2 else _distinct_crowding(matrix[first_rows])
    return distances


def _distinct_crowding(rows: FloatArray) -> FloatArray:
    total = np.zeros(len(rows))
    for column in rows.T:
        levels, level = np.unique(column, return_inverse=True)
        if len(levels) == 1:
            continue
        gaps = np.full(len(levels), np.inf)
        gaps[1:-1] = (levels[2:] - levels[:-2]) / (levels[-1] - levels[0])
        total += gaps[level]
    return total


def _comparable(points: ArrayLike) -> FloatArray:
    if isinstance(points, np.ndarray) and points.ndim == 2 and points.dtype == np.float64 and points.size:
        if points.max() < np.inf:  # one pass over what is usual: NaN and +inf fail the comparison
            return points
    matrix = as_matrix(points, "points", finite=False)
    if matrix.max(initial=-np.inf) == np.inf:
        infinite = np.flatnonzero((matrix == np.inf).any(axis=1))
        raise DefinitionError(
            f"points has +inf in rows {infinite[:5].tolist()}: such a row would dominate on a value nobody measured. "
            "Remove or recompute these rows."
        )
    return matrix
