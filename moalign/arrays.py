"""The vocabulary of axes, and the shape and space checks shared by the pure modules.

Axis names in shape annotations: `policies` (the stack), `batch`, `tokens`, `objectives`, `points`, `weights`,
`prompts`, `candidates`, `users`, `groups`. Every objective is maximised. Log-probabilities are sums over
completion tokens in nats unless a name says otherwise. Nothing here needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moalign.errors import DefinitionError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

SIMPLEX_TOLERANCE = 1e-6  # weights typed with six digits are meant to sum to one


def as_matrix(values: ArrayLike, name: str, *, finite: bool = True) -> FloatArray:
    """Returns `values` as a float64 matrix [rows, columns].

    Raises:
        DefinitionError: not two-dimensional, not numeric, NaN, or (with `finite`) infinite; names the rows.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{name} must be a table of numbers, got {type(values).__name__}: {error}.") from None
    if array.ndim != 2:
        hint = f"one row is written [{[float(v) for v in array[:3]]}]" if array.ndim == 1 else "rows are points"
        raise DefinitionError(f"{name} must have two dimensions (rows, columns), got shape {array.shape}; {hint}.")
    good = np.isfinite(array) if finite else ~np.isnan(array)
    if not good.all():
        rows = np.flatnonzero(~good.all(axis=1))
        word = "NaN or infinite" if finite else "NaN"
        raise DefinitionError(f"{name} has {word} values in rows {_some(rows)}. Remove or recompute these rows.")
    return array


def as_vector(values: ArrayLike, name: str, length: int | None = None) -> FloatArray:
    """Returns `values` as a finite float64 vector, of the given length if one is stated.

    Raises:
        DefinitionError: other shape, other length, or a value that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        wanted = "a vector" if length is None else f"{length} numbers"
        raise DefinitionError(f"{name} must be {wanted}, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise DefinitionError(f"{name} must be finite, got {array.tolist()}.")
    return array


def simplex_problems(weights: FloatArray, name: str = "weights") -> list[str]:
    """Returns one sentence per row of `weights` [weights, objectives] that is not on the simplex."""
    problems = []
    for i, row in enumerate(weights):
        shown = ", ".join(f"{v:g}" for v in row)
        if not np.isfinite(row).all():
            problems.append(f"{name}[{i}] = ({shown}) is not finite.")
        elif (row < 0).any():
            problems.append(f"{name}[{i}] = ({shown}) has a negative entry; preference weights must be >= 0.")
        elif abs(row.sum() - 1) > SIMPLEX_TOLERANCE:
            problems.append(
                f"{name}[{i}] = ({shown}) sums to {row.sum():g}; preference weights must sum to 1. "
                "Use moalign.normalize(weights)."
            )
    return problems


def direction_problems(weights: FloatArray, name: str = "weights") -> list[str]:
    """Returns one sentence per row of `weights` [weights, objectives] that points nowhere."""
    return [
        f"{name}[{i}] = ({', '.join(f'{v:g}' for v in row)}) has no direction; it must be finite and not all zero."
        for i, row in enumerate(weights)
        if not (np.isfinite(row).all() and row.any())
    ]


def _some(rows: NDArray[Any], most: int = 5) -> str:
    shown = ", ".join(str(int(r)) for r in rows[:most])
    return f"{shown} and {len(rows) - most} more" if len(rows) > most else shown
