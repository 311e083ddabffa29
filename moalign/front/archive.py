"""Archives that take points one by one and know their hypervolume at any time. All objectives are maximised.

An archive keeps the non-dominated points strictly above the reference point; the others cannot change the hypervolume.
In the plane a point costs a bisection and the strips it changes. In more dimensions it costs one pass over the archive
and the hypervolume of the few points that bound the newcomer's own region, relative to that region's corner.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from moalign.arrays import BoolArray, FloatArray, as_vector
from moalign.errors import DefinitionError
from moalign.front import _moocore

_FIRST_CAPACITY = 64


@final
class Archive:
    """The non-dominated points so far, and their hypervolume above a fixed reference point.

    Args:
        reference_point: [objectives], two or more, finite.

    Raises:
        DefinitionError: fewer than two objectives, or values that are not finite.

    >>> archive = Archive([0.0, 0.0])
    >>> [archive.insert(point) for point in [(1, 3), (3, 1), (2, 2), (2, 1)]]
    [3.0, 2.0, 1.0, 0.0]
    >>> archive.hypervolume, len(archive)
    (6.0, 3)
    """

    def __init__(self, reference_point: ArrayLike) -> None:
        corner = as_vector(reference_point, "reference_point")
        if len(corner) < 2:
            raise DefinitionError(f"an archive needs at least 2 objectives, got {len(corner)}; use max() for one.")
        self._kept: _Staircase | _Cloud = _Staircase(*corner.tolist()) if len(corner) == 2 else _Cloud(corner)
        self._objectives = len(corner)
        self.hypervolume = 0.0

    def insert(self, point: Sequence[float | int] | FloatArray) -> float:
        """Returns the hypervolume that `point` adds; 0 when it is dominated, repeated, or not above the reference.

        Raises:
            DefinitionError: another number of objectives, or values that are not finite.
        """
        values = point.tolist() if isinstance(point, np.ndarray) else point
        if len(values) != self._objectives or not all(map(math.isfinite, values)):
            raise DefinitionError(f"a point must be {self._objectives} finite numbers, got {values!r}.")
        gained = self._kept.insert(values)
        self.hypervolume += gained
        return gained

    @property
    def points(self) -> Float[np.ndarray, "points objectives"]:
        """The points kept, as a copy; in no particular order."""
        return self._kept.points()

    def __len__(self) -> int:
        return len(self._kept)


@final
class _Staircase:
    """Two objectives: abscissae ascending, ordinates descending."""

    def __init__(self, left: float, bottom: float) -> None:
        self._left, self._bottom = left, bottom
        self._x: list[float] = []
        self._y: list[float] = []

    def insert(self, point: Sequence[float | int]) -> float:
        x, y = point
        xs, ys = self._x, self._y
        first = last = bisect_left(xs, x)  # the point's place; first..last are the points it dominates
        if x <= self._left or y <= self._bottom or (first < len(xs) and ys[first] >= y):
            return 0.0
        if last < len(xs) and xs[last] == x:
            last += 1
        while first and ys[first - 1] <= y:
            first -= 1
        left, gained = xs[first - 1] if first else self._left, 0.0
        for k in range(first, last):  # strips (left, xs[k]] that were ys[k] high
            gained += (y - ys[k]) * (xs[k] - left)
            left = xs[k]
        gained += (y - (ys[last] if last < len(ys) else self._bottom)) * (x - left)
        xs[first:last], ys[first:last] = [x], [y]
        return gained

    def points(self) -> FloatArray:
        return np.array([self._x, self._y], dtype=np.float64).T

    def __len__(self) -> int:
        return len(self._x)


@final
class _Cloud:
    """Three or more objectives: columns [objectives, points] in one growing block, in no order."""

    def __init__(self, corner: FloatArray) -> None:
        self._corner = corner
        self._block = np.empty((len(corner), _FIRST_CAPACITY))
        self._count = 0

    def insert(self, point: Sequence[float | int]) -> float:
        values = np.array(point)
        if not (values > self._corner).all():
            return 0.0
        kept = self._block[:, : self._count]
        # in how many objectives each point is at least as good; row by row, which is several times quicker
        reached = sum((row >= v).view(np.int8) for row, v in zip(kept, values, strict=True))
        if self._count and reached.max() == len(values):
            return 0.0
        gained = self._exclusive(values, kept, reached) if self._count else float(np.prod(values - self._corner))
        self._remove(np.flatnonzero(_everywhere(np.less_equal, kept, values)))
        self._append(values)
        return gained

    def _exclusive(self, values: FloatArray, kept: FloatArray, reached: NDArray[np.int8]) -> float:
        """Returns the volume that only the newcomer dominates.

        A point as good in all objectives but j covers everything below its value in j. So the region lies above the
        corner of these values, and only points above that corner cut anything else out of it.
        """
        corner = self._corner.copy()
        all_but_one = kept[:, reached == len(values) - 1]
        which = (all_but_one < values[:, None]).argmax(axis=0)
        np.maximum.at(corner, which, all_but_one[which, np.arange(len(which))])
        above = np.flatnonzero(_everywhere(np.greater, kept, corner))
        box = float(np.prod(values - corner))
        if not len(above):
            return box
        clipped = np.minimum(kept[:, above], values[:, None]).T
        return max(0.0, box - _moocore.hypervolume(np.ascontiguousarray(clipped), corner))

    def _remove(self, positions: np.ndarray) -> None:
        if len(positions):
            stays = np.delete(self._block[:, : self._count], positions, axis=1)
            self._count = stays.shape[1]
            self._block[:, : self._count] = stays

    def _append(self, values: FloatArray) -> None:
        if self._count == self._block.shape[1]:
            self._block = np.concatenate([self._block, np.empty_like(self._block)], axis=1)
        self._block[:, self._count] = values
        self._count += 1

    def points(self) -> FloatArray:
        return self._block[:, : self._count].T.copy()

    def __len__(self) -> int:
        return self._count


def _everywhere(compare: np.ufunc, columns: FloatArray, values: FloatArray) -> BoolArray:
    """Returns which of the columns [objectives, points] compare so with `values` in every objective."""
    mask: BoolArray = compare(columns[0], values[0])
    for row, value in zip(columns[1:], values[1:], strict=True):
        mask &= compare(row, value)
    return mask
