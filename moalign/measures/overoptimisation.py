"""Curves of proxy and held-out reward over the distance to the reference, and what optimising too far costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_vector
from moalign.errors import DefinitionError
from moalign.front.intervals import Interval

SMALLEST_DISTANCE = 0.1  # the form for trained policies has an infinite slope at 0
RESAMPLES = 500


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """gain(d) = d (a - b d) for best-of-n and d (a - b log d) for trained policies, d = sqrt(KL)."""

    kind: Literal["best_of_n", "trained"]
    a: float
    b: float
    peak_kl: Interval  # KL at which the curve turns, nats; infinite when it does not
    peak_gain: float  # gain there, reward units

    def gain(self, kl: ArrayLike) -> FloatArray:
        """Returns the fitted gain at KLs in nats."""
        d = np.sqrt(np.asarray(kl, dtype=np.float64))
        return np.asarray(_features(d, self.kind) @ [self.a, self.b], dtype=np.float64)


def fit_curve(
    kl: ArrayLike, gain: ArrayLike, kind: Literal["best_of_n", "trained"] = "trained", *, seed: int = 0
) -> Curve:
    """Returns the over-optimisation curve through policies of one kind, by least squares.

    Args:
        kl: [policies] to the reference, nats.
        gain: [policies] held-out reward minus that of the reference.
        kind: of the policies; for trained ones those nearer than sqrt(KL) = .1 are left out.
        seed: of the resampling of policies, which gives the interval of the peak.

    Raises:
        DefinitionError: fewer than three policies that can be used, or a negative KL.

    Source: arXiv 2210.10760, section 3.1.
    """
    nats = as_vector(kl, "kl")
    gains = as_vector(gain, "gain", len(nats))
    if len(nats) and nats.min() < 0:
        raise DefinitionError("kl must not be negative.")
    d = np.sqrt(nats)
    used = d >= SMALLEST_DISTANCE if kind == "trained" else d > 0
    if used.sum() < 3:
        raise DefinitionError(f"fit_curve needs at least 3 policies away from the reference, got {int(used.sum())}.")
    d, gains = d[used], gains[used]
    a, b = _fit(d, gains, kind)
    draw = np.random.default_rng(seed)
    peaks = []
    for _ in range(RESAMPLES):
        rows = draw.integers(len(d), size=len(d))
        if len(np.unique(d[rows])) > 1:
            peaks.append(_peak(*_fit(d[rows], gains[rows], kind), kind)[0])
    low, high = np.quantile(peaks, [0.025, 0.975], method="inverted_cdf")
    peak, best = _peak(a, b, kind)
    return Curve(kind=kind, a=a, b=b, peak_kl=Interval(peak, float(low), float(high)), peak_gain=best)


@final
@dataclass(frozen=True, kw_only=True)
class OverOptimisation:
    """Choosing by the proxy instead of by the held-out reward; positions among the policies."""

    chosen: int  # best by the proxy
    best: int  # best by the held-out reward
    loss: float  # held-out reward given away, reward units
    turned: bool  # whether the held-out reward fell from `best` to `chosen` although the KL rose


def over_optimisation(kl: ArrayLike, proxy: ArrayLike, held_out: ArrayLike) -> OverOptimisation:
    """Returns what it costs to choose among policies by the reward that they were trained on."""
    nats = as_vector(kl, "kl")
    first, second = as_vector(proxy, "proxy", len(nats)), as_vector(held_out, "held_out", len(nats))
    if not len(nats):
        raise DefinitionError("at least one policy is needed.")
    chosen, best = int(first.argmax()), int(second.argmax())
    loss = float(second[best] - second[chosen])
    return OverOptimisation(chosen=chosen, best=best, loss=loss, turned=loss > 0 and bool(nats[chosen] > nats[best]))


def _features(d: FloatArray, kind: str) -> FloatArray:
    bend = d if kind == "best_of_n" else np.log(np.maximum(d, 1e-300))
    return np.stack([d, -d * bend], axis=-1)


def _fit(d: FloatArray, gains: FloatArray, kind: str) -> tuple[float, float]:
    a, b = np.linalg.lstsq(_features(d, kind), gains, rcond=None)[0]
    return float(a), float(b)


def _peak(a: float, b: float, kind: str) -> tuple[float, float]:
    """Returns (KL, gain) of the curve's maximum."""
    if b <= 0 or (kind == "best_of_n" and a <= 0):
        return (math.inf, math.inf) if b <= 0 else (0.0, 0.0)
    if kind == "best_of_n":
        return (a / (2 * b)) ** 2, a * a / (4 * b)
    exponent = min(a / b - 1, 300.0)
    return math.exp(2 * exponent), b * math.exp(exponent)
