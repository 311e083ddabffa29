"""Quality indicators of a set of points [points, objectives]; every objective is maximised, float64 throughout.

Compare two numbers of one indicator only when they share the reference point, the reference set or the weights.
Hypervolume is measured in the product of the objectives' units and needs no normalisation; IGD, IGD+, epsilon and
sparsity mix units, so bring objectives to a common scale first. NaN and infinite values are refused by row number.
An empty set [0, objectives] has hypervolume 0 and cardinality 0; indicators that are an average or a maximum over
its points refuse it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix, as_vector
from moalign.errors import DefinitionError, NumericsWarning
from moalign.front import _moocore
from moalign.front.pareto import non_dominated

_POINTS_PER_CHUNK = 4096  # keeps the [weights, points] table of utilities small


def hypervolume(
    points: ArrayLike, reference_point: ArrayLike, *, unattained: Literal["warn", "raise", "ignore"] = "warn"
) -> float:
    """Returns the volume that `points` dominate above `reference_point`, exactly.

    HV(P, r) = volume of the union of the boxes [r, p] over all p in P with p > r in every objective. Other points,
    dominated points and repetitions change nothing.

    Args:
        points: [points, objectives]; may be empty.
        reference_point: [objectives], the fixed corner (not the reference policy).
        unattained: what to do when there are points, but none strictly above the reference point in every objective.
            The value is then 0 by definition, but a flipped sign or a misplaced corner produces the same 0.

    Raises:
        DefinitionError: shapes disagree, values are not finite, or `unattained="raise"` and no point counts.
    """
    matrix, reference = _with_reference_point(points, reference_point)
    volume = _moocore.hypervolume(matrix, reference)
    if volume == 0 and len(matrix) and unattained != "ignore":
        problem = unattained_problem(matrix, reference)
        if problem and unattained == "raise":
            raise DefinitionError(problem)
        if problem:
            warnings.warn(problem, NumericsWarning, stacklevel=2)
    return volume


def hypervolume_contributions(points: ArrayLike, reference_point: ArrayLike) -> Float[np.ndarray, " points"]:
    """Returns what each row alone adds: HV(P, r) - HV(P without that row, r), in units of hypervolume.

    Dominated rows and rows that occur more than once add 0; a dominated row lowers the contribution of the row above
    it, because it would partly take its place. Shapes and refusals are those of `hypervolume`.
    """
    return _moocore.contributions(*_with_reference_point(points, reference_point))


def hypervolume_improvement(
    points: ArrayLike, candidates: ArrayLike, reference_point: ArrayLike
) -> Float[np.ndarray, " candidates"]:
    """Returns HV(P and q, r) - HV(P, r) >= 0 for each row q of `candidates` [candidates, objectives], one at a time.

    Computed as volume of the box [r, q] minus the hypervolume of P clipped to q, which loses no digits when the
    improvement is small against HV(P). Refusals are those of `hypervolume`.
    """
    matrix, reference = _with_reference_point(points, reference_point)
    rows = _second_set(candidates, "candidates", matrix)
    boxes = np.prod(np.maximum(rows - reference, 0), axis=1)
    taken = np.array([_moocore.hypervolume(np.minimum(matrix, row), reference) for row in rows])
    return np.maximum(boxes - taken, 0.0) if len(rows) else np.zeros(0)


def igd(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the inverted generational distance: mean over the reference set of the distance to the nearest point.

    IGD(P; R) = mean_r min_p ||r - p||_2. Not Pareto compliant: a point beyond R counts as far away. Prefer `igd_plus`.

    Raises:
        DefinitionError: an empty set, shapes that disagree, or values that are not finite.
    """
    return _moocore.igd(*_two_sets(points, reference_set))


