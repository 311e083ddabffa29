"""What may be tuned: numbers, whole numbers, choices and preference weights, as points of a cube and back.

A dimension takes `width` columns of the encoded point, all in [0, 1]: one for a number (its logarithm where declared),
one per option for a choice (one-hot), one per objective for weights. `snap` rounds an encoded point to one that can be
trained, so that a model never sees a value that was not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError


class Dimension(Protocol):
    """One thing that is tuned."""

    @property
    def width(self) -> int:
        """Columns of the encoded point."""

    def problems(self, name: str) -> list[str]:
        """Returns what cannot be meant."""

    def decode(self, columns: FloatArray) -> Any:
        """Returns the value nearest to these columns [width]."""

    def encode(self, value: Any) -> FloatArray:
        """Returns the columns [width] of a value."""

    def spread(self, uniform: FloatArray) -> FloatArray:
        """Returns evenly spread columns [points, width] from uniform numbers of the same shape."""

    def describe(self) -> dict[str, Any]:
        """Returns its kind and limits as JSON."""


@final
@dataclass(frozen=True)
class Number:
    """A number between two limits; `whole` for integers, `log` where ratios matter. See `uniform`, `log_uniform`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def width(self) -> int:
        return 1

    def problems(self, name: str) -> list[str]:
        ends = (self.low, self.high)
        if not all(isinstance(e, (int, float)) and math.isfinite(e) for e in ends) or self.low >= self.high:
            return [f"{name} needs finite limits low < high, got {self.low!r} and {self.high!r}."]
        if self.log and self.low <= 0:
            return [f"{name} is searched on a log scale, so its lower limit must be > 0, got {self.low!r}."]
        if self.whole and any(e != int(e) for e in ends):
            return [f"{name} takes whole numbers, got the limits {self.low!r} and {self.high!r}."]
        return []

    def decode(self, columns: FloatArray) -> Any:
        low, high = self._ends()
        value = low + float(np.clip(columns[0], 0, 1)) * (high - low)
        value = math.exp(value) if self.log else value
        value = min(max(value, self.low), self.high)
        return min(max(round(value), int(self.low)), int(self.high)) if self.whole else value

    def encode(self, value: Any) -> FloatArray:
        low, high = self._ends()
        at = math.log(value) if self.log else float(value)
        return np.array([(at - low) / (high - low)])

    def spread(self, uniform: FloatArray) -> FloatArray:
        return uniform

    def describe(self) -> dict[str, Any]:
        kind = "integer" if self.whole else "number"
        return {"kind": kind, "low": self.low, "high": self.high, "log": self.log}

    def _ends(self) -> tuple[float, float]:
        """The limits on the searched scale; half a unit wider for whole numbers, so that the ends are as likely."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        return (math.log(low), math.log(high)) if self.log else (low, high)


@final
@dataclass(frozen=True)
class Choice:
    """One of several values without an order."""

    options: tuple[Any, ...]

    @property
    def width(self) -> int:
        return len(self.options)

    def problems(self, name: str) -> list[str]:
        few = len(self.options) < 2
        return [f"{name} needs two options or more, got {list(self.options)!r}."] if few else []

    def decode(self, columns: FloatArray) -> Any:
        return self.options[int(np.argmax(columns))]

    def encode(self, value: Any) -> FloatArray:
        found = [i for i, option in enumerate(self.options) if option is value or option == value]
        if not found:
            raise DefinitionError(f"{value!r} is none of the options {list(self.options)!r}.")
        return np.eye(len(self.options))[found[0]]

    def spread(self, uniform: FloatArray) -> FloatArray:
        return np.eye(len(self.options))[uniform.argmax(axis=1)]

    def describe(self) -> dict[str, Any]:
        return {"kind": "choice", "options": [str(getattr(o, "__name__", o)) for o in self.options]}


@final
@dataclass(frozen=True)
class Simplex:
    """Preference weights: non-negative numbers, one per objective, that sum to one."""

    objectives: int

    @property
    def width(self) -> int:
        return self.objectives

    def problems(self, name: str) -> list[str]:
        ok = isinstance(self.objectives, int) and self.objectives >= 2
        return [] if ok else [f"{name} needs two objectives or more, got {self.objectives!r}."]

    def decode(self, columns: FloatArray) -> Any:
        kept = np.clip(columns, 0, None)
        total = float(kept.sum())
        return tuple(float(v) for v in (kept / total if total > 0 else np.full(len(kept), 1 / len(kept))))

    def encode(self, value: Any) -> FloatArray:
        return np.array(value, dtype=np.float64)

    def spread(self, uniform: FloatArray) -> FloatArray:
        """Exponential spacings, which are uniform on the simplex."""
        parts = -np.log(np.clip(uniform, 1e-12, 1.0))
        return parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12)

    def describe(self) -> dict[str, Any]:
        return {"kind": "simplex", "objectives": self.objectives}


def uniform(low: float, high: float) -> Number:
    """Returns the dimension of numbers between `low` and `high`."""
    return Number(low, high)


def log_uniform(low: float, high: float) -> Number:
    """Returns the dimension of positive numbers whose ratios matter, such as learning rates."""
    return Number(low, high, log=True)


def integers(low: int, high: int, *, log: bool = False) -> Number:
    """Returns the dimension of whole numbers from `low` to `high`, both included."""
    return Number(low, high, log=log, whole=True)


def choice(*options: Any) -> Choice:
    """Returns the dimension of these values, which have no order."""
    return Choice(tuple(options))


def on_simplex(objectives: int) -> Simplex:
    """Returns the dimension of preference weights over so many objectives."""
    return Simplex(objectives)


@final
@dataclass(frozen=True, eq=False)
class Space:
    """All dimensions by name, in a fixed order."""

    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise DefinitionError('search is empty; name what to tune, such as {"method.beta": log_uniform(0.01, 1)}.')
        problems = []
        for name, dimension in self.dimensions.items():
            if not hasattr(dimension, "decode"):
                problems.append(f"{name} must be log_uniform, uniform, integers, choice or on_simplex: {dimension!r}.")
            else:
                problems += dimension.problems(name)
        if problems:
            raise DefinitionError(problems, where="search")

    @property
    def width(self) -> int:
        return sum(d.width for d in self.dimensions.values())

    @property
    def parts(self) -> dict[str, slice]:
        """The columns of each dimension."""
        ends = np.cumsum([d.width for d in self.dimensions.values()]).tolist()
        starts = [0, *ends[:-1]]
        return {name: slice(a, b) for name, a, b in zip(self.dimensions, starts, ends, strict=True)}

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """Returns the values by name of an encoded point [width]."""
        return {name: self.dimensions[name].decode(row[part]) for name, part in self.parts.items()}

    def encode(self, values: Mapping[str, Any]) -> FloatArray:
        """Returns the encoded point [width] of values by name."""
        return np.concatenate([d.encode(values[name]) for name, d in self.dimensions.items()])

    def snap(self, rows: FloatArray) -> FloatArray:
        """Returns the nearest points [points, width] that stand for values."""
        return np.stack([self.encode(self.decode(row)) for row in rows])

    def sobol(self, count: int, seed: int, skip: int = 0) -> FloatArray:
        """Returns evenly spread points [count, width] of a scrambled Sobol sequence, after the first `skip`."""
        from scipy.stats.qmc import Sobol

        engine = Sobol(self.width, scramble=True, seed=seed)
        if skip:
            engine.fast_forward(skip)
        return self.spread(engine.random(count))

    def spread(self, uniform: FloatArray) -> FloatArray:
        """Returns points that stand for values from uniform numbers [points, width]."""
        columns = [self.dimensions[name].spread(uniform[:, part]) for name, part in self.parts.items()]
        return self.snap(np.concatenate(columns, axis=1))

    def near(self, rows: FloatArray, scale: float, rng: np.random.Generator) -> FloatArray:
        """Returns one neighbour of each point: numbers moved by about `scale`, a choice now and then taken anew."""
        moved = rows + scale * rng.standard_normal(rows.shape)
        for name, part in self.parts.items():
            dimension = self.dimensions[name]
            if isinstance(dimension, Choice):
                again = rng.random(len(rows)) < scale
                fresh = np.eye(dimension.width)[rng.integers(dimension.width, size=len(rows))]
                moved[:, part] = np.where(again[:, None], fresh, rows[:, part])
            elif not isinstance(dimension, Simplex):
                moved[:, part] = np.abs(moved[:, part])  # reflected at both ends
                moved[:, part] = 1 - np.abs(1 - moved[:, part])
        return self.snap(moved)

    def describe(self) -> list[dict[str, Any]]:
        """Returns name, kind and limits of every dimension as JSON."""
        return [{"name": name, **d.describe()} for name, d in self.dimensions.items()]


def distinct(rows: FloatArray, known: FloatArray) -> FloatArray:
    """Returns the rows that equal no known row within 1e-6."""
    if not len(known) or not len(rows):
        return rows
    nearest = np.abs(rows[:, None] - known[None]).max(axis=2).min(axis=1)
    return rows[nearest > 1e-6]


def names_of(values: Sequence[str] | str) -> tuple[str, ...]:
    """Returns one name or several as a tuple."""
    return (values,) if isinstance(values, str) else tuple(values)
