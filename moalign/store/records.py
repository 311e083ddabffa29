"""What readers get: frozen records of trials, events and findings; and the checks on numbers before they are stored.

SQLite would store NaN as NULL and a float32 as a blob without a word, so every number passes through `measurement_row`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, final, get_args

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray
from moalign.errors import StoreError

State: TypeAlias = Literal["waiting", "training", "evaluating", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)
REFERENCE = -1  # the number under which the untrained reference policy is stored


@final
@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One policy of a study: its weights, where it stands, and what was measured. None until it is measured.

    Times are seconds since 1970. Values and standard errors are in the objectives' units, the KL in nats.
    """

    number: int
    state: State
    weights: tuple[float, ...]  # one per objective; empty for a policy without preference weights
    values: tuple[float, ...] | None = None
    standard_errors: tuple[float, ...] | None = None
    kl: float | None = None
    kl_standard_error: float | None = None
    columns: Mapping[str, float] = field(default_factory=dict)  # further measured numbers by name
    prompt_values: FloatArray | None = field(default=None, repr=False, compare=False)  # [prompts, objectives]
    feasible: bool | None = None
    error: str | None = None
    started: float | None = None
    finished: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """Something that happened in a study: events are only ever added, and numbered from 1."""

    number: int
    time: float  # seconds since 1970
    kind: str
    data: Mapping[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with a study on disk, and what helps."""

    kind: Literal["leftover", "damaged", "database", "definition"]
    place: Path
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}. {self.remedy}"


class Measured(TypedDict):
    """What is measured of a policy, as `finish_trial` and `set_reference` take it."""

    values: ArrayLike  # [objectives], the policy's mean reward on each axis
    standard_errors: ArrayLike  # [objectives], in the same units
    kl: float | None  # nats, from the reference policy; None where the method has none
    kl_standard_error: float | None
    columns: Mapping[str, float]  # further numbers by name
    prompt_values: ArrayLike  # [prompts, objectives], what the values are means of
    feasible: bool  # whether all limits are kept


def measurement_row(trial: str, objectives: Sequence[str], measured: Measured) -> dict[str, object]:
    """Returns what was measured as database columns, every number a finite float64.

    Raises:
        StoreError: NaN or infinite numbers, or shapes that do not fit the objectives; lists all with their column.
    """
    problems: list[str] = []
    values = _per_objective("values", measured["values"], objectives, problems)
    errors = _per_objective("standard_errors", measured["standard_errors"], objectives, problems)
    problems += [f"standard_errors has a negative entry: {error}" for error in errors.ravel() if error < 0]
    kl = None if measured["kl"] is None else _number("kl", measured["kl"], problems)
    kl_error = measured["kl_standard_error"]
    kl_error = None if kl_error is None else _number("kl_standard_error", kl_error, problems)
    columns = {str(name): _number(f"column '{name}'", value, problems) for name, value in measured["columns"].items()}
    prompts = _array("prompt_values", measured["prompt_values"], problems)
    problems += _prompt_problems(prompts, objectives)
    if problems:
        raise StoreError(f"{trial} cannot be stored: {'; '.join(problems)}. Store finite numbers, one per objective.")
    return {
        "objective_values": json.dumps(values.tolist()),
        "standard_errors": json.dumps(errors.tolist()),
        "kl": kl,
        "kl_standard_error": kl_error,
        "columns": json.dumps(columns),
        "feasible": int(bool(measured["feasible"])),
        "prompt_shape": json.dumps(prompts.shape),
        "prompt_values": np.ascontiguousarray(prompts, dtype="<f8").tobytes(),
    }


def trial_record(row: sqlite3.Row) -> TrialRecord:
    """Returns the record of a row of the table `trials`; the blob of prompt values may be left out of the query."""
    blob = row["prompt_values"] if "prompt_values" in row.keys() else None  # noqa: SIM118  (rows iterate over values)
    return TrialRecord(
        number=row["number"],
        state=row["state"],
        weights=tuple(json.loads(row["weights"])),
        values=_tuple(row["objective_values"]),
        standard_errors=_tuple(row["standard_errors"]),
        kl=row["kl"],
        kl_standard_error=row["kl_standard_error"],
        columns=json.loads(row["columns"] or "{}"),
        prompt_values=None if blob is None else np.frombuffer(blob, "<f8").reshape(json.loads(row["prompt_shape"])),
        feasible=None if row["feasible"] is None else bool(row["feasible"]),
        error=row["error"],
        started=row["started"],
        finished=row["finished"],
    )


def event_record(row: sqlite3.Row) -> EventRecord:
    """Returns the record of a row of the table `events`."""
    return EventRecord(number=row["number"], time=row["time"], kind=row["kind"], data=json.loads(row["data"]))


def _tuple(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _array(name: str, values: ArrayLike, problems: list[str]) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        problems.append(f"{name} is not a table of numbers ({error})")
        return np.empty(0)


def _per_objective(name: str, values: ArrayLike, objectives: Sequence[str], problems: list[str]) -> FloatArray:
    array = _array(name, values, problems)
    if array.shape != (len(objectives),):
        problems.append(f"{name} has shape {array.shape} for {len(objectives)} objectives")
    else:
        pairs = zip(objectives, array.tolist(), strict=True)
        problems += [f"{name} of '{objective}' is {value}" for objective, value in pairs if not math.isfinite(value)]
    return array


def _number(name: str, value: Any, problems: list[str]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        problems.append(f"{name} is {value!r}, not a number")
        return math.nan
    if not math.isfinite(number):
        problems.append(f"{name} is {number}")
    return number


def _prompt_problems(prompts: FloatArray, objectives: Sequence[str]) -> list[str]:
    if prompts.ndim != 2 or prompts.shape[1] != len(objectives):
        return [f"prompt_values has shape {prompts.shape}, expected (prompts, {len(objectives)})"]
    rows, columns = np.nonzero(~np.isfinite(prompts))
    if len(rows) == 0:
        return []
    first = f"prompt_values of '{objectives[columns[0]]}' for prompt {rows[0]} is {prompts[rows[0], columns[0]]}"
    return [first if len(rows) == 1 else f"{first} (and {len(rows) - 1} more entries)"]
