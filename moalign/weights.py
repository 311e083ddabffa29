"""Preference weights on the simplex: lattices, random draws, normalising, and reading what a user wrote.

A weight vector says how much each objective counts: non-negative, sum one, in the order of the problem's objectives.
Pure numpy, nothing is random without a seed.
"""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, direction_problems, simplex_problems
from moalign.errors import DefinitionError

__all__ = ["dirichlet", "energy", "grid", "label", "named", "normalize"]


def grid(objectives: int, steps: int) -> Float[FloatArray, "weights objectives"]:
    """Returns every weight vector whose entries are multiples of 1/steps, C(steps + objectives - 1, steps) of them.

    The simplex lattice of Das and Dennis (1998). Rows descend lexicographically: row 0 is all weight on the first
    objective, the last row all weight on the last. The lattice is counted in integers, so no row is lost to rounding.
    Interior vectors (every objective weighted) exist only for steps >= objectives.

    Args:
        objectives: number of objectives, at least 1.
        steps: number of equal parts the simplex edge is cut into, at least 1; `grid(3, 3)` has 10 rows.

    Raises:
        DefinitionError: a count that is not a positive whole number.
    """
    _counts(objectives=objectives, steps=steps)
    if objectives == 1:
        return np.ones((1, 1))
    slots = steps + objectives - 1  # stars and bars: objectives - 1 bars cut `steps` stars into parts
    places = itertools.chain.from_iterable(itertools.combinations(range(slots), objectives - 1))
    count = math.comb(slots, objectives - 1)
    bars = np.fromiter(places, dtype=np.int64, count=count * (objectives - 1)).reshape(count, objectives - 1)
    parts = np.diff(bars, axis=1, prepend=-1, append=slots) - 1
    return parts[::-1] / steps


def dirichlet(objectives: int, n: int, seed: int, alpha: float = 1.0) -> Float[FloatArray, "weights objectives"]:
    """Returns `n` weight vectors drawn from a symmetric Dirichlet distribution; the same seed gives the same rows.

    Args:
        objectives: number of objectives, at least 1.
        n: number of vectors, at least 1.
        seed: seed of numpy's default generator, at least 0.
        alpha: concentration > 0: 1 is uniform on the simplex, below 1 favours corners, above 1 the centre.

    Raises:
        DefinitionError: a count that is not a positive whole number, a negative seed, or alpha not positive and finite.
    """
    _counts(objectives=objectives, n=n)
    if not _whole(seed) or seed < 0:
        raise DefinitionError(f"dirichlet needs a whole number >= 0 as seed, got {seed!r}.")
    if not (math.isfinite(alpha) and alpha > 0):
        raise DefinitionError(f"dirichlet needs a finite alpha > 0, got {alpha!r}; 1 is uniform on the simplex.")
    return np.random.default_rng(seed).dirichlet(np.full(objectives, float(alpha)), size=n)


def energy(objectives: int, n: int, seed: int = 0) -> Float[FloatArray, "weights objectives"]:
    """Returns `n` weight vectors spread evenly over the simplex for any `n`, its corners among them.

    They minimise the Riesz energy, the sum over pairs of 1 / distance^(2 objectives). It takes a second or so for each
    hundred vectors; the same seed gives the same rows.

    Args:
        objectives: number of objectives, at least 2.
        n: number of vectors, at least as many as objectives.
        seed: of the start, at least 0.

    Raises:
        DefinitionError: a count that is not a whole number or too small, or a negative seed.

    Source: Blank, Deb et al. 2021; computed by pymoo.
    """
    _counts(objectives=objectives, n=n)
    if objectives < 2 or n < objectives:
        raise DefinitionError(
            f"energy needs 2 objectives or more, and a weight vector for each, got {objectives} and {n}."
        )
    if not _whole(seed) or seed < 0:
        raise DefinitionError(f"energy needs a whole number >= 0 as seed, got {seed!r}.")
    from pymoo.util.ref_dirs import get_reference_directions

    found = np.maximum(np.asarray(get_reference_directions("energy", objectives, n, seed=seed)), 0.0)
    return normalize(found[np.lexsort(-found.T[::-1])])


def normalize(weights: ArrayLike) -> Float[FloatArray, "*weights objectives"]:
    """Returns `weights` [*weights, objectives] with every vector divided by its sum.

    Raises:
        DefinitionError: nothing given, or a vector that is negative somewhere, all zero, or not finite; lists them all.
    """
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise DefinitionError(f"weights must hold at least one number per vector, got shape {array.shape}.")
    rows = array.reshape(-1, array.shape[-1])
    problems = []
    for i, row in enumerate(rows):
        if not np.isfinite(row).all():
            problems.append(f"weights[{i}] = {_shown(row)} is not finite.")
        elif (row < 0).any():
            problems.append(f"weights[{i}] = {_shown(row)} has a negative entry; preference weights must be >= 0.")
        elif not row.any():
            problems.append(f"weights[{i}] is all zero, so it prefers nothing and has no direction to keep.")
    if problems:
        raise DefinitionError(problems)
    shares = array / array.max(axis=-1, keepdims=True)  # first to at most one: the sum of huge entries would overflow
    return shares / shares.sum(axis=-1, keepdims=True)


