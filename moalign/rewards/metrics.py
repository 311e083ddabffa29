"""How good rewards are: accuracy on pairs, calibration, fit to ratings, and how objectives go together.

Pure functions of numbers. `clusters` names the prompt of each row where rows of one prompt are not independent; the
intervals then resample prompts. Rows without clusters are taken as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, IntArray, as_matrix, as_vector
from moalign.errors import DefinitionError
from moalign.front import Interval

RESAMPLES = 2000
BINS = 10
_LEVEL = 0.95
_NUMBERS_AT_ONCE = 2_000_000  # counts of resampled clusters held in memory


def pairwise_accuracy(
    differences: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    strength: ArrayLike | None = None,
    ties: float = 0.5,
    clusters: Sequence[object] | None = None,
    seed: int = 0,
) -> Interval:
    """Returns the share of pairs in which the preferred response has the higher reward, with its 95 % interval.

    Args:
        differences: reward of the first minus that of the second response [pairs].
        labels: probability that the first is preferred; 1 when None. Pairs of exactly 0.5 do not count.
        strength: how many times each pair counts; 1 when None.
        ties: what a pair with equal rewards counts; 0.5 is a guess, 0 is RewardBench's rule.
        clusters: the prompt of each pair.
        seed: of the bootstrap.

    Raises:
        DefinitionError: values that are not finite, or no pair that prefers anything.
    """
    gap = as_vector(differences, "differences")
    side = np.sign(np.ones(len(gap)) if labels is None else as_vector(labels, "labels", len(gap)) - 0.5)
    weight = np.abs(side) * (1.0 if strength is None else as_vector(strength, "strength", len(gap)))
    if not weight.sum() > 0:
        raise DefinitionError("pairwise_accuracy needs a pair that prefers one response; all labels are 0.5.")
    right = np.where(gap == 0, ties, gap * side > 0) * weight
    return _bootstrap(lambda r, w: r / w, (right, weight), clusters, seed)


def r_squared(
    predictions: ArrayLike, ratings: ArrayLike, *, clusters: Sequence[object] | None = None, seed: int = 0
) -> Interval:
    """Returns 1 - squared error / squared error of the mean rating, with its 95 % interval; NaN ratings do not count.

    Below 0 the predictions are worse than the mean of these very ratings.

    Raises:
        DefinitionError: predictions that are not finite, or ratings that are all equal.
    """
    given = np.asarray(ratings, dtype=np.float64)
    rated = ~np.isnan(given)
    guess, truth = as_vector(predictions, "predictions", len(given))[rated], given[rated]
    if not len(truth) or np.ptp(truth) == 0:
        raise DefinitionError("r_squared needs ratings that differ.")
    kept = None if clusters is None else [c for c, keep in zip(clusters, rated, strict=True) if keep]
    sums = ((guess - truth) ** 2, truth, truth**2, np.ones(len(truth)))

    def value(error: FloatArray, total: FloatArray, squares: FloatArray, n: FloatArray) -> FloatArray:
        return 1 - error / np.maximum(squares - total**2 / n, 1e-300)

    return _bootstrap(value, sums, kept, seed)


class Bin(NamedTuple):
    """One bar of a reliability diagram."""

    confidence: float  # mean predicted probability
    share: float  # how often the prediction came true
    pairs: float


@final
@dataclass(frozen=True)
class Calibration:
    """How far predicted probabilities of preference are from what happens."""

    error: float  # ECE: sum over bins of share of pairs * |mean prediction - mean label|
    log_loss: float  # nats per pair
    brier: float  # mean squared error of the probability
    bins: tuple[Bin, ...]  # of equal width, lowest first; empty ones are left out


def calibration(
    differences: ArrayLike, labels: ArrayLike | None = None, *, temperature: float = 1.0, bins: int = BINS
) -> Calibration:
    """Returns how well sigmoid(difference / temperature) predicts the labels; every pair is seen in both orders.

    Args:
        differences: reward of the first minus that of the second response, in log-odds [pairs].
        labels: probability that the first is preferred; 1 when None.
        temperature: > 0; see `fit_temperature`.
        bins: of equal width on [0, 1]; the last is closed at 1.
    """
    from scipy.special import expit, log_expit

    gap, label = _pairs(differences, labels)
    log_loss = -(label * log_expit(gap / temperature) + (1 - label) * log_expit(-gap / temperature)).mean()
    predicted, seen = np.r_[expit(gap / temperature), expit(-gap / temperature)], np.r_[label, 1 - label]
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    bars = [
        Bin(float(predicted[place == b].mean()), float(seen[place == b].mean()), float((place == b).sum() / 2))
        for b in np.unique(place)
    ]
    error = sum(bar.pairs * abs(bar.confidence - bar.share) for bar in bars) / len(gap)
    return Calibration(error, float(log_loss), float(((predicted - seen) ** 2).mean()), tuple(bars))


def calibration_error(
    differences: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    temperature: float = 1.0,
    bins: int = BINS,
    clusters: Sequence[object] | None = None,
    seed: int = 0,
) -> Interval:
    """Returns the ECE of `calibration` with its 95 % interval over pairs, or over prompts with `clusters`.

    The error of a sample exceeds that of the population, and its bootstrap exceeds both. So the upper bound is the
    bootstrap's, the lower one mirrors it, and is 0 unless the error exceeds what the noise of calibrated rewards gives
    once in twenty times. In 300 simulated samples each of 100 to 1000 pairs it covers between 92 and 98 %.

    Args:
        differences, labels, temperature, bins: as in `calibration`.
        clusters: the prompt of each pair.
        seed: of the bootstrap.
    """
    from scipy.special import expit

    gap, label = _pairs(differences, labels)
    chance = expit(gap / temperature)
    sums = np.zeros((len(gap), bins))  # what each pair adds to (prediction - label) of each bin
    for predicted, missed in ((chance, chance - label), (1 - chance, label - chance)):
        np.add.at(sums, (np.arange(len(gap)), np.minimum((predicted * bins).astype(int), bins - 1)), missed)
    drawn = _resampled(sums, clusters, seed)
    total = sums.sum(axis=0)

    def error(of_bins: FloatArray) -> FloatArray:
        return np.asarray(np.abs(of_bins).sum(axis=-1) / (2 * len(gap)))

    found, high = float(error(total)), float(np.quantile(error(drawn), (1 + _LEVEL) / 2))
    noise = float(np.quantile(error(drawn - total), _LEVEL))
    return Interval(found, 0.0 if found <= noise else max(2 * found - high, 0.0), high)


def fit_temperature(differences: ArrayLike, labels: ArrayLike | None = None) -> float:
    """Returns the temperature in [1e-3, 1e3] of the smallest log-loss; fit it on pairs the rewards have not seen."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_expit

    gap, label = _pairs(differences, labels)

    def loss(log_temperature: float) -> float:
        z = gap / np.exp(log_temperature)
        return float(-(label * log_expit(z) + (1 - label) * log_expit(-z)).mean())

    limit = float(np.log(1e3))
    return float(np.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))


