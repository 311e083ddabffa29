"""Estimates of the KL to the reference from samples of the policy, in nats per sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError

LARGEST_LOG_RATIO = 20.0  # nats; beyond, k3 is clamped


@final
@dataclass(frozen=True, kw_only=True)
class KLEstimates:
    """Means over samples y of the policy, with l = log policy(y) - log reference(y)."""

    k1: float  # l: unbiased, noisy, may be negative
    k2: float  # l^2 / 2: biased, accurate near the reference; as a loss its gradient is that of the KL
    k3: float  # exp(-l) - 1 + l: unbiased, never negative, heavy-tailed far from the reference
    clamped: int  # samples whose l was clamped to +-20 in k3


def kl_estimates(log_ratio: ArrayLike) -> KLEstimates:
    """Returns the three estimators of log-ratios, of any shape, every sample counting the same.

    The per-token exact KL that evaluation reports has less noise than all of them; these need only the log-probs of
    the samples. Samples must be drawn at temperature 1 without truncation.

    Raises:
        DefinitionError: no samples, or log-ratios that are not finite.
    """
    ratio: FloatArray = np.asarray(log_ratio, dtype=np.float64)
    if not ratio.size or not np.isfinite(ratio).all():
        raise DefinitionError("kl_estimates needs finite log-ratios, at least one.")
    bounded = np.clip(ratio, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return KLEstimates(
        k1=float(ratio.mean()),
        k2=float((ratio**2).mean() / 2),
        k3=float((np.expm1(-bounded) + bounded).mean()),
        clamped=int((bounded != ratio).sum()),
    )
