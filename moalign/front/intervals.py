"""Sampling error of front quantities. Prompts are the unit of resampling; samples of one prompt are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError

Z95 = 1.959964  # standard errors of a 95% interval
_RESAMPLES = 2000
_FEWEST_RESAMPLES = 200  # fewer draws say too little about a 95% bound
_BOOTSTRAP_MILLISECONDS = 3000
_NUMBERS_PER_CHUNK = 2_000_000  # resampled means held at once: 16 MB


@final
@dataclass(frozen=True)
class Interval:
    """A value with its confidence bounds, in the unit of the value; bounds are NaN when nothing is known about them.

    >>> print(Interval(0.6123, 0.5981, 0.6249))
    0.612 [0.598, 0.625]
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return format(self, f".{self._decimals()}f")

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if math.isnan(self.low) or math.isnan(self.high):
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def _decimals(self) -> int:
        """Two digits of the half width, or three of the value when there is no width to go by."""
        half = (self.high - self.low) / 2
        scale, digits = (half, 2) if math.isfinite(half) and half > 0 else (abs(self.value), 3)
        if not math.isfinite(scale) or scale == 0:
            return 3
        return min(max(digits - 1 - math.floor(math.log10(scale)), 0), 9)


def wilson(right: float | int, n: int) -> Interval:
    """Returns the share right / n with its 95% Wilson score interval; NaN in [0, 1] for n = 0.

    Args:
        right: successes in [0, n]; halves count for ties.
        n: independent trials.
    """
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    p, z2 = right / n, Z95 * Z95
    middle, half = p + z2 / (2 * n), Z95 * math.sqrt(max(p * (1 - p), 0.0) / n + z2 / (4 * n * n))
    return Interval(p, max((middle - half) / (1 + z2 / n), 0.0), min((middle + half) / (1 + z2 / n), 1.0))


class ClusteredMean(NamedTuple):
    """Means and their standard errors, both [...]."""

    mean: FloatArray
    standard_error: FloatArray


def bootstrap_over_prompts(
    prompt_values: ArrayLike,
    statistic: Callable[[FloatArray], float],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns `statistic` of the mean points, with its percentile bootstrap interval over prompts.

    One resample draws as many prompts as there are, with replacement, and uses the same draw for all points, so what
    the points share through a prompt stays shared. The set of points is not reselected. A statistic that prefers
    lucky points, hypervolume above all, is biased upwards by noise; so are its bounds.

    Args:
        prompt_values: [points, prompts, objectives], the mean over samples for each prompt.
        statistic: maps mean points [points, objectives] to one number.
        resamples: number of bootstrap draws, >= 1.
        seed: of the draws.
        level: coverage in (0, 1).

    Raises:
        DefinitionError: wrong shape, no prompts, values that are not finite, or arguments out of range.
    """
    values = _prompt_values(prompt_values)
    if resamples < 1 or not 0 < level < 1:
        raise DefinitionError(f"resamples must be >= 1 and level in (0, 1), got {resamples} and {level}.")
    points, prompts, objectives = values.shape
    by_prompt = values.transpose(1, 0, 2).reshape(prompts, points * objectives)
    generator = np.random.default_rng(seed)
    chunk = max(1, _NUMBERS_PER_CHUNK // max(points * objectives, prompts))
    statistics: list[float] = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=size)  # [size, prompts]
        means = (counts / prompts @ by_prompt).reshape(size, points, objectives)
        statistics.extend(statistic(resampled) for resampled in means)
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values.mean(axis=1))), float(low), float(high))


def clustered_mean(values: Float[np.ndarray, "prompts samples *rest"]) -> ClusteredMean:
    """Returns the mean over prompts of the prompt means, and its standard error clustered by prompt.

    se = sd(prompt means, one degree of freedom less) / sqrt(prompts); NaN with a single prompt. Every prompt counts the
    same, and the samples of one prompt are not taken for independent ones.

    Args:
        values: [prompts, samples, ...] in any unit, finite.

    Raises:
        DefinitionError: no prompts or samples, or values that are not finite.
    """
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise DefinitionError(f"values needs at least one prompt and one sample, got shape {values.shape}.")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        raise DefinitionError(f"values has NaN or infinite entries for prompts {rows[:5].tolist()}.")
    prompt_means = values.mean(axis=1, dtype=np.float64)  # [prompts, ...]
    prompts = len(prompt_means)
    error = np.full(prompt_means.shape[1:], np.nan)
    if prompts > 1:
        error = prompt_means.std(axis=0, ddof=1) / math.sqrt(prompts)
    return ClusteredMean(np.asarray(prompt_means.mean(axis=0)), np.asarray(error))


def affordable_resamples(points: int, objectives: int) -> int:
    """Returns how many draws keep the interval of a hypervolume within seconds; by sizes only, hence reproducible."""
    if objectives <= 5:
        return _RESAMPLES
    # Cost of one exact hypervolume, fitted to points on a sphere: 0.07 ms at 6 objectives and 40 points.
    milliseconds = 0.07 * 9.0 ** (objectives - 6) * (points / 40) ** (objectives / 2)
    draws = min(_RESAMPLES, int(_BOOTSTRAP_MILLISECONDS / max(milliseconds, 0.01)))
    return draws if draws >= _FEWEST_RESAMPLES else 0


def _prompt_values(prompt_values: ArrayLike) -> FloatArray:
    values = np.asarray(prompt_values, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] == 0:
        raise DefinitionError(
            f"prompt_values must be [points, prompts, objectives] with at least one prompt, got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
        raise DefinitionError(f"prompt_values has NaN or infinite entries for points {rows[:5].tolist()}.")
    return values