def igd_plus(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns IGD+, which counts only the objectives in which a point falls short (Ishibuchi et al. 2015).

    IGD+(P; R) = mean_r min_p ||max(r - p, 0)||_2; 0 when P weakly dominates R. Refusals as in `igd`.
    """
    return _moocore.igd_plus(*_two_sets(points, reference_set))


def epsilon_additive(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the smallest shift that makes `points` weakly dominate `reference_set`; negative when they already do.

    eps(P; R) = max_r min_p max_j (r_j - p_j). Refusals as in `igd`.
    """
    return _moocore.epsilon_additive(*_two_sets(points, reference_set))


def expected_utility(points: ArrayLike, weights: ArrayLike) -> float:
    """Returns the expected utility metric: mean over `weights` [weights, objectives] of the best weighted sum.

    EUM(P; W) = mean_w max_p w.p, in units of the weighted rewards. Adding points never lowers it; points inside the
    convex hull of the others are invisible to it. Quote it together with how W was made.

    Raises:
        DefinitionError: an empty set, shapes that disagree, or values that are not finite.
    """
    matrix, directions = _two_sets(points, weights, "weights")
    return float(_best_utilities(matrix, directions).mean())


def maximum_utility_loss(points: ArrayLike, reference_set: ArrayLike, weights: ArrayLike) -> float:
    """Returns the largest regret over `weights` of choosing from `points` instead of from `reference_set`.

    MUL(P; R, W) = max_w [max_r w.r - max_p w.p], signed: negative when P is better for every w. The maximum is over
    the given weights only. Refusals as in `expected_utility`.
    """
    matrix, others = _two_sets(points, reference_set)
    _, directions = _two_sets(points, weights, "weights")
    return float((_best_utilities(others, directions) - _best_utilities(matrix, directions)).max())


def sparsity(points: ArrayLike) -> float:
    """Returns the mean squared gap between neighbours of the front, summed over objectives; 0 below two points.

    SP(P) = 1/(n-1) sum_j sum_i (v_(i+1)j - v_ij)^2 with v_j the sorted values of objective j, over the n distinct
    non-dominated points (PGMORL; C-MORL). Misleading alone: a poor set with a single point scores the best value, 0,
    and the number moves both ways when points are added. Show cardinality and hypervolume beside it.

    Raises:
        DefinitionError: not a matrix, or rows that are not finite.
    """
    matrix = as_matrix(points, "points")
    front = matrix[non_dominated(matrix)]
    if len(front) < 2:
        return 0.0
    return float((np.diff(np.sort(front, axis=0), axis=0) ** 2).sum() / (len(front) - 1))


def cardinality(points: ArrayLike) -> int:
    """Returns the number of distinct non-dominated rows of `points` [points, objectives]."""
    return int(non_dominated(points).sum())


def infer_reference_point(points: ArrayLike, scale: float = 0.1) -> Float[np.ndarray, " objectives"]:
    """Returns a corner just below a set: nadir - scale * (ideal - nadir), over its non-dominated points.

    Pass the union of all sets to be compared, once, and record the result: a corner that moves while a set grows makes
    the hypervolume history meaningless. Points that are extreme in one objective contribute little to a hypervolume
    above this corner, since their other objectives are close to the nadir.

    An objective without any range steps down by scale * |value| instead, or by `scale` where that value is 0, so that
    the corner is strictly below the nadir. (botorch's `infer_reference_point` does so for single points only.)

    Args:
        points: [points, objectives], at least one row.
        scale: step below the nadir as a fraction of each objective's range, > 0.

    Raises:
        DefinitionError: no points, values that are not finite, or a scale that is not positive.
    """
    matrix = as_matrix(points, "points")
    _refuse_empty(matrix, "points")
    if not (np.isfinite(scale) and scale > 0):
        raise DefinitionError(f"scale must be a positive number, got {scale}; 0.1 is customary.")
    front = matrix[non_dominated(matrix)]
    nadir, ideal = front.min(axis=0), front.max(axis=0)
    magnitude = np.where(nadir == 0, 1.0, np.abs(nadir))
    return nadir - scale * np.where(ideal > nadir, ideal - nadir, magnitude)


def unattained_problem(points: FloatArray, reference_point: FloatArray, names: Sequence[str] = ()) -> str | None:
    """Returns a sentence when no row of `points` exceeds the reference point in every objective, else None.

    Args:
        points: [points, objectives], at least one row.
        reference_point: [objectives].
        names: of the objectives, for the sentence; their positions when empty.
    """
    if (points[0] > reference_point).all():  # the usual case, at the price of one row
        return None
    above = np.ones(len(points), dtype=np.bool_)
    for column, corner in zip(points.T, reference_point, strict=True):  # far quicker than all(axis=1) on narrow rows
        above &= column > corner
    if above.any():
        return None
    blocking = [
        f"objective {names[j] if names else j}: reference point {corner:g}, best value {best:g}"
        for j, (corner, best) in enumerate(zip(reference_point, points.max(axis=0), strict=True))
        if best <= corner
    ]
    reason = "; ".join(blocking) or "each objective is exceeded by some point, but never all of them by one"
    return (
        f"The hypervolume is 0, because no point exceeds the reference point in every objective ({reason}). "
        "Check the sign of the objectives (all are maximised) or choose a lower reference point."
    )


def _best_utilities(points: FloatArray, weights: FloatArray) -> FloatArray:
    best = np.full(len(weights), -np.inf)
    for start in range(0, len(points), _POINTS_PER_CHUNK):
        utilities = weights @ points[start : start + _POINTS_PER_CHUNK].T  # [weights, chunk]
        np.maximum(best, utilities.max(axis=1), out=best)
    return best


def _with_reference_point(points: ArrayLike, reference_point: ArrayLike) -> tuple[FloatArray, FloatArray]:
    matrix = as_matrix(points, "points")
    return matrix, as_vector(reference_point, "reference_point", matrix.shape[1])


def _two_sets(points: ArrayLike, others: ArrayLike, name: str = "reference_set") -> tuple[FloatArray, FloatArray]:
    matrix = as_matrix(points, "points")
    second = _second_set(others, name, matrix)
    _refuse_empty(matrix, "points")
    _refuse_empty(second, name)
    return matrix, second


def _second_set(others: ArrayLike, name: str, matrix: FloatArray) -> FloatArray:
    second = as_matrix(others, name)
    if second.shape[1] != matrix.shape[1]:
        raise DefinitionError(
            f"{name} has {second.shape[1]} columns but points has {matrix.shape[1]}; both need one per objective."
        )
    return second


def _refuse_empty(matrix: FloatArray, name: str) -> None:
    if not len(matrix):
        raise DefinitionError(f"{name} is empty; this indicator is undefined without at least one row.")
