"""Statistics over seeds and tasks: interquartile means, stratified bootstrap, probability of improvement.

Scores [runs, tasks] are one number per run and task, larger is better, on a common scale such as hypervolume over that
of the oracle. Never mix raw rewards of different objectives. Source: arXiv 2108.13264 (rliable).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix, as_vector
from moalign.errors import DefinitionError
from moalign.front.intervals import Interval

REPLICATIONS = 10_000


def iqm(scores: ArrayLike) -> float:
    """Returns the interquartile mean: the mean without the lowest and the highest quarter, rounded down, of all scores.

    >>> iqm([1, 2, 3, 4, 5, 6, 7, 8])
    4.5
    """
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    _refuse(values)
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> float:
    """Returns the mean amount by which scores fall short of the target; scores above it do not make up for others."""
    values = np.asarray(scores, dtype=np.float64)
    _refuse(values)
    return float(np.maximum(target - values, 0).mean())


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Float[np.ndarray, " thresholds"]:
    """Returns the share of all scores above each threshold."""
    values = np.asarray(scores, dtype=np.float64)
    _refuse(values)
    return (values.reshape(-1, 1) > as_vector(thresholds, "thresholds")).mean(axis=0)


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> float:
    """Returns the chance that a random run of the first beats one of the second on a random task; ties count half.

    Mean over tasks of the Mann-Whitney statistic over runs x runs; .5 for equal methods.

    Args:
        scores, others: [runs, tasks]; the numbers of runs may differ. A vector is one task.
    """
    first, second = _runs(scores, "scores"), _runs(others, "others")
    if first.shape[1] != second.shape[1]:
        raise DefinitionError(f"both need the same tasks, got {first.shape[1]} and {second.shape[1]}.")
    difference = first[:, None] - second[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def stratified_bootstrap(
    scores: ArrayLike | Sequence[ArrayLike],
    statistic: Callable[..., float] = iqm,
    *,
    replications: int = REPLICATIONS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the statistic with its percentile interval; runs are resampled within each task independently.

    With few runs the interval is too narrow: below 5 show the single values instead, for claims have 10.

    Args:
        scores: [runs, tasks] (a vector is one task), or a tuple of two such for statistics of two methods, as
            `probability_of_improvement`; their runs are resampled independently.
        statistic: of one score matrix, or of two.
        replications: resamples.
        seed: of the resampling.
        level: coverage in (0, 1).

    Raises:
        DefinitionError: scores that are not finite or empty, or arguments out of range.
    """
    if replications < 1 or not 0 < level < 1:
        raise DefinitionError(f"replications must be >= 1 and level in (0, 1), got {replications} and {level}.")
    parts = scores if isinstance(scores, tuple) else (scores,)
    matrices = [_runs(part, "scores") for part in parts]
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(*(_resampled(matrix, generator) for matrix in matrices)) for _ in range(replications)
    ]  # one by one: statistics are arbitrary functions
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*matrices)), float(low), float(high))


def paired_difference(
    scores: ArrayLike, others: ArrayLike, *, replications: int = REPLICATIONS, seed: int = 0, level: float = 0.95
) -> Interval:
    """Returns the mean difference of two methods on the same seeds and tasks, with its interval over seeds.

    Args:
        scores, others: [seeds, tasks], row by row of the same seed.
    """
    first, second = _runs(scores, "scores"), _runs(others, "others")
    if first.shape != second.shape:
        raise DefinitionError(f"paired scores need the same seeds and tasks, got {first.shape} and {second.shape}.")
    return stratified_bootstrap(
        (first - second).mean(axis=1), np.mean, replications=replications, seed=seed, level=level
    )


def _resampled(matrix: FloatArray, generator: np.random.Generator) -> FloatArray:
    rows = generator.integers(len(matrix), size=matrix.shape)
    return np.take_along_axis(matrix, rows, axis=0)


def _runs(scores: ArrayLike, name: str) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    matrix = as_matrix(values[:, None] if values.ndim == 1 else values, name)
    _refuse(matrix)
    return matrix


def _refuse(values: FloatArray) -> None:
    if not values.size or not np.isfinite(values).all():
        raise DefinitionError(
            f"scores must be finite and not empty, got {values.size} values, NaN or infinite among them."
        )
