"""The front of a study: every evaluated policy as an immutable point, and what follows from the points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix, as_vector, simplex_problems
from moalign.errors import DefinitionError, MixWarning, NumericsWarning
from moalign.front import _moocore, tables
from moalign.front.checks import by_position, front_problems
from moalign.front.history import hypervolume_history
from moalign.front.indicators import hypervolume_contributions, unattained_problem
from moalign.front.intervals import Interval, affordable_resamples, bootstrap_over_prompts
from moalign.front.pareto import non_dominated
from moalign.front.point import Point, frozen_copy
from moalign.front.portfolios import Portfolio, portfolio

_SAME_WEIGHTS = 1e-9  # weights this close (L1) are the same


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Front:
    """All evaluated policies of a study, in the order given; the non-dominated feasible ones are the front.

    Every objective is maximised. Points outside the study's limits (`feasible=False`) stay points, but do not count
    in dominance, hypervolume or the choice of a policy.

    Raises:
        DefinitionError: points, reference point and prompt values that do not fit together; all reasons are listed.

    >>> def point(trial, *values):
    ...     return Point(trial=trial, weights=np.array([0.5, 0.5]), values=np.array(values),
    ...                  standard_errors=np.zeros(2), kl=1.0, kl_standard_error=0.0)
    >>> Front(study="demo", objectives=("helpful", "harmless"), reference_point=np.zeros(2),
    ...       points=(point(0, 1.0, 3.0), point(1, 2.0, 2.0), point(2, 2.0, 1.0)))
    <Front demo: 2 of 3 policies non-dominated, HV 5.00, 2 objectives>
    """

    study: str
    objectives: tuple[str, ...]  # names, in the order of all `objectives` axes
    points: tuple[Point, ...]
    reference_point: FloatArray  # [objectives] corner of the hypervolume, fixed for the study
    reference: Point | None = None  # the untrained reference policy, measured on the same prompts
    prompt_values: FloatArray | None = None  # [points, prompts, objectives] means over samples; enables intervals
    serve: Callable[[FloatArray], Any] | None = None  # weights -> a policy for them, if the method can make one
    measure: Callable[[Any], Any] | None = None  # such a policy -> itself with its values; needs the study's rewards

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "objectives", tuple(self.objectives))
        set_field(self, "points", tuple(self.points))
        problems = front_problems(self)
        if problems:
            raise DefinitionError(problems, where=f"front of study '{self.study}'")
        set_field(self, "reference_point", frozen_copy(self.reference_point))
        if self.prompt_values is not None:
            set_field(self, "prompt_values", frozen_copy(self.prompt_values))

    @cached_property
    def F(self) -> Float[np.ndarray, "points objectives"]:
        """Values of all points, in reward units."""
        return _rows([point.values for point in self.points], len(self.objectives))

    @cached_property
    def X(self) -> Float[np.ndarray, "points weights"]:
        """Preference weights of all points; no columns for a method without weights."""
        return _rows([point.weights for point in self.points], 0)

    @cached_property
    def KL(self) -> Float[np.ndarray, " points"]:
        """KL of all points to the reference policy, nats per completion."""
        return np.array([point.kl for point in self.points], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __getitem__(self, position: int) -> Point:
        return self.points[position]

    def non_dominated(self) -> Bool[np.ndarray, " points"]:
        """Returns the mask of feasible points that no other feasible point dominates; the first of equal points."""
        return self._members.copy()

    @property
    def front_points(self) -> tuple[Point, ...]:
        """The feasible, non-dominated points, in the order of `points`."""
        return tuple(point for point, member in zip(self.points, self._members, strict=True) if member)

    def hypervolume(self, *, resamples: int | None = None, unattained: Literal["warn", "ignore"] = "warn") -> Interval:
        """Returns the hypervolume above the reference point, with its 95% bootstrap interval over prompts.

        The interval keeps the members of the front fixed and resamples the prompts they share; without
        `prompt_values` its bounds are NaN. Noise lifts the hypervolume of a selected front, so measure the final one
        on prompts that did not choose its members.

        Args:
            resamples: bootstrap draws. By default 2000, fewer or none where six or more objectives make one
                hypervolume expensive.
            unattained: whether to warn when `unattained_problem` has something to say.

        Warns:
            NumericsWarning: there are points, but no feasible one exceeds the reference point in every objective.
        """
        problem = self.unattained_problem() if unattained == "warn" else None
        if problem:
            warnings.warn(problem, NumericsWarning, stacklevel=2)
        return self._interval if resamples is None else self._bootstrap(resamples)

    def unattained_problem(self) -> str | None:
        """Returns a sentence when policies were evaluated but none of them counts for the hypervolume, else None."""
        if not len(self):
            return None
        if not self._feasible.any():
            return "The hypervolume is 0, because no policy is within the limits of the study. Loosen them."
        return unattained_problem(self.F[self._feasible], self.reference_point, self.objectives)

    def contributions(self) -> Float[np.ndarray, " points"]:
        """Returns the hypervolume that each point alone adds to the feasible points; 0 for all others."""
        exclusive = np.zeros(len(self))
        exclusive[self._feasible] = hypervolume_contributions(self.F[self._feasible], self.reference_point)
        return exclusive

    def history(self) -> Float[np.ndarray, " points"]:
        """Returns the hypervolume after each policy, in the order of trial numbers; it never falls."""
        order = np.argsort([point.trial for point in self.points], kind="stable")
        gains = np.zeros(len(self))
        feasible = self._feasible[order]
        volumes = hypervolume_history(self.F[order][feasible], self.reference_point)
        gains[feasible] = np.diff(volumes, prepend=0.0)
        return np.cumsum(gains)

    def with_columns(self, columns: Sequence[Mapping[str, float]]) -> Front:
        """Returns the same front with further side columns, one mapping per point; the same name replaces.

        Raises:
            DefinitionError: another number of mappings than points.
        """
        if len(columns) != len(self):
            raise DefinitionError(f"columns must be one mapping for each of {len(self)} points, got {len(columns)}.")
        pairs = zip(self, columns, strict=True)
        return replace(self, points=tuple(replace(p, columns={**p.columns, **more}) for p, more in pairs))

    def dominates_reference(self) -> Bool[np.ndarray, " points"]:
        """Returns which points are at least as good as the reference policy everywhere and better somewhere.

        Compares measured means, so differences within the standard errors count too.

        Raises:
            DefinitionError: the reference policy was not evaluated.
        """
        if self.reference is None:
            raise DefinitionError(f"The reference policy of study '{self.study}' was not evaluated; evaluate it first.")
        gains: FloatArray = self.F - self.reference.values  # [points, objectives]
        return np.logical_and((gains >= 0).all(axis=1), (gains > 0).any(axis=1))

    def knee(self) -> Point:
        """Returns the front point nearest to the front's ideal, each objective scaled to [0, 1] over the front.

        The ideal takes the best value of each objective. Ties go to the lower position. The scale comes from the
        extremes of the front, so a new extreme point can move the knee.

        Raises:
            DefinitionError: the front has no points.
        """
        members = self._require(self._members, "non-dominated, feasible point")
        values = self.F[members]
        ideal = values.max(axis=0)
        span = ideal - values.min(axis=0)
        shortfall = (ideal - values) / np.where(span > 0, span, 1.0)
        return self.points[members[np.linalg.norm(shortfall, axis=1).argmin()]]

    def nearest(self, weights: Mapping[str, float | int] | ArrayLike) -> Point:
        """Returns the feasible point whose preference weights are nearest (Euclidean); ties go to the lower position.

        Args:
            weights: one number per objective, by name or in the order of the objectives. On the simplex when the
                weights of the points are.

        Raises:
            DefinitionError: unknown or missing names, weights outside the simplex, or points without weights.
        """
        target = self._target(weights)
        rows = self._require(self._feasible, "feasible point")
        return self.points[rows[np.linalg.norm(self.X[rows] - target, axis=1).argmin()]]

    def for_weights(self, weights: Mapping[str, float | int] | ArrayLike, *, evaluate: bool = False) -> Any:
        """Returns what serves these preference weights: an evaluated point, or a policy that the method makes for them.

        Both have `generate` and `export`, and their repr says what they are. A method with one policy per weight vector
        serves the nearest point; soups interpolate, conditioned policies are told the weights.

        Args:
            weights: as in `nearest`.
            evaluate: sample the policy on the held-out prompts, too, unless that was done; it then has `values`,
                `standard_errors`, `kl` and `columns` as a point has. Nothing is stored.

        Warns:
            MixWarning: the policy is interpolated and was not evaluated.

        Raises:
            DefinitionError: `evaluate` on a front that was read from its store, where no rewards are kept.
        """
        point = self.nearest(weights)
        target = self._target(weights)
        if self.serve is None or np.abs(point.weights - target).sum() < _SAME_WEIGHTS:
            return point
        if evaluate and self.measure is None:
            raise DefinitionError(
                "To evaluate a policy its rewards are needed, and the store keeps none. Run the study again, which "
                "trains nothing that is finished, and ask the front that it returns."
            )
        served = self.serve(target)
        if evaluate and self.measure is not None:
            return self.measure(served)
        if served.how == "interpolated":
            warnings.warn(
                f"{served!r}. To know its rewards, ask for_weights(..., evaluate=True).", MixWarning, stacklevel=2
            )
        return served

    def portfolio(self, users: ArrayLike, k: int, **options: Any) -> Portfolio:
        """Returns the k feasible policies that serve a population of users best, as positions among the points.

        Args:
            users: preference weights [users, objectives] on the simplex. Objectives are compared in their own units.
            k: policies to serve.
            options: goal, groups, floors, user_weights; see `moalign.front.portfolio`.

        Raises:
            DefinitionError: weights outside the simplex, k out of range, or options that do not fit.
        """
        weights = as_matrix(users, "users")
        problems = simplex_problems(weights, "users")
        if weights.shape[1] != len(self.objectives):
            problems = [f"users must have one weight for each of {', '.join(self.objectives)}, got {weights.shape[1]}."]
        if problems:
            raise DefinitionError(problems)
        rows = self._require(self._feasible, "feasible point")
        return portfolio(self.F[rows] @ weights.T, k, **options).moved(rows)

    def table(self) -> Any:
        """Returns a pandas.DataFrame with one row per point.

        Columns: trial, w_<objective>, <objective>, <objective>_se, kl, kl_se, non_dominated, feasible, side columns.
        A name that is already taken gets a trailing underscore.
        """
        import pandas

        return pandas.DataFrame(tables.columns(self))

    def to_csv(self, path: str | Path) -> None:
        """Writes the table; texts that a spreadsheet would run as a formula start with an apostrophe."""
        tables.write_csv(self, Path(path))

    def to_json(self) -> dict[str, Any]:
        """Returns the front as strict JSON values: unknown numbers are None, never NaN."""
        return tables.as_json(self, self._interval)

    # The plots are the one place where this layer reaches up to the figures: on demand, so that importing stays light.

    def plot(self) -> Any:
        """Returns a plotly figure: 2 objectives in the plane, 3 in space and in pairs, more on parallel axes."""
        from moalign import figures

        return figures.draw_front(figures.front_view(self))

    def plot_simplex(self, color: str | None = None) -> Any:
        """Returns a plotly figure of the preference weights, coloured by an objective, `kl` or a side column."""
        from moalign import figures

        return figures.weight_figure(figures.front_view(self), color=color)

    def plot_kl(self) -> Any:
        """Returns a plotly figure of each objective against the KL to the reference policy."""
        from moalign import figures

        return figures.kl_figure(figures.front_view(self))

    def plot_history(self) -> Any:
        """Returns a plotly figure of the hypervolume after each policy."""
        from moalign import figures

        return figures.history_figure(figures.front_view(self))

    def widget(self, height: int = 560) -> Any:
        """Returns the front with a drawer for notebooks: click a point for its values and texts; `height` in pixels.

        It needs no kernel and no network. `widget().save("front.html")` writes it as a page.
        """
        from moalign.figures.widget import front_widget

        return front_widget(self, height)

    def __repr__(self) -> str:
        return (
            f"<Front {self.study}: {int(self._members.sum())} of {len(self)} policies non-dominated, "
            f"HV {self._interval}, {len(self.objectives)} objectives>"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(self)

    @cached_property
    def _feasible(self) -> Bool[np.ndarray, " points"]:
        return np.array([point.feasible for point in self.points], dtype=np.bool_)

    @cached_property
    def _members(self) -> Bool[np.ndarray, " points"]:
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[self._feasible] = non_dominated(self.F[self._feasible])
        return mask

    @cached_property
    def _interval(self) -> Interval:
        return self._bootstrap(affordable_resamples(int(self._members.sum()), len(self.objectives)))

    def _bootstrap(self, resamples: int) -> Interval:
        volume = partial(_moocore.hypervolume, reference_point=self.reference_point)
        if self.prompt_values is None or not self._members.any() or not resamples:
            return Interval(volume(self.F[self._members]))
        bounds = bootstrap_over_prompts(self.prompt_values[self._members], volume, resamples=resamples)
        # The points are what was reported; means recomputed from prompt_values may differ in the last digits.
        return Interval(volume(self.F[self._members]), bounds.low, bounds.high)

    def _target(self, weights: Mapping[str, float | int] | ArrayLike) -> FloatArray:
        """Returns the weights that a user asks for, checked."""
        wanted = by_position(weights, self.objectives) if isinstance(weights, Mapping) else weights
        if len(self) and not self.X.shape[1]:
            raise DefinitionError(
                f"The policies of study '{self.study}' have no preference weights; use knee() or [i]."
            )
        target = as_vector(wanted, "weights", len(self.objectives))
        if not simplex_problems(self.X):
            problems = simplex_problems(target[None])
            if problems:
                raise DefinitionError(problems)
        return target

    def _require(self, mask: Bool[np.ndarray, " points"], what: str) -> Any:
        if not mask.any():
            raise DefinitionError(f"The front of study '{self.study}' has no {what} among its {len(self)} points.")
        return np.flatnonzero(mask)


def _rows(vectors: list[FloatArray], columns: int) -> FloatArray:
    matrix = np.stack(vectors) if vectors else np.zeros((0, columns))
    matrix.flags.writeable = False
    return matrix