def named(
    weights: Any, objectives: Sequence[str], *, directions: bool = False
) -> Float[FloatArray, "weights objectives"]:
    """Returns what a user gave as preference weights as a checked matrix, columns in objective order.

    Args:
        weights: a matrix [weights, objectives]; one vector; a dict of weights by objective name, where names left out
            count zero; or a list that mixes vectors and dicts.
        objectives: the names of the objectives, in axis order.
        directions: take any finite weights that are not all zero, negative ones too; else they must lie on the simplex.

    Raises:
        DefinitionError: lists every problem of every row: an unknown name (with the nearest known one), a wrong length,
            a value that is not a number, a negative or non-finite entry, or a sum other than one.
    """
    if hasattr(weights, "columns"):
        raise DefinitionError(
            f"weights is a {type(weights).__name__} with named columns, whose order need not be the order of the "
            "objectives. Pass a list of dicts (pandas: weights.to_dict('records')), so that names are matched."
        )
    rows = _rows(weights)
    if not rows:
        raise DefinitionError("weights is empty; at least one weight vector is needed, such as moalign.grid(k, steps).")
    problems: list[str] = []
    matrix = np.zeros((len(rows), len(objectives)))
    matrix[:, 0] = 1.0  # rows that cannot be read stay valid here, so that each is reported once, for its real reason
    for i, row in enumerate(rows):
        found, reasons = _read(row, objectives)
        problems += [f"weights[{i}] {reason}" for reason in reasons]
        if found is not None:
            matrix[i] = found
    problems += direction_problems(matrix) if directions else simplex_problems(matrix)
    if problems:
        raise DefinitionError(problems)
    return matrix


def label(row: ArrayLike, names: Sequence[str]) -> str:
    """Returns a short label of one weight vector, such as "helpful .33 brief .67"; zero weights are left out.

    Raises:
        DefinitionError: `row` and `names` differ in length.
    """
    values = np.asarray(row, dtype=np.float64)
    if values.shape != (len(names),):
        raise DefinitionError(
            f"one weight per name is needed to label, got shape {values.shape} for {len(names)} names."
        )
    parts = [f"{name} {_short(float(v))}" for name, v in zip(names, values, strict=True) if v != 0]
    return " ".join(parts) or "no weight"


def _rows(weights: Any) -> list[Any]:
    if isinstance(weights, Mapping):
        return [weights]
    if isinstance(weights, str) or not hasattr(weights, "__len__"):
        raise DefinitionError(f"weights must be vectors, or dicts by objective name, got {weights!r}.")
    rows = list(weights)
    flat = rows and all(isinstance(v, numbers.Real) or getattr(v, "ndim", None) == 0 for v in rows)
    return [rows] if flat else rows


def _read(row: Any, objectives: Sequence[str]) -> tuple[FloatArray | None, list[str]]:
    """Returns the numbers of one row, or the reasons why it has none."""
    if isinstance(row, Mapping):
        unknown = [key for key in row if key not in objectives]
        if unknown:
            return None, [_unknown(key, objectives) for key in unknown]
        row = [row.get(name, 0.0) for name in objectives]
    try:
        values = np.asarray(row, dtype=np.float64)
    except (TypeError, ValueError) as error:
        return None, [f"= {row!r} is not a vector of numbers: {error}."]
    if values.shape != (len(objectives),):
        shape = f"{len(values)} entries" if values.ndim == 1 else f"shape {values.shape}"
        return None, [f"has {shape}, but there are {len(objectives)} objectives: {', '.join(objectives)}."]
    return values, []


def _unknown(key: Any, objectives: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(key), objectives, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The objectives are {', '.join(objectives)}."
    return f"names the objective {key!r}, which is not in this problem. {hint}"


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) >= 0.005 else f"{value:.1g}"
    whole = text.removesuffix(".00")
    return whole if whole != text else text.replace("0.", ".", 1) if abs(value) < 1 else text


def _counts(**counts: int) -> None:
    wrong = {name: value for name, value in counts.items() if not _whole(value) or value < 1}
    problems = [f"{name} must be a whole number >= 1, got {value!r}." for name, value in wrong.items()]
    if problems:
        raise DefinitionError(problems)


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _shown(row: FloatArray) -> str:
    return "(" + ", ".join(f"{v:g}" for v in row) + ")"
