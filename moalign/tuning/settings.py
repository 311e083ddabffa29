"""From dotted names to a study: "method.training.learning_rate" names a field of the study's method."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from moalign.errors import DefinitionError, MoalignError
from moalign.methods.base import Method
from moalign.study import Study
from moalign.tuning.space import Dimension, Simplex, Space

WEIGHTS = "weights"
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def method_with(study: Study, settings: Mapping[str, Any]) -> Method:
    """Returns the study's method with these settings ("method." names; "weights" is no part of it).

    Raises:
        DefinitionError: the method refuses them.
    """
    method: Any = study.method
    for name, value in settings.items():
        if name != WEIGHTS:
            method = _replaced(method, name.split(".")[1:], value)
    return method


def defaults(study: Study, search: Mapping[str, Dimension]) -> dict[str, Any] | None:
    """Returns the study's own settings for the tuned names; None if one of them is outside of the search."""
    found: dict[str, Any] = {}
    for name, dimension in search.items():
        if name == WEIGHTS:
            found[name] = tuple(map(float, study.stack_weights.mean(axis=0)))
            continue
        value: Any = study.method
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        facts = dimension.describe()
        try:
            inside = facts["kind"] == "choice" or facts["low"] <= value <= facts["high"]
            dimension.encode(value)
        except (TypeError, ValueError):
            inside = False
        if not inside:
            return None
        found[name] = value
    return found


def check(study: Study, search: Mapping[str, Dimension]) -> Space:
    """Returns the space, after trying every name at both ends of its range.

    Raises:
        DefinitionError: lists unknown fields (with the nearest known one), refused values, and weights that do not fit.
    """
    space = Space(search)
    problems = []
    for name, dimension in search.items():
        if name == WEIGHTS:
            problems += _weights_problems(study, dimension)
        elif reason := _unknown(study.method, name):
            problems.append(reason)
        else:
            problems += _refused(study, name, dimension)
    if problems:
        raise DefinitionError(problems, where="search")
    return space


def seconds(timeout: str | float | None) -> float | None:
    """Returns a time in seconds from a number or a text such as "90s", "30min", "2h".

    Raises:
        DefinitionError: neither.
    """
    if timeout is None or (isinstance(timeout, (int, float)) and timeout > 0):
        return timeout
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*", str(timeout))
    if match is None or float(match[1]) == 0:
        raise DefinitionError(
            f'timeout must be seconds > 0, or a text such as "90s", "30min" or "2h", got {timeout!r}.'
        )
    return float(match[1]) * _SECONDS[match[2]]


def _replaced(owner: Any, path: list[str], value: Any) -> Any:
    inner = value if len(path) == 1 else _replaced(getattr(owner, path[0]), path[1:], value)
    return dataclasses.replace(owner, **{path[0]: inner})


def _unknown(method: Any, name: str) -> str | None:
    """Returns why a dotted name is no field, or None."""
    first, *path = name.split(".")
    if first != "method" or not path:
        return f'{name!r} cannot be tuned; names are "weights" or fields of the method, such as "method.beta".'
    owner = method
    for part in path:
        fields = [f.name for f in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
        if part not in fields:
            near = difflib.get_close_matches(part, fields, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(fields) or 'no fields'}."
            deeper = [f for f in fields if part in _fields_of(getattr(owner, f))]
            hint = f"Did you mean {'.'.join([deeper[0], part])!r}?" if deeper else hint
            return f"{name!r}: {type(owner).__name__} has no field {part!r}. {hint}"
        owner = getattr(owner, part)
    return None


def _fields_of(value: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []


def _refused(study: Study, name: str, dimension: Dimension) -> list[str]:
    facts = dimension.describe()
    ends = getattr(dimension, "options", None) or (facts.get("low"), facts.get("high"))
    reasons: list[str] = []
    for value in ends:
        try:
            method_with(study, {name: value})
        except (MoalignError, TypeError, ValueError) as error:
            listed = error.problems if isinstance(error, DefinitionError) else (str(error),)
            reasons += [f"{name} = {value!r}: {reason}" for reason in listed]
    return reasons


def _weights_problems(study: Study, dimension: Dimension) -> list[str]:
    objectives = len(study.problem.names)
    if not isinstance(dimension, Simplex) or dimension.objectives != objectives:
        return [f"weights must be on_simplex({objectives}) for {objectives} objectives, got {dimension!r}."]
    if study.method.weight_space != "simplex":
        return [f"{type(study.method).__name__} takes directions, not weights on the simplex."]
    return []
