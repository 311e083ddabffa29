"""Further indicators of point sets, all objectives maximised: generational distances, R2, spacing, supported points.

Distances, R2 and spacing mix the units of the objectives, so bring them to a common scale first. Sets that are empty,
shapes that disagree and values that are not finite are refused with a DefinitionError, as in `indicators`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix, as_vector, simplex_problems
from moalign.errors import DefinitionError
from moalign.front import _moocore
from moalign.front.indicators import hypervolume
from moalign.front.pareto import non_dominated

SUPPORTED = 1e-9  # relative margin by which a point has to be the best one under some weights


def gd(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the generational distance: mean over `points` of the distance to the nearest reference point.

    GD(P; R) = mean_p min_r ||r - p||_2. Low for a single good point, so read cardinality beside it.
    """
    matrix, others = _pair(points, reference_set)
    return _moocore.igd(others, matrix)  # the same mean with the roles exchanged


def gd_plus(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns GD+, which counts only the objectives in which a point falls short: mean_p min_r ||max(r - p, 0)||_2.

    Source: Ishibuchi et al. 2015.
    """
    matrix, others = _pair(points, reference_set)
    return _moocore.igd_plus(-others, -matrix)  # exchanged, so both change their sign: max(-p - -r, 0) = max(r - p, 0)


def hausdorff(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the averaged Hausdorff distance, the larger one of GD and IGD (Schuetze et al. 2012, p = 1)."""
    matrix, others = _pair(points, reference_set)
    return max(_moocore.igd(others, matrix), _moocore.igd(matrix, others))


def epsilon_multiplicative(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the smallest factor by which `points` must grow to weakly dominate `reference_set`.

    eps(P; R) = max_r min_p max_j r_j / p_j; at most 1 when P already does. All values must be positive.
    """
    matrix, others = _pair(points, reference_set)
    if matrix.min() <= 0 or others.min() <= 0:
        raise DefinitionError("epsilon_multiplicative needs positive values; shift the objectives or use the additive.")
    return _moocore.epsilon_multiplicative(matrix, others)


def r2(points: ArrayLike, weights: ArrayLike, utopian: ArrayLike) -> float:
    """Returns R2, the mean over weights of the smallest weighted Chebyshev distance to the utopian point; low is good.

    R2(P; W, u) = mean_w min_p max_j w_j |u_j - p_j|.

    Args:
        points: [points, objectives].
        weights: [weights, objectives] on the simplex.
        utopian: [objectives], at least as good as every point in every objective.
    """
    matrix, directions = _pair(points, weights, "weights")
    ideal = _utopian(matrix, utopian)
    problems = simplex_problems(directions)
    if problems:
        raise DefinitionError(problems)
    short = ideal - matrix
    return float(np.mean([(short * direction).max(axis=1).min() for direction in directions]))


def r2_exact(points: ArrayLike, utopian: ArrayLike) -> float:
    """Returns R2 of two objectives averaged over all weights: the integral over w from 0 to 1, exactly.

    Arguments as in `r2`. Source: the exact R2 indicator of Schaepermeier and Kerschke 2024.
    """
    matrix = _filled(points, "points")
    if matrix.shape[1] != 2:
        raise DefinitionError(f"r2_exact knows two objectives, got {matrix.shape[1]}; use r2 with many weights.")
    return _moocore.r2_exact(matrix, _utopian(matrix, utopian))


def spacing(points: ArrayLike) -> float:
    """Returns how uneven the front is: standard deviation of the L1 distances to the nearest neighbour; 0 below two.

    Over the distinct non-dominated points, in population form. (Schott 1995 divides by n - 1.) Evenness only: two
    bad points have the best value.
    """
    from scipy.spatial import KDTree

    matrix = as_matrix(points, "points")
    front = matrix[non_dominated(matrix)]
    if len(front) < 2:
        return 0.0
    distances, _ = KDTree(front).query(front, k=2, p=1)
    return float(np.std(distances[:, 1]))


def normalised_hypervolume(points: ArrayLike, reference_point: ArrayLike, ideal: ArrayLike) -> float:
    """Returns the hypervolume as a share of the box from the reference point to a fixed ideal, in [0, 1].

    Args:
        points: [points, objectives]; values beyond the ideal count up to it.
        reference_point: [objectives].
        ideal: [objectives], above the reference point in every objective.
    """
    matrix = as_matrix(points, "points")
    corner = as_vector(reference_point, "reference_point", matrix.shape[1])
    best = as_vector(ideal, "ideal", matrix.shape[1])
    if not (best > corner).all():
        raise DefinitionError(f"ideal {best.tolist()} must exceed the reference point {corner.tolist()} everywhere.")
    return hypervolume(np.minimum(matrix, best), corner, unattained="ignore") / float(np.prod(best - corner))


def supported(points: ArrayLike, *, weak: bool = False) -> Bool[np.ndarray, " points"]:
    """Returns which points are the best under some preference weights: the convex coverage set.

    Weighted sums, and so expected utility, can only ever find these. A point is supported when
    max over w on the simplex of min_q w . (p - q) is positive, over all other distinct non-dominated q.

    Args:
        points: [points, objectives]; of identical rows the first stands for all.
        weak: count points that only tie with others under their best weights, such as those inside a face.
    """
    matrix = as_matrix(points, "points")
    members = np.flatnonzero(non_dominated(matrix))
    mask = np.zeros(len(matrix), dtype=np.bool_)
    if not len(members):
        return mask
    front = matrix[members] / np.maximum(np.ptp(matrix[members], axis=0), np.finfo(float).tiny)
    for place, row in enumerate(members):
        others = np.delete(front, place, axis=0)
        margin = _largest_lead(front[place], others) if len(others) else np.inf
        mask[row] = margin > SUPPORTED or (weak and margin > -SUPPORTED)
    return mask


def largest_utility_loss(points: ArrayLike, reference_set: ArrayLike) -> float:
    """Returns the largest regret of choosing from `points` instead of the reference set, over the whole simplex.

    MUL(P; R) = max over w on the simplex of [max_r w . r - max_p w . p], exactly: one linear program for each r. What
    `maximum_utility_loss` approaches from below with more and more weights; signed like it.
    """
    matrix, others = _pair(points, reference_set)
    return max(_largest_lead(row, matrix) for row in others[non_dominated(others)])


def _largest_lead(row: FloatArray, others: FloatArray) -> float:
    """Returns max over w on the simplex of min_q w . (row - q): the lead of `row` under its best weights."""
    from scipy.optimize import linprog

    objectives = len(row)
    found = linprog(
        np.append(np.zeros(objectives), -1.0),  # variables w and the lead t, which is to be large
        A_ub=np.column_stack([others - row, np.ones(len(others))]),  # t <= w . (row - q)
        b_ub=np.zeros(len(others)),
        A_eq=np.append(np.ones(objectives), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * objectives + [(None, None)],
    )
    return float(-found.fun)


def hypervolume_approximate(
    points: ArrayLike, reference_point: ArrayLike, *, samples: int = 100_000, seed: int = 0
) -> float:
    """Returns an estimate of the hypervolume by random directions; relative error near .1 % with 10^5 of them.

    Worth its error from about six objectives and some hundred points on; below, `hypervolume` is exact and quicker.
    """
    matrix = as_matrix(points, "points")
    corner = as_vector(reference_point, "reference_point", matrix.shape[1])
    if samples < 1:
        raise DefinitionError(f"samples must be at least 1, got {samples}.")
    above = matrix[(matrix > corner).all(axis=1)]
    return _moocore.hypervolume_approximate(above, corner, samples, seed) if len(above) else 0.0


def deployed_utility(choosing: ArrayLike, fresh: ArrayLike, weights: ArrayLike) -> float:
    """Returns the expected utility of policies chosen by one measurement and paid by another.

    For each w the policy argmax_p w . choosing_p is deployed, and its worth is w . fresh_p. The expected utility of one
    noisy measurement is too high, because it takes the luckiest policy; this is not.

    Args:
        choosing, fresh: [policies, objectives], two independent measurements of the same policies.
        weights: [weights, objectives].
    """
    first, second = as_matrix(choosing, "choosing"), as_matrix(fresh, "fresh")
    if first.shape != second.shape:
        raise DefinitionError(f"choosing and fresh are of the same policies, got {first.shape} and {second.shape}.")
    matrix, directions = _pair(first, weights, "weights")
    chosen = (directions @ matrix.T).argmax(axis=1)
    return float((directions * second[chosen]).sum(axis=1).mean())


def _utopian(points: FloatArray, utopian: ArrayLike) -> Float[np.ndarray, " objectives"]:
    ideal = as_vector(utopian, "utopian", points.shape[1])
    if (points > ideal).any():
        raise DefinitionError(
            f"utopian {ideal.tolist()} must be at least the best values {points.max(axis=0).tolist()}."
        )
    return ideal


def _filled(points: ArrayLike, name: str) -> FloatArray:
    matrix = as_matrix(points, name)
    if not len(matrix):
        raise DefinitionError(f"{name} is empty; this indicator is undefined without at least one row.")
    return matrix


def _pair(points: ArrayLike, others: ArrayLike, name: str = "reference_set") -> tuple[FloatArray, FloatArray]:
    matrix, second = _filled(points, "points"), _filled(others, name)
    if second.shape[1] != matrix.shape[1]:
        raise DefinitionError(
            f"{name} has {second.shape[1]} columns but points has {matrix.shape[1]}; both need one per objective."
        )
    return matrix, second
