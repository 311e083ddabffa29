"""What the figures show, as plain frozen data: computed here once, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from moalign.arrays import BoolArray, FloatArray, IntArray, as_matrix, as_vector, simplex_problems
from moalign.errors import DefinitionError
from moalign.figures.text import label, measured, number
from moalign.front import Front, Interval, hypervolume, non_dominated

KL = "kl"  # its name among the values
CROWD = 1500  # points; beyond, texts per point would cost seconds and be read by nobody


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class OracleCurve:
    """The exact optimum of the regularised problem at many weights, to be drawn under a front.

    Raises:
        DefinitionError: arrays that are not finite or differ in length.
    """

    weights: FloatArray  # [weights, objectives]
    values: FloatArray  # [weights, objectives] expected rewards at the optimum, reward units
    kl: FloatArray  # [weights] nats
    label: str = "exact optimum"

    def __post_init__(self) -> None:
        weights = as_matrix(self.weights, "weights of the oracle curve")
        values = as_matrix(self.values, "values of the oracle curve")
        kl = as_vector(self.kl, "kl of the oracle curve")
        if not len(weights) == len(values) == len(kl):
            raise DefinitionError(
                f"The oracle curve needs one row of values and one KL per weight vector, got {len(weights)} weights, "
                f"{len(values)} values and {len(kl)} KLs."
            )
        for name, array in (("weights", weights), ("values", values), ("kl", kl)):
            object.__setattr__(self, name, array)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class OracleView:
    """An oracle curve with what a figure needs besides."""

    curve: OracleCurve
    hypervolume: float  # above the front's reference point
    order: IntArray  # non-dominated rows, by increasing first objective
    triangles: IntArray  # [triangles, 3] rows that neighbour on the simplex of three objectives; may be empty


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class FrontView:
    """Everything the figures of one front show; rows are points in the order of the front."""

    study: str
    objectives: tuple[str, ...]
    trials: tuple[int, ...]
    values: FloatArray  # [points, objectives]
    standard_errors: FloatArray  # [points, objectives]
    weights: FloatArray  # [points, objectives] or [points, 0]
    on_simplex: bool  # all weights are >= 0 and sum to one
    kl: FloatArray  # [points] nats per completion
    kl_standard_errors: FloatArray  # [points]
    non_dominated: BoolArray  # [points]
    feasible: BoolArray  # [points]
    hover: tuple[str, ...]  # escaped text of each point
    reference_point: FloatArray  # [objectives]
    hypervolume: Interval
    history: FloatArray  # [points] hypervolume in the order of trials
    history_rows: tuple[int, ...]  # position of the point behind each entry of the history
    reference_values: FloatArray | None = None  # [objectives] of the untrained reference policy
    columns: Mapping[str, FloatArray] = field(default_factory=dict)  # side columns, each [points]
    oracle: OracleView | None = None
    limits: Mapping[str, float] = field(default_factory=dict)  # upper on "kl", lower on objectives

    @property
    def crowded(self) -> bool:
        """Whether there are so many points that they are drawn without texts of their own."""
        return len(self.trials) > CROWD

    def value(self, name: str) -> FloatArray:
        """Returns one number per point: an objective, "kl", "weight NAME", or a side column.

        Raises:
            DefinitionError: no value of that name; lists the known ones.
        """
        if name in self.objectives:
            return self.values[:, self.objectives.index(name)]
        if name == KL:
            return self.kl
        if name in self.columns:
            return self.columns[name]
        if name in (weights := self.weight_names()):
            return self.weights[:, weights.index(name)]
        known = ", ".join([*self.objectives, KL, *self.columns])
        raise DefinitionError(f"There is no value '{name}' in study '{self.study}'. Known: {known}.")

    def weight_names(self) -> tuple[str, ...]:
        """Returns the names under which `value` knows the preference weights."""
        return tuple(f"weight {name}" for name in self.objectives[: self.weights.shape[1]])

    def subset(self, trials: Set[int]) -> FrontView:
        """Returns the view of these trials only; what is non-dominated stays what it is in the whole study."""
        rows = [row for row, trial in enumerate(self.trials) if trial in trials]
        place = {row: position for position, row in enumerate(rows)}
        past = [position for position, row in enumerate(self.history_rows) if row in place]
        per_point = ("values", "standard_errors", "weights", "kl", "kl_standard_errors", "non_dominated", "feasible")
        return replace(
            self,
            trials=tuple(self.trials[row] for row in rows),
            hover=tuple(self.hover[row] for row in rows),
            history=self.history[past],
            history_rows=tuple(place[self.history_rows[position]] for position in past),
            columns={name: column[rows] for name, column in self.columns.items()},
            **{name: getattr(self, name)[rows] for name in per_point},
        )

    def ranges(self) -> tuple[FloatArray, FloatArray]:
        """Returns lowest and highest value per objective, over at least one point and the reference policy."""
        rows = self.values if self.reference_values is None else np.vstack([self.values, self.reference_values])
        return rows.min(axis=0), rows.max(axis=0)


def front_view(
    front: Front, oracle: OracleCurve | None = None, *, limits: Mapping[str, float] | None = None
) -> FrontView:
    """Returns what the figures of `front` show, with an optional oracle curve behind it and the study's limits.

    Raises:
        DefinitionError: the oracle curve has another number of objectives.
    """
    names = dict.fromkeys(name for point in front for name in point.columns)
    return FrontView(
        study=front.study,
        objectives=front.objectives,
        trials=tuple(point.trial for point in front),
        values=front.F,
        standard_errors=np.array([point.standard_errors for point in front]).reshape(front.F.shape),
        weights=front.X,
        on_simplex=not simplex_problems(front.X),
        kl=front.KL,
        kl_standard_errors=np.array([point.kl_standard_error for point in front]),
        non_dominated=front.non_dominated(),
        feasible=np.array([point.feasible for point in front], dtype=np.bool_),
        hover=tuple(_hover(front, row) for row in range(len(front))),
        reference_point=front.reference_point,
        hypervolume=front.hypervolume(unattained="ignore"),
        history=front.history(),
        history_rows=tuple(sorted(range(len(front)), key=lambda row: front[row].trial)),
        reference_values=None if front.reference is None else front.reference.values,
        columns={name: np.array([point.columns.get(name, np.nan) for point in front]) for name in names},
        oracle=None if oracle is None else _oracle_view(oracle, front),
        limits=dict(limits or {}),
    )


def _hover(front: Front, row: int) -> str:
    point = front[row]
    if len(front) > CROWD:
        return f"trial {point.trial}"
    lines = [f"<b>trial {point.trial}</b>"]
    if len(point.weights):
        pairs = zip(front.objectives, point.weights, strict=True)
        lines.append("weights: " + ", ".join(f"{label(name)} {number(w, 3)}" for name, w in pairs))
    for j, name in enumerate(front.objectives):
        lines.append(f"{label(name)}: {measured(point.values[j], point.standard_errors[j])}")
    lines.append(f"KL: {measured(point.kl, point.kl_standard_error)} nats")
    if not point.feasible:
        lines.append("outside the limits of the study")
    return "<br>".join(lines)


def _oracle_view(curve: OracleCurve, front: Front) -> OracleView:
    if curve.values.shape[1] != len(front.objectives):
        raise DefinitionError(
            f"The oracle curve has {curve.values.shape[1]} objectives, the front of study '{front.study}' has "
            f"{len(front.objectives)}; compute it for the same problem."
        )
    rows = np.flatnonzero(non_dominated(curve.values))
    return OracleView(
        curve=curve,
        hypervolume=hypervolume(curve.values, front.reference_point, unattained="ignore"),
        order=rows[np.argsort(curve.values[rows, 0], kind="stable")],
        triangles=_triangles(curve.weights),
    )


def _triangles(weights: FloatArray) -> IntArray:
    """Neighbours on the simplex, not in reward space, so that the surface follows the weights even where it folds."""
    from scipy.spatial import Delaunay, QhullError

    empty = np.zeros((0, 3), dtype=np.int64)
    if weights.shape[1] != 3:
        return empty
    # Equilateral coordinates treat the three objectives alike.
    plane = weights @ np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    try:
        return np.asarray(Delaunay(plane).simplices, dtype=np.int64)
    except (QhullError, ValueError):  # fewer than three weights, or all on a line
        return empty
