"""How well a model of users agrees with what they said: accuracy per user, the worst, and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from moalign.arrays import FloatArray, IntArray
from moalign.data.tables import short_repr
from moalign.errors import DataError
from moalign.front import wilson

BINS = 10
FEWEST_CALIBRATED = 30  # comparisons of a part that has a calibration error


class Share(NamedTuple):
    """A share of n comparisons with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n}"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Agreement with held-out comparisons; labels of exactly 0.5 are left out of accuracies, ties count one half."""

    accuracy: Share
    parts: Mapping[str, Share]  # per user or per group, in order of appearance
    worst: str  # the part of lowest accuracy; the one with most comparisons among equals
    log_loss: float  # nats per comparison
    brier: float  # mean squared error of the predicted probability
    calibration_error: float  # ECE, 10 equal bins of the predicted side's probability
    worst_calibration_error: float  # the largest of the parts with at least 30 comparisons; NaN if none has
    reliability: tuple[tuple[float, float, int], ...]  # mean confidence, accuracy, comparisons of each bin that has any
    unknown_users: int = 0  # users without a mixture of their own, judged as the average user

    def __str__(self) -> str:
        found = self.parts[self.worst]
        return (
            f"accuracy {self.accuracy}; worst of {len(self.parts)}: {short_repr(self.worst)} {found}; log-loss "
            f"{self.log_loss:.3f}, ECE {self.calibration_error:.3f}"
        )


def share(right: float, n: int) -> Share:
    """Returns right / n with its interval; n = 0 gives NaN in [0, 1]."""
    found = wilson(right, n)
    return Share(found.value, found.low, found.high, n)


def hits(margins: FloatArray, labels: FloatArray) -> FloatArray:
    """Returns 1 where the margin has the sign of the label's side, 0.5 at ties, NaN where the label is 0.5."""
    side = np.sign(labels - 0.5)
    return np.where(side == 0, np.nan, 0.5 + 0.5 * np.sign(margins) * side)


def calibration(probabilities: FloatArray, hit: FloatArray) -> tuple[float, tuple[tuple[float, float, int], ...]]:
    """Returns the ECE and its bins: sum over bins of share |accuracy - confidence|, on the predicted side."""
    known = ~np.isnan(hit)
    confidence, right = np.maximum(probabilities, 1 - probabilities)[known], hit[known]
    if not len(right):
        return float("nan"), ()
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins = [
        (float(confidence[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in range(BINS)
        if (place == b).any()
    ]
    return sum(n * abs(right - sure) for sure, right, n in bins) / len(right), tuple(bins)


def measure(
    margins: FloatArray, probabilities: FloatArray, labels: FloatArray, part: IntArray, names: tuple[str, ...],
    unknown_users: int = 0,
) -> Agreement:  # fmt: skip
    """Returns the agreement of n predictions.

    Args:
        margins: [n], reward of chosen minus reward of rejected.
        probabilities: [n], predicted that chosen is preferred.
        labels: [n], probability that chosen is preferred.
        part: [n], positions in `names`.
        names: users or groups.
        unknown_users: for the record.

    Raises:
        DataError: every label is 0.5.
    """
    hit = hits(margins, labels)
    if np.isnan(hit).all():
        raise DataError("every label is 0.5, so there is no preference to agree with.")
    known = ~np.isnan(hit)
    right = np.bincount(part[known], weights=hit[known], minlength=len(names))
    counts = np.bincount(part[known], minlength=len(names))
    judged = {name: share(float(right[i]), int(counts[i])) for i, name in enumerate(names) if counts[i]}
    p = probabilities.clip(1e-12, 1 - 1e-12)
    error, bins = calibration(probabilities, hit)
    by_part = np.split(np.argsort(part, kind="stable"), np.cumsum(np.bincount(part, minlength=len(names)))[:-1])
    large = [rows for rows, n in zip(by_part, counts, strict=True) if n >= FEWEST_CALIBRATED]
    return Agreement(
        accuracy=share(float(right.sum()), int(counts.sum())), parts=judged,
        worst=min(judged, key=lambda name: (judged[name].value, -judged[name].n)),
        log_loss=float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()),
        brier=float(((probabilities - labels) ** 2).mean()), calibration_error=error, reliability=bins,
        worst_calibration_error=max((calibration(probabilities[m], hit[m])[0] for m in large), default=float("nan")),
        unknown_users=unknown_users,
    )  # fmt: skip


def adjusted_rand(first: IntArray, second: IntArray) -> float:
    """Returns the adjusted Rand index of two groupings [users]: 1 for the same up to names, 0 on average by chance."""
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(table, (first, second), 1)
    both, rows, columns, all_pairs = (
        float((counts * (counts - 1) / 2).sum())
        for counts in (table, table.sum(axis=1), table.sum(axis=0), np.array([float(len(first))]))
    )
    expected = rows * columns / max(all_pairs, 1.0)
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
