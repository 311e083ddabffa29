"""Win rates of a policy against another one, and what is left of them when length is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix, as_vector
from moalign.errors import DefinitionError
from moalign.front.intervals import Interval

NEWTON_STEPS = 100
TOLERANCE = 1e-12  # of the mean gradient
RIDGE = 1e-10  # keeps the system solvable where the labels are separated; coefficients then end at a certain rate


def preferences(rewards: ArrayLike, others: ArrayLike) -> Float[np.ndarray, " prompts"]:
    """Returns the chance that a sample of the first beats one of the second on each prompt; ties count half.

    Args:
        rewards: [prompts, samples] of the policy.
        others: [prompts, samples] of its opponent on the same prompts.
    """
    first, second = as_matrix(rewards, "rewards"), as_matrix(others, "others")
    if len(first) != len(second) or not first.size or not second.size:
        raise DefinitionError(f"both need samples on the same prompts, got {first.shape} and {second.shape}.")
    difference = first[:, :, None] - second[:, None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2))


def win_rate(preference: ArrayLike) -> Interval:
    """Returns the mean of preferences [prompts] in [0, 1], with its 95 % normal interval over prompts."""
    values = _shares(preference)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    mean = float(values.mean())
    return Interval(mean, float(max(0, mean - 1.96 * error)), float(min(1, mean + 1.96 * error)))


@final
@dataclass(frozen=True, kw_only=True)
class LengthControlled:
    """A win rate with the length of answers held equal."""

    value: Interval  # share in [0, 1]; the interval refits on resampled prompts
    raw: float  # win rate as it is
    quality: float  # log-odds of winning at equal length
    length: float  # log-odds for answers that are longer by much; positive when the judge likes length
    difficulty: float  # log-odds per unit of difficulty; 0 without

    @property
    def gamed(self) -> bool:
        """Whether length explains much of the win rate: more than a quarter of it, and ten points."""
        low = min(self.raw - self.raw / 4, self.raw - 0.1)
        high = max(self.raw + (1 - self.raw) / 4, self.raw + 0.1)
        return not low <= self.value.value <= high


def length_controlled_win_rate(
    preference: ArrayLike,
    length_difference: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    ridge: float = RIDGE,
    resamples: int = 200,
    seed: int = 0,
) -> LengthControlled:
    """Returns the win rate predicted for answers as long as the opponent's.

    logit P(win) = quality + length * tanh(d / sd(d)) + slope * difficulty is fitted by maximum likelihood on soft
    labels, and predicted with d = 0. Swapping the roles gives one minus the result.

    Args:
        preference: [prompts], share of wins in [0, 1].
        length_difference: [prompts], characters of the policy's answer minus those of the opponent's.
        difficulty: [prompts], of the prompts, measured once over many policies; None leaves the term out.
        ridge: penalty on the summed loss.
        resamples: refits on resampled prompts for the interval; 0 for none.
        seed: of the resampling.

    Raises:
        DefinitionError: shapes that differ, fewer than 3 prompts, or preferences outside [0, 1].

    Source: arXiv 2404.04475. Differs from its code in an exact fit instead of a cross-validated L1 penalty, in the
    direction of the length term, and in leaving out the baseline's rows against itself.
    """
    wins = _shares(preference)
    difference = as_vector(length_difference, "length_difference", len(wins))
    columns = [np.ones(len(wins)), np.tanh(difference / (difference.std(ddof=1) or 1.0))] if len(wins) > 2 else []
    if not columns:
        raise DefinitionError(f"length_controlled_win_rate needs at least 3 prompts, got {len(wins)}.")
    if difficulty is not None:
        columns.append(as_vector(difficulty, "difficulty", len(wins)))
    features = np.stack(columns, axis=1)

    def controlled(rows: FloatArray) -> tuple[float, FloatArray]:
        some = rows.astype(np.int64)
        fitted = _logistic(features[some], wins[some], ridge)
        neutral = features[some].copy()
        neutral[:, 1] = 0
        return float(_sigmoid(neutral @ fitted).mean()), fitted

    value, coefficients = controlled(np.arange(len(wins), dtype=np.float64))
    draw = np.random.default_rng(seed)
    refits = [controlled(draw.integers(len(wins), size=len(wins)).astype(np.float64))[0] for _ in range(resamples)]
    low, high = np.quantile(refits, [0.025, 0.975]) if refits else (np.nan, np.nan)
    return LengthControlled(
        value=Interval(value, float(low), float(high)),
        raw=float(wins.mean()),
        quality=float(coefficients[0]),
        length=float(coefficients[1]),
        difficulty=float(coefficients[2]) if len(coefficients) > 2 else 0.0,
    )


def _logistic(features: FloatArray, labels: FloatArray, ridge: float) -> FloatArray:
    """Returns the coefficients of soft-label logistic regression by Newton's method with halved steps."""
    at = np.zeros(features.shape[1])
    loss = _loss(features, labels, at, ridge)
    for _ in range(NEWTON_STEPS):
        rate = _sigmoid(features @ at)
        gradient = features.T @ (rate - labels) + ridge * at
        if np.abs(gradient).max() <= TOLERANCE * len(labels):
            break
        curvature = (features * (rate * (1 - rate))[:, None]).T @ features + ridge * np.eye(len(at))
        step, length = np.linalg.lstsq(curvature, gradient, rcond=None)[0], 1.0
        while length > 1e-8 and (there := _loss(features, labels, at - length * step, ridge)) > loss + 1e-12:
            length /= 2
        if length <= 1e-8:
            break
        at, loss = at - length * step, there
    return at


def _loss(features: FloatArray, labels: FloatArray, at: FloatArray, ridge: float) -> float:
    logits = features @ at
    return float((np.logaddexp(0, logits) - labels * logits).sum() + ridge / 2 * at @ at)


def _sigmoid(logits: FloatArray) -> FloatArray:
    result: FloatArray = np.exp(-np.logaddexp(0, -logits))
    return result


def _shares(preference: ArrayLike) -> FloatArray:
    values = as_vector(preference, "preference")
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise DefinitionError("preferences must be shares in [0, 1], at least one.")
    return values