@final
@dataclass(frozen=True, eq=False)
class Correlations:
    """How objectives go together across responses."""

    matrix: FloatArray  # [objectives, objectives]; a constant objective correlates 0 with all others
    effective: float  # (sum of eigenvalues)^2 / sum of their squares: how many objectives there really are


def correlations(rewards: ArrayLike, *, prompts: Sequence[object] | None = None, ranks: bool = False) -> Correlations:
    """Returns the correlation matrix of rewards [responses, objectives].

    Args:
        rewards: one column per objective.
        prompts: the prompt of each row: rewards are then centred within each prompt, which leaves only what tells its
            responses apart. Without them, a prompt that is easy in every respect makes objectives look alike.
        ranks: Spearman's correlation instead of Pearson's.
    """
    values = as_matrix(rewards, "rewards")
    if prompts is not None:
        group = _numbered(prompts, len(values))
        count = np.bincount(group)[:, None]
        sums = np.stack([np.bincount(group, column) for column in values.T], axis=1)
        values = values - (sums / count)[group]
    if ranks:
        from scipy.stats import rankdata

        values = np.apply_along_axis(rankdata, 0, values)
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    still = spread <= 1e-12 * np.maximum(np.abs(values).max(axis=0, initial=0), 1e-300) * np.sqrt(len(values))
    unit = np.where(still, 0.0, centred / np.where(still, 1.0, spread))
    matrix = np.clip(unit.T @ unit, -1, 1)
    np.fill_diagonal(matrix, 1.0)
    eigenvalues = np.linalg.eigvalsh(matrix)
    return Correlations(matrix, float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()))


def _pairs(differences: ArrayLike, labels: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    gap = as_vector(differences, "differences")
    if not len(gap):
        raise DefinitionError("there are no pairs.")
    label = np.ones(len(gap)) if labels is None else as_vector(labels, "labels", len(gap))
    if ((label < 0) | (label > 1)).any():
        raise DefinitionError(f"labels must lie in [0, 1], got {label.min():g}..{label.max():g}.")
    return gap, label


def _numbered(clusters: Sequence[object], n: int) -> IntArray:
    if len(clusters) != n:
        raise DefinitionError(f"there must be one prompt per row, got {len(clusters)} for {n} rows.")
    places = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
    return np.array([places[c] for c in clusters], dtype=np.int64)


def _bootstrap(
    value: Callable[..., FloatArray], rows: tuple[FloatArray, ...], clusters: Sequence[object] | None, seed: int
) -> Interval:
    """Returns value(sums of rows) with the percentile interval over resampled clusters."""
    columns = np.stack(rows, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample without any pair is left out
        drawn = value(*_resampled(columns, clusters, seed).T)
    tail = (1 - _LEVEL) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(float(value(*columns.sum(axis=0))), float(low), float(high))


def _resampled(columns: FloatArray, clusters: Sequence[object] | None, seed: int) -> FloatArray:
    """Returns the sums of columns [rows, columns] over resampled clusters, [resamples, columns]."""
    group = np.arange(len(columns)) if clusters is None else _numbered(clusters, len(columns))
    sums = np.stack([np.bincount(group, column) for column in columns.T], axis=1)  # [clusters, columns]
    random, n = np.random.default_rng(seed), len(sums)
    size = max(1, min(RESAMPLES, _NUMBERS_AT_ONCE // n))
    blocks = [
        random.multinomial(n, np.full(n, 1 / n), size=min(size, RESAMPLES - start)) @ sums
        for start in range(0, RESAMPLES, size)
    ]
    return np.concatenate(blocks)
