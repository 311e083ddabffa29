"""Which settings mattered, and how: shares of the variance and slices, both from the tuner's model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from moalign import surrogate
from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.tuning.trial import Trial
from moalign.tuning.tuner import Tuner

SAMPLES, DRAWS = 256, 16  # points behind a share of variance, and functions it is computed for
MOST_ORDERS, ORDERS = 120, 8  # of settings: all up to so many, else random ones and their reverses
AVERAGED = 128  # settings of the others that a slice averages over
STEPS = 25  # points of a slice

HYPERVOLUME = "hypervolume"


class Share(NamedTuple):
    """What a setting explains, in [0, 1], and the standard deviation of that under what the model does not know."""

    share: float
    sd: float


def importance(tuner: Tuner, of: str = HYPERVOLUME) -> dict[str, Share]:
    """Returns the share of the variance over the whole search space that is due to each setting, largest first.

    Shapley effects: what settings do together is divided evenly between them, so shares sum to one (total-order Sobol
    indices count it for each). Computed for functions drawn from the model's posterior; means over the draws.

    Args:
        tuner: with at least as many results as spread trials.
        of: an objective, a limited column, or "hypervolume": the volume that the policy of a trial alone dominates
            (with one objective its value).

    Raises:
        DefinitionError: nothing of this name, or too few results.

    Source: Song, Nelson and Staum 2016, with the variances of Jansen's estimator (Saltelli et al. 2010).
    """
    results = _enough(tuner)
    target = _target(tuner, results, of)
    names = list(tuner.space.parts)
    if np.ptp(target) == 0:
        return dict.fromkeys(names, Share(0.0, 0.0))
    values = surrogate.fit(tuner.rows(results), target[:, None], tuner.seed).draws(DRAWS)
    first, second = (tuner.space.sobol(SAMPLES, tuner.seed + i) for i in (31, 32))
    # two Sobol sequences walk through the space alike, and would not be independent row by row
    second = np.random.default_rng([tuner.seed, 34]).permutation(second)
    base = values(first)

    @cache
    def variance(changed: frozenset[str]) -> FloatArray:
        """Returns what is due to some settings, alone and with all others [draws]."""
        mixed = first.copy()
        for name in changed:
            mixed[:, tuner.space.parts[name]] = second[:, tuner.space.parts[name]]
        moved: FloatArray = ((base - values(mixed)) ** 2).mean(axis=1) / 2
        return moved

    effects = np.zeros((len(names), DRAWS))
    for order in _orders(len(names), tuner.seed):
        for place, i in enumerate(order):
            before = frozenset(names[k] for k in order[:place])
            effects[i] += variance(before | {names[i]}) - (variance(before) if before else 0.0)
    effects = np.maximum(effects, 0.0)  # below 0 only by the error of the samples
    shares = effects / np.maximum(effects.sum(axis=0), 1e-300)
    found = {n: Share(float(s.mean()), float(s.std())) for n, s in zip(names, shares, strict=True)}
    return dict(sorted(found.items(), key=lambda item: -item[1].share))


def _orders(settings: int, seed: int) -> list[tuple[int, ...]]:
    """Returns all orders of a few settings, and random ones with their reverses of many."""
    if math.factorial(settings) <= MOST_ORDERS:
        return list(itertools.permutations(range(settings)))
    rng = np.random.default_rng([seed, 33])
    drawn = [tuple(rng.permutation(settings).tolist()) for _ in range(ORDERS)]
    return drawn + [order[::-1] for order in drawn]


def slices(tuner: Tuner, name: str) -> dict[str, Any]:
    """Returns how the objectives depend on one setting, averaged over all others by the model.

    Returns:
        "settings" [points] in the setting's own unit (options of a choice; of weights one list per point along the
        edges from the centre), "mean" and "sd" by objective [points], and the measured "trials": "settings" and
        values by objective.

    Raises:
        DefinitionError: nothing of this name is tuned, or too few results.
    """
    if name not in tuner.space.dimensions:
        raise DefinitionError(f"{name!r} is not tuned; tuned are {', '.join(tuner.space.dimensions)}.")
    results = _enough(tuner)
    part, dimension = tuner.space.parts[name], tuner.space.dimensions[name]
    columns = _along(dimension)
    others = tuner.space.sobol(AVERAGED, tuner.seed + 33)
    model = tuner.model()
    means, deviations = [], []
    for column in columns:
        rows = others.copy()
        rows[:, part] = column
        mean, sd = model.predict(tuner.encoded(rows))
        means.append(mean.mean(axis=0))
        deviations.append(np.sqrt((sd**2).mean(axis=0)))
    return {
        "settings": [dimension.decode(column) for column in columns],
        "mean": {n: [float(m[i]) for m in means] for i, n in enumerate(tuner.objectives)},
        "sd": {n: [float(s[i]) for s in deviations] for i, n in enumerate(tuner.objectives)},
        "trials": {
            "settings": [t.settings[name] for t in results],
            **{n: [_values(t)[n] for t in results] for n in tuner.objectives},
        },
    }


def _along(dimension: Any) -> list[FloatArray]:
    """Returns encoded values along a dimension: a line, all options, or lines from the centre to every corner."""
    if dimension.describe()["kind"] == "choice":
        return list(np.eye(dimension.width))
    if dimension.describe()["kind"] == "simplex":
        m = dimension.width
        shares = np.linspace(0, 1, STEPS // m)
        return [(1 - s) * np.full(m, 1 / m) + s * np.eye(m)[i] for i in range(m) for s in shares]
    return [dimension.encode(dimension.decode(np.array([u]))) for u in np.linspace(0, 1, STEPS)]


def _target(tuner: Tuner, results: list[Trial], of: str) -> FloatArray:
    if of == HYPERVOLUME and len(tuner.objectives) > 1:
        corner = tuner.reference_point
        assert corner is not None  # there are enough results
        values = np.array([[_values(t)[n] for n in tuner.objectives] for t in results])
        return np.prod(np.maximum(values - corner, 0), axis=1)
    of = tuner.objectives[0] if of == HYPERVOLUME else of
    if of in tuner.objectives:
        return np.array([_values(t)[of] for t in results])
    if of in tuner.limits:
        return np.array([t.result.columns[of] for t in results if t.result is not None])
    known = ", ".join([HYPERVOLUME, *tuner.objectives, *tuner.limits])
    raise DefinitionError(f"Nothing called {of!r} was measured of every trial; known are {known}.")


def _values(trial: Trial) -> Mapping[str, float]:
    assert trial.result is not None
    return trial.result.values


def _enough(tuner: Tuner) -> list[Trial]:
    results = [t for t in tuner.trials if t.result is not None]
    least = min(tuner.initial, 4)
    if len(results) < least:
        raise DefinitionError(f"{len(results)} trials have a result; a model of them needs at least {least}.")
    return results
