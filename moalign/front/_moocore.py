"""The only door to moocore (LGPL, imported unchanged), which minimises; everything on our side maximises.

The direction is stated once, in `_MAXIMISE`. moocore accepts NaN rows silently, so callers validate first: every
function here expects finite float64 matrices [points, objectives] (the two filters also take -inf).
"""

from __future__ import annotations

import moocore
import numpy as np
from jaxtyping import Bool, Float, Int

_MAXIMISE = True

_Points = Float[np.ndarray, "points objectives"]
_Others = Float[np.ndarray, "others objectives"]


def non_dominated(points: _Points, keep_duplicates: bool) -> Bool[np.ndarray, " points"]:
    mask: Bool[np.ndarray, " points"] = moocore.is_nondominated(points, maximise=_MAXIMISE, keep_weakly=keep_duplicates)
    return mask


def pareto_rank(points: _Points) -> Int[np.ndarray, " points"]:
    return np.asarray(moocore.pareto_rank(points, maximise=_MAXIMISE), dtype=np.int64)


def hypervolume(points: _Points, reference_point: Float[np.ndarray, " objectives"]) -> float:
    return float(moocore.hypervolume(points, ref=reference_point, maximise=_MAXIMISE))


def hypervolumes(points: _Points, counts: Int[np.ndarray, " sets"]) -> Float[np.ndarray, " sets"]:
    """Returns the hypervolume above 0 of each of many small sets, whose points are consecutive rows."""
    volume = moocore.Hypervolume(ref=np.zeros(points.shape[1]))  # turned round once: moocore's own turn costs more
    sets = np.split(np.ascontiguousarray(-points), np.cumsum(counts)[:-1])
    return np.array([volume(some) if len(some) else 0.0 for some in sets])


def contributions(points: _Points, reference_point: Float[np.ndarray, " objectives"]) -> Float[np.ndarray, " points"]:
    if points.shape[1] == 1:  # moocore wants two objectives; a second one of height 1 keeps every length
        points = np.column_stack([points, np.ones(len(points))])
        reference_point = np.append(reference_point, 0.0)
    # ignore_dominated=False is the literal definition: a dominated row fills part of the hole its dominator leaves.
    exclusive = moocore.hv_contributions(points, ref=reference_point, maximise=_MAXIMISE, ignore_dominated=False)
    return np.asarray(exclusive, dtype=np.float64)


def igd(points: _Points, reference_set: _Others) -> float:
    return float(moocore.igd(points, ref=reference_set, maximise=_MAXIMISE))


def igd_plus(points: _Points, reference_set: _Others) -> float:
    return float(moocore.igd_plus(points, ref=reference_set, maximise=_MAXIMISE))


def epsilon_additive(points: _Points, reference_set: _Others) -> float:
    return float(moocore.epsilon_additive(points, ref=reference_set, maximise=_MAXIMISE))


def epsilon_multiplicative(points: _Points, reference_set: _Others) -> float:
    return float(moocore.epsilon_mult(points, ref=reference_set, maximise=_MAXIMISE))


def r2_exact(points: _Points, utopian: Float[np.ndarray, " objectives"]) -> float:
    return float(moocore.r2_exact(points, ref=utopian, maximise=_MAXIMISE))


def attained(
    points: _Points, sets: Int[np.ndarray, " points"], percentiles: list[float]
) -> Float[np.ndarray, "rows columns"]:
    """Returns the attainment surfaces, one row per corner, the percentile last; moocore's own minimises only."""
    found = np.asarray(moocore.eaf(-points, sets, percentiles=percentiles), dtype=np.float64)
    found[:, :-1] *= -1
    return found


def hypervolume_approximate(
    points: _Points, reference_point: Float[np.ndarray, " objectives"], samples: int, seed: int
) -> float:
    found = moocore.hv_approx(
        points, ref=reference_point, maximise=_MAXIMISE, nsamples=samples, seed=seed, method="DZ2019-MC"
    )
    return float(found)
