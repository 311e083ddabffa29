"""Which preference directions a conditioned policy learns to follow: distributions over unit vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np

from moalign.arrays import BoolArray, FloatArray
from moalign.errors import DefinitionError


@runtime_checkable
class Directions(Protocol):
    """A distribution over unit vectors of preference weights."""

    def draw(self, objectives: int, n: int, rng: np.random.Generator) -> FloatArray:
        """Returns `n` unit vectors [n, objectives]."""

    def covers(self, directions: FloatArray) -> BoolArray:
        """Returns which unit vectors [n, objectives] the distribution can draw."""


@final
@dataclass(frozen=True)
class Orthant:
    """Directions of all preference weights on the simplex: none is negative.

    Attributes:
        concentration: of the symmetric Dirichlet distribution of the weights; below 1 favours corners and edges.
    """

    concentration: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.concentration) and self.concentration > 0):
            raise DefinitionError(f"Orthant concentration must be > 0, got {self.concentration}.")

    def draw(self, objectives: int, n: int, rng: np.random.Generator) -> FloatArray:
        weights = rng.dirichlet(np.full(objectives, self.concentration), size=n)
        return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True))

    def covers(self, directions: FloatArray) -> BoolArray:
        return np.asarray((directions >= -1e-9).all(axis=1))


@final
@dataclass(frozen=True)
class Cone:
    """Directions within an angle of one objective; the other entries may be negative (arXiv 2402.18571).

    Attributes:
        axis: number of the objective in the middle.
        degrees: largest angle to it, in (0, 90]. With two objectives the angle is uniform, else directions are.
    """

    axis: int = 0
    degrees: float = 45.0

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 90:
            raise DefinitionError(f"Cone degrees must be in (0, 90], got {self.degrees}.")
        if self.axis < 0:
            raise DefinitionError(f"Cone axis is the number of an objective, got {self.axis}.")

    def draw(self, objectives: int, n: int, rng: np.random.Generator) -> FloatArray:
        if not 0 <= self.axis < objectives:
            raise DefinitionError(f"Cone axis {self.axis} is no objective; there are {objectives}, counted from 0.")
        if objectives == 2:
            angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees, size=n))
            plane = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            return plane if self.axis == 0 else plane[:, ::-1]
        rows: list[FloatArray] = []
        while len(rows) < n:
            vectors = rng.standard_normal((4 * n, objectives))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows.extend(vectors[self.covers(vectors)])
        return np.array(rows[:n]).reshape(n, objectives)

    def covers(self, directions: FloatArray) -> BoolArray:
        return np.asarray(directions[:, self.axis] >= math.cos(math.radians(self.degrees)) - 1e-9)
