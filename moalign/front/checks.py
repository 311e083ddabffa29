"""Reasons to refuse a front, and the lookup of objectives by name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moalign.errors import DefinitionError

if TYPE_CHECKING:
    from moalign.front.front import Front
    from moalign.front.point import Point

_PROMPT_MEAN_TOLERANCE = 1e-3  # relative; covers means that were accumulated in float32


def front_problems(front: Front) -> list[str]:
    """Returns one sentence per reason why the fields of `front` do not fit together."""
    return [*_objective_problems(front), *_point_problems(front), *_array_problems(front)]


def by_position(weights: Mapping[str, float | int], objectives: tuple[str, ...]) -> list[float]:
    """Returns weights given by name in the order of `objectives`.

    Raises:
        DefinitionError: names that are unknown (with the nearest known one) or missing; all are listed.
    """
    problems = [_unknown(name, objectives) for name in weights if name not in objectives]
    missing = [name for name in objectives if name not in weights]
    if missing:
        problems.append(f"weights lacks {', '.join(map(repr, missing))}; give every objective a weight, 0 included.")
    if problems:
        raise DefinitionError(problems)
    return [float(weights[name]) for name in objectives]


def _unknown(name: str, objectives: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, objectives, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The objectives are {', '.join(map(repr, objectives))}."
    return f"Objective {name!r} in weights is not in this study. {hint}"


def _objective_problems(front: Front) -> list[str]:
    if not front.objectives:
        return ["objectives is empty; a front needs at least one named objective."]
    repeated = [name for name, count in Counter(front.objectives).items() if count > 1]
    return [f"objectives names {', '.join(map(repr, repeated))} more than once."] if repeated else []


def _point_problems(front: Front) -> list[str]:
    count = len(front.objectives)
    problems = [_length_problem(point, count) for point in front.points]
    if front.reference is not None and len(front.reference.values) != count:
        problems.append(f"the reference policy has {len(front.reference.values)} values for {count} objectives.")
    if len({len(point.weights) for point in front.points}) > 1:
        problems.append("some points have preference weights and others have none.")
    trials = Counter(point.trial for point in front.points)
    repeated = [trial for trial, times in trials.items() if times > 1]
    if repeated:
        problems.append(f"trials {repeated[:5]} occur more than once; a trial is one policy.")
    return [problem for problem in problems if problem]


def _length_problem(point: Point, count: int) -> str:
    if len(point.values) != count:
        return f"trial {point.trial} has {len(point.values)} values for {count} objectives."
    if len(point.weights) not in (0, count):
        return f"trial {point.trial} has {len(point.weights)} weights for {count} objectives."
    return ""


def _array_problems(front: Front) -> list[str]:
    problems = []
    corner = np.asarray(front.reference_point, dtype=np.float64)
    if corner.shape != (len(front.objectives),) or not np.isfinite(corner).all():
        problems.append(f"reference_point must be {len(front.objectives)} finite numbers, got {corner.tolist()}.")
    if front.prompt_values is not None:
        problems += _prompt_value_problems(front, np.asarray(front.prompt_values, dtype=np.float64))
    return problems


def _prompt_value_problems(front: Front, prompt_values: np.ndarray) -> list[str]:
    points, objectives = len(front.points), len(front.objectives)
    if prompt_values.ndim != 3 or prompt_values.shape[::2] != (points, objectives) or prompt_values.shape[1] == 0:
        return [
            f"prompt_values must be [{points} points, prompts, {objectives} objectives] with at least one prompt, "
            f"got shape {prompt_values.shape}."
        ]
    problems = []
    every = prompt_values.mean(axis=1)
    close = np.zeros(points, dtype=np.bool_)  # found at once, so that only what may be wrong is looked at singly
    if all(len(point.values) == objectives for point in front.points) and points:
        stated = np.stack([point.values for point in front.points])
        tolerance = _PROMPT_MEAN_TOLERANCE
        close = np.isclose(every, stated, rtol=tolerance, atol=tolerance).all(axis=1) & np.isfinite(every).all(axis=1)
    for row in np.flatnonzero(~close).tolist():
        point, means = front.points[row], every[row]
        if not np.isfinite(means).all():
            problems.append(f"prompt_values of trial {point.trial} has NaN or infinite entries.")
        elif len(point.values) == objectives and not np.allclose(
            means, point.values, rtol=_PROMPT_MEAN_TOLERANCE, atol=_PROMPT_MEAN_TOLERANCE
        ):
            problems.append(
                f"prompt_values of trial {point.trial} average to {means.tolist()}, but its values are "
                f"{point.values.tolist()}; both must come from the same evaluation."
            )
    return problems
