"""The hypervolume after each of many points, all known beforehand. All objectives are maximised.

What a point adds is decided by few of its predecessors. Of those that are as good in all objectives but one, the best
in that one gives a corner, and only points above this corner cut anything else out of the newcomer's region. The same
holds for a group of points, with the best values of the group in place of a point's. So points are divided into ever
smaller groups of near ones, and each group passes on only the candidates above its corner. This takes about n log n
steps, also when no point dominates another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import BoolArray, FloatArray, IntArray, as_matrix, as_vector
from moalign.front import _moocore
from moalign.front.archive import Archive

LEAF = 64  # points of a group that is not divided further


def hypervolume_history(points: ArrayLike, reference_point: ArrayLike) -> Float[np.ndarray, " points"]:
    """Returns the hypervolume of the first row, of the first two rows, and so on; it never falls.

    Args:
        points: [points, objectives], in the order of their arrival.
        reference_point: [objectives].

    Raises:
        DefinitionError: shapes that disagree, or values that are not finite.
    """
    matrix = as_matrix(points, "points")
    corner = as_vector(reference_point, "reference_point", matrix.shape[1])
    if len(corner) == 1:
        return np.maximum(np.maximum.accumulate(matrix[:, 0]) - corner[0], 0.0)
    gains = np.zeros(len(matrix))
    new = np.flatnonzero((matrix > corner).all(axis=1))
    if len(new):  # rows that an earlier row dominates are those dominated with time for one more objective
        arrivals = -np.arange(len(new), dtype=np.float64)
        new = new[_moocore.non_dominated(np.column_stack([matrix[new], arrivals]), True)]
    if len(corner) == 2:
        archive = Archive(corner)
        gains[new] = [archive.insert(row) for row in matrix[new]]
    elif len(new):
        gains[new] = _Gains(matrix[new] - corner).found
    return np.cumsum(gains)


@final
class _Gains:
    """What every point [points, objectives] adds to the hypervolume above 0 of its predecessors.

    None of them dominates it, and all values are above 0.
    """

    def __init__(self, points: FloatArray) -> None:
        count, objectives = points.shape
        self.columns = points.T.copy()
        self.ranks = np.argsort(np.argsort(self.columns, axis=1, kind="stable"), axis=1)
        self.found = np.empty(count)
        # groups first differ in time, where each begins when half of its predecessors are there, then in values
        ends = [count >> k for k in range(count.bit_length())]
        groups = [(np.arange(end // 2, end), np.arange(end), np.zeros(objectives)) for end in ends]
        while groups:
            members, candidates, corner = groups.pop()
            candidates, corner = self._above(members, candidates, corner)
            if len(members) <= LEAF:
                self._settle(members, candidates, corner)
            else:
                ranks = self.ranks[:, members]
                halves = np.argpartition(ranks[np.ptp(ranks, axis=1).argmax()], len(members) // 2)
                groups += [(members[some], candidates, corner) for some in np.array_split(halves, 2)]

    def _above(self, members: IntArray, candidates: IntArray, corner: FloatArray) -> tuple[IntArray, FloatArray]:
        """Returns the candidates that may matter to a member: earlier than the last, above the corner; and the corner.

        Candidates are in order of time, so those earlier than all members come first.
        """
        first, last = np.searchsorted(candidates, (members.min(), members.max()))
        candidates = candidates[:last]
        values = self.columns[:, candidates]
        early = values[:, :first]
        covers = _all_but_one(early >= self.columns[:, members].max(axis=1)[:, None])
        corner = np.array([v[c].max(initial=low) for v, c, low in zip(early, covers, corner, strict=True)])
        return candidates[np.logical_and.reduce(values > corner[:, None])], corner

    def _settle(self, members: IntArray, candidates: IntArray, corner: FloatArray) -> None:
        """Finds each member's box above its own corner, less what its predecessors dominate of the box."""
        own, values = self.columns[:, members], self.columns[:, candidates]
        above = candidates < members[:, None]  # [members, candidates]
        covers = _all_but_one([(value >= best[:, None]) & above for value, best in zip(values, own, strict=True)])
        corners = np.stack([(c * v).max(axis=1, initial=low) for v, c, low in zip(values, covers, corner, strict=True)])
        for value, low in zip(values, corners, strict=True):
            above &= value > low[:, None]
        rows, places = np.divmod(np.flatnonzero(above), len(candidates))  # far quicker than np.nonzero
        clipped = np.minimum(values[:, places], own[:, rows]) - corners[:, rows]
        taken = _moocore.hypervolumes(clipped.T, above.sum(axis=1))
        self.found[members] = np.maximum(np.prod(own - corners, axis=0) - taken, 0.0)


def _all_but_one(reached: Sequence[BoolArray] | BoolArray) -> list[BoolArray]:
    """Returns for each of three or more objectives where all the others are reached."""
    return [reduce(np.logical_and, (*reached[:j], *reached[j + 1 :])) for j in range(len(reached))]
