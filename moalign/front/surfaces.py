"""Where several runs of one method come to lie: empirical attainment of sets of points, all objectives maximised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import BoolArray, FloatArray, as_matrix, as_vector
from moalign.errors import DefinitionError
from moalign.front import _moocore
from moalign.front.indicators import hypervolume
from moalign.front.pareto import non_dominated


def attainment(runs: Sequence[ArrayLike], targets: ArrayLike) -> Float[np.ndarray, " targets"]:
    """Returns the share of runs in which some point is at least as good as the target in every objective.

    Args:
        runs: one set of points [points, objectives] per run (seed); an empty set attains nothing.
        targets: [targets, objectives].

    Raises:
        DefinitionError: no run, other numbers of objectives, or values that are not finite.
    """
    sets, goals = _sets(runs), as_matrix(targets, "targets")
    if goals.shape[1] != sets[0].shape[1]:
        raise DefinitionError(f"targets has {goals.shape[1]} objectives, the runs have {sets[0].shape[1]}.")
    hits: list[BoolArray] = [(points[None] >= goals[:, None]).all(axis=2).max(axis=1, initial=False) for points in sets]
    return np.mean(np.stack(hits), axis=0)


def attainment_surface(runs: Sequence[ArrayLike], share: float = 0.5) -> Float[np.ndarray, "corners objectives"]:
    """Returns the corners of the region that at least this share of the runs attains; .5 is the median front.

    The best (.01), median and worst (1) surfaces of a method show its spread over seeds as a mean front could not.

    Args:
        runs: one set of points [points, objectives] per run; two or three objectives.
        share: of the runs, in (0, 1].

    Raises:
        DefinitionError: as in `attainment`, more than three objectives, or a share out of range.

    Source: Grunert da Fonseca et al. 2001; computed by moocore.
    """
    sets = _sets(runs)
    if not 0 < share <= 1:
        raise DefinitionError(f"share must be in (0, 1], got {share}.")
    if sets[0].shape[1] not in (2, 3):
        raise DefinitionError(f"attainment surfaces are known for 2 and 3 objectives, got {sets[0].shape[1]}.")
    if sum(len(points) > 0 for points in sets) < share * len(sets):
        return np.zeros((0, sets[0].shape[1]))
    points = np.concatenate(sets)
    labels = np.repeat(np.arange(1, len(sets) + 1), [len(s) for s in sets])
    if (np.bincount(labels, minlength=len(sets) + 1)[1:] == 0).any():  # moocore counts the sets that have points
        share = share * len(sets) / len(np.unique(labels))
        labels = np.unique(labels, return_inverse=True)[1] + 1
    corners = _moocore.attained(points, labels.astype(np.int64), [100 * share])[:, :-1]
    return corners[non_dominated(corners)]


@final
@dataclass(frozen=True, eq=False)
class Vorobev:
    """What lies in the middle of several runs' attained regions, and how far the runs are from it.

    Attributes:
        surface: corners of the Vorob'ev expectation [corners, objectives]: the attainment surface whose hypervolume is
            nearest above the runs' mean.
        share: of the runs that attain it.
        hypervolume: mean over the runs.
        deviation: volume by which a run's region and the expectation differ, mean over the runs.
    """

    surface: Float[np.ndarray, "corners objectives"]
    share: float
    hypervolume: float
    deviation: float


def vorobev(runs: Sequence[ArrayLike], reference_point: ArrayLike) -> Vorobev:
    """Returns the Vorob'ev expectation of several runs, a mean front, and the deviation from it.

    Args:
        runs: one set of points [points, objectives] per run; two or three objectives.
        reference_point: [objectives], the corner of all volumes.

    Raises:
        DefinitionError: as in `attainment_surface`, or another number of objectives.

    Source: Binois, Ginsbourger and Roustant 2015. The volume of a symmetric difference is 2 V(A or B) - V(A) - V(B).
    """
    sets = _sets(runs)
    corner = as_vector(reference_point, "reference_point", sets[0].shape[1])

    def volume(*points: FloatArray) -> float:
        return hypervolume(np.concatenate(points), corner, unattained="ignore")

    volumes = [volume(points) for points in sets]
    mean = float(np.mean(volumes))
    enough, beyond = 1, len(sets) + 1  # the union of all regions has at least the mean volume
    while beyond - enough > 1:  # surfaces shrink as the share grows
        middle = (enough + beyond) // 2
        reaches = volume(attainment_surface(sets, middle / len(sets))) >= mean * (1 - 1e-12)
        enough, beyond = (middle, beyond) if reaches else (enough, middle)
    share = enough / len(sets)
    surface = attainment_surface(sets, share)
    own = volume(surface)
    apart = [2 * volume(points, surface) - v - own for points, v in zip(sets, volumes, strict=True)]
    return Vorobev(surface, share, mean, max(0.0, float(np.mean(apart))))


def _sets(runs: Sequence[ArrayLike]) -> list[FloatArray]:
    sets = [as_matrix(run, f"runs[{k}]") for k, run in enumerate(runs)]
    if not sets:
        raise DefinitionError("runs is empty; attainment needs at least one set of points.")
    widths = {points.shape[1] for points in sets}
    if len(widths) > 1:
        raise DefinitionError(f"the runs have different numbers of objectives: {sorted(widths)}.")
    return sets
