"""Named, checked ways to combine rewards, each with the part of a front that it can reach.

An aggregator is a frozen dataclass that maps `values` [..., objectives] to [...] (numpy or torch), with a `reach` to
read. `Aggregate` makes one reward of several rewards and an aggregator.

Applied per response, a curved aggregator maximises the expected utility of a response, E[u(r)], which is not the
utility of the expected rewards, u(E[r]).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from array_api_compat import is_torch_array

from moalign.arrays import simplex_problems
from moalign.errors import DefinitionError, NumericsWarning
from moalign.rewards import scalarisation
from moalign.rewards.reach import Reach
from moalign.rewards.scalarisation import Array


@final
@dataclass(frozen=True)
class Linear:
    """sum_i w_i r_i, with w on the simplex."""

    reach: ClassVar[Reach] = Reach.SUPPORTED
    weights: Sequence[float]

    def __post_init__(self) -> None:
        _freeze(self, "weights")
        _raise(self, _simplex(self.weights))

    def __call__(self, values: Array) -> Array:
        return scalarisation.linear(_measured(values), self.weights)


@final
@dataclass(frozen=True)
class Chebyshev:
    """-(max_i g_i + augment * sum_i g_i), g_i = w_i (ideal_i - r_i), with w on the simplex.

    Attributes:
        weights: w; w_i in proportion to 1 / (ideal_i - R_i) makes the Pareto point R the best.
        ideal: reward units; better than every reward that can occur. Rewards beyond it are warned about.
        augment: 0 for the Chebyshev scalarisation itself; 0.05 removes weakly efficient ties.
        plain: whether the augmentation sums unweighted shortfalls.
    """

    weights: Sequence[float]
    ideal: Sequence[float]
    augment: float = 0.0
    plain: bool = False

    def __post_init__(self) -> None:
        _freeze(self, "weights", "ideal")
        problems = _simplex(self.weights) + _per_objective(self.ideal, "ideal", len(self.weights))
        if not (math.isfinite(self.augment) and self.augment >= 0):
            problems.append(f"augment must be finite and >= 0, got {self.augment}.")
        _raise(self, problems)

    @property
    def reach(self) -> Reach:
        return Reach.PROPER if self.augment else Reach.WEAKLY_PARETO

    def __call__(self, values: Array) -> Array:
        values = _below(_measured(values), self.ideal)
        return scalarisation.chebyshev(values, self.weights, self.ideal, augment=self.augment, plain=self.plain)


@final
@dataclass(frozen=True)
class SmoothChebyshev:
    """-mu log sum_i exp(w_i (ideal_i - r_i) / mu) (arXiv 2402.19078): `Chebyshev` with a gradient everywhere."""

    reach: ClassVar[Reach] = Reach.NEARLY_ALL
    weights: Sequence[float]
    ideal: Sequence[float]
    mu: float = 0.01  # reward units, > 0; 0.01 suits objectives scaled to [0, 1]

    def __post_init__(self) -> None:
        _freeze(self, "weights", "ideal")
        problems = _simplex(self.weights) + _per_objective(self.ideal, "ideal", len(self.weights))
        _raise(self, problems + _positive(self.mu, "mu"))

    def __call__(self, values: Array) -> Array:
        values = _below(_measured(values), self.ideal)
        return scalarisation.smooth_chebyshev(values, self.weights, self.ideal, self.mu)


@final
@dataclass(frozen=True)
class GeneralisedMean:
    """(sum_i w_i (r_i - floor_i)^p)^(1/p), with w on the simplex; p -> 0 is the geometric mean, -inf the minimum."""

    weights: Sequence[float]
    power: float  # p, -inf .. inf
    floor: Sequence[float] | float = 0.0  # reward units, below every reward that can occur

    def __post_init__(self) -> None:
        _freeze(self, "weights", "floor")
        problems = _simplex(self.weights) + _per_objective(self.floor, "floor", len(self.weights))
        if math.isnan(self.power):
            problems.append("power must be a number, got nan.")
        _raise(self, problems)

    @property
    def reach(self) -> Reach:
        if self.power == -math.inf:
            return Reach.ONE_POINT
        return Reach.SUPPORTED if self.power == 1 else Reach.CONCAVE if self.power < 1 else Reach.EXTREMES

    def __call__(self, values: Array) -> Array:
        values, floor = scalarisation.floats(_measured(values), self.floor)
        return scalarisation.generalised_mean(values - floor, self.weights, self.power)


@final
@dataclass(frozen=True)
class OrderedMean:
    """sum_k v_k r_(k) over the rewards sorted from the worst (OWA), with v on the simplex.

    `OrderedMean.cvar` and `OrderedMean.leximin` choose v; see `scalarisation`.
    """

    weights: Sequence[float]  # of the worst reward first

    def __post_init__(self) -> None:
        _freeze(self, "weights")
        _raise(self, _simplex(self.weights))

    @staticmethod
    def cvar(objectives: int, level: float) -> OrderedMean:
        """Returns the mean of the worst `level` share of the rewards, level in (0, 1]."""
        if not 0 < level <= 1:
            raise DefinitionError(f"level must be in (0, 1], got {level}.", where="OrderedMean.cvar")
        return OrderedMean(scalarisation.cvar_weights(_count(objectives, "OrderedMean.cvar"), level))  # type: ignore[arg-type]

    @staticmethod
    def leximin(objectives: int, *, resolution: float, spread: float) -> OrderedMean:
        """Returns the mean that orders rewards by leximin: exact for multiples of `resolution` within `spread`."""
        problems = _positive(resolution, "resolution")
        if not (math.isfinite(spread) and spread >= resolution):
            problems.append(f"spread must be finite and >= resolution, got {spread}.")
        if problems:
            raise DefinitionError(problems, where="OrderedMean.leximin")
        count = _count(objectives, "OrderedMean.leximin")
        weights = scalarisation.leximin_weights(count, resolution, spread)
        if weights[-1] < 1e-12:  # then rounding in the sum hides the last places
            raise DefinitionError(
                f"{count} rewards over a spread of {spread / resolution:g} steps are too many for double precision."
                " Use a coarser resolution, or rank points with scalarisation.leximin_ranks.",
                where="OrderedMean.leximin",
            )
        return OrderedMean(weights)  # type: ignore[arg-type]

    @property
    def reach(self) -> Reach:
        return Reach.ONE_POINT if all(np.diff(self.weights) <= 1e-12) else Reach.EXTREMES

    def __call__(self, values: Array) -> Array:
        return scalarisation.ordered_mean(_measured(values), self.weights)


@final
@dataclass(frozen=True)
class WorstCase:
    """min_i r_i; with a temperature its smooth form -t log mean_i exp(-r_i / t)."""

    reach: ClassVar[Reach] = Reach.ONE_POINT
    temperature: float = 0.0  # reward units, >= 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            _raise(self, [f"temperature must be finite and >= 0, got {self.temperature}."])

    def __call__(self, values: Array) -> Array:
        values = _measured(values)
        return scalarisation.soft_worst(values, self.temperature) if self.temperature else scalarisation.worst(values)


@final
@dataclass(frozen=True)
class NashWelfare:
    """sum_i a_i log(r_i - disagreement_i), with a on the simplex."""

    reach: ClassVar[Reach] = Reach.CONCAVE
    weights: Sequence[float]
    disagreement: Sequence[float] | float  # reward units: what each objective has anyway; below every reward

    def __post_init__(self) -> None:
        _freeze(self, "weights", "disagreement")
        _raise(self, _simplex(self.weights) + _per_objective(self.disagreement, "disagreement", len(self.weights)))

    def __call__(self, values: Array) -> Array:
        return scalarisation.nash_welfare(_measured(values), self.weights, self.disagreement)


@final
@dataclass(frozen=True)
class AllOf:
    """log of the probability that every event happens, sum_i a_i u_i, for u_i = log p_i from `LogSigmoid` rewards.

    Raising every a_i raises the pressure against the KL term; equal exponents 1 / objectives keep it comparable.
    """

    reach: ClassVar[Reach] = Reach.CONCAVE
    exponents: Sequence[float] | float = 1.0  # a_i >= 0

    def __post_init__(self) -> None:
        _freeze(self, "exponents")
        values = np.atleast_1d(self.exponents)
        if not (np.isfinite(values) & (values >= 0)).all() or not values.any():
            _raise(self, [f"exponents must be finite, >= 0 and not all 0, got {_shown(values)}."])

    def __call__(self, values: Array) -> Array:
        return scalarisation.all_of(_measured(values), self.exponents)


@final
@dataclass(frozen=True)
class AnyOf:
    """log of the probability that some event happens, for u_i = log p_i from `LogSigmoid` rewards."""

    reach: ClassVar[Reach] = Reach.EXTREMES

    def __call__(self, values: Array) -> Array:
        return scalarisation.any_of(_measured(values))


def _measured(values: Array) -> Array:
    (values,) = scalarisation.floats(values)
    missing = values != values
    if bool(missing.any()):
        places = sorted({int(place) for place in np.argwhere(np.asarray(missing.tolist()))[:, -1]})
        raise DefinitionError(
            f"NaN rewards for {int(missing.sum())} of {math.prod(missing.shape)} values (objectives {places}, counted"
            " from 0). Leave out responses that were not measured on every objective."
        )
    return values


def _below(values: Array, ideal: Sequence[float]) -> Array:
    best = values.reshape(-1, values.shape[-1])
    best = best.amax(0).tolist() if is_torch_array(best) and len(best) else best.max(0).tolist() if len(best) else []
    for i, (reward, limit) in enumerate(zip(best, ideal, strict=False)):
        if reward > limit:
            warnings.warn(
                f"objective {i} reaches {reward:g}, better than its ideal {limit:g}: better rewards may now count as"
                " worse. Set the ideal above every reward that can occur.",
                NumericsWarning,
                stacklevel=3,
            )
            break
    return values


def _freeze(rule: Any, *fields: str) -> None:
    for name in fields:
        value = getattr(rule, name)
        if np.ndim(value):
            object.__setattr__(rule, name, tuple(float(v) for v in np.asarray(value, dtype=np.float64).reshape(-1)))


def _simplex(weights: Sequence[float]) -> list[str]:
    if not np.ndim(weights) or not len(weights):
        return [f"weights must be one number per objective, got {weights!r}."]
    return [problem.replace("weights[0] =", "weights =") for problem in simplex_problems(np.array([weights]))]


def _per_objective(values: Sequence[float] | float, name: str, objectives: int) -> list[str]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim and len(numbers) != objectives:
        return [f"{name} has {len(numbers)} values for {objectives} weights."]
    return [] if np.isfinite(numbers).all() else [f"{name} must be finite, got {_shown(numbers)}."]


def _positive(value: float, name: str) -> list[str]:
    return [] if math.isfinite(value) and value > 0 else [f"{name} must be finite and > 0, got {value}."]


def _count(objectives: int, where: str) -> int:
    if objectives < 1:
        raise DefinitionError(f"objectives must be >= 1, got {objectives}.", where=where)
    return objectives


def _shown(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in np.atleast_1d(values))


def _raise(rule: object, problems: list[str]) -> None:
    if problems:
        raise DefinitionError(problems, where=type(rule).__name__)
