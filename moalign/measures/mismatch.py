"""Do two sets of rewards mean the same: proxy front against held-out front, and STARC distances between rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix
from moalign.errors import DefinitionError
from moalign.front.indicators import hypervolume
from moalign.front.pareto import non_dominated

FEWEST_POLICIES = 10  # for correlations that mean something
TINY = 1e-12  # relative deviation below which a reward counts as constant


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Mismatch:
    """The same policies by training rewards (proxy) and by independent ones (held out)."""

    correlation: Float[np.ndarray, " weights"]  # Spearman's, of w . reward over policies; NaN for constant rewards
    regret: Float[np.ndarray, " weights"]  # held-out utility lost by choosing with the proxy, reward units
    agreement: float  # Jaccard index of the two sets of non-dominated policies
    false_pareto: float  # share of proxy-non-dominated policies that are dominated by held-out rewards
    hypervolume_ratio: float  # held-out hypervolume of the proxy's front over that of all policies
    few_policies: bool  # fewer than ten: correlations are noise


def objective_mismatch(
    proxy: ArrayLike, held_out: ArrayLike, weights: ArrayLike, reference_point: ArrayLike
) -> Mismatch:
    """Returns how far a front by proxy rewards is one by held-out rewards.

    Args:
        proxy, held_out: [policies, objectives], mean rewards of the same policies.
        weights: [weights, objectives].
        reference_point: [objectives], corner of the held-out hypervolume.

    Raises:
        DefinitionError: shapes that differ, or fewer than two policies.
    """
    from scipy.stats import spearmanr

    first, second = as_matrix(proxy, "proxy"), as_matrix(held_out, "held_out")
    directions = as_matrix(weights, "weights")
    if first.shape != second.shape or directions.shape[1] != first.shape[1] or len(first) < 2:
        raise DefinitionError(
            f"objective_mismatch needs two measurements of the same policies, at least two, and weights of as many "
            f"objectives; got {first.shape}, {second.shape} and {directions.shape}."
        )
    ours, theirs = first @ directions.T, second @ directions.T  # [policies, weights]
    correlations = [
        np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)
        for a, b in zip(ours.T, theirs.T, strict=True)
    ]
    chosen = ours.argmax(axis=0)
    front, truth = non_dominated(first, True), non_dominated(second, True)
    everything = hypervolume(second, reference_point, unattained="ignore")
    return Mismatch(
        correlation=np.array(correlations),
        regret=theirs.max(axis=0) - theirs[chosen, np.arange(len(directions))],
        agreement=float((front & truth).sum() / (front | truth).sum()),
        false_pareto=float((front & ~truth).sum() / front.sum()),
        hypervolume_ratio=hypervolume(second[front], reference_point, unattained="ignore") / everything
        if everything
        else float("nan"),
        few_policies=len(first) < FEWEST_POLICIES,
    )


def starc(rewards: ArrayLike) -> Float[np.ndarray, "rewards rewards"]:
    """Returns the STARC distances between rewards of the same responses, 0 (same ranking of policies) to 2 (opposite).

    Every reward is centred per prompt, which no policy can influence, and divided by its norm; the distance is that of
    what is left, sqrt(2 (1 - correlation)). A constant reward is at distance 1 from others and 0 from constants.

    Args:
        rewards: [prompts, samples, rewards] on samples of the reference policy, two or more a prompt.

    Raises:
        DefinitionError: other shapes, a single sample, or values that are not finite.

    Source: arXiv 2309.15257, for contextual bandits.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] < 2 or 0 in values.shape or not np.isfinite(values).all():
        raise DefinitionError(f"starc needs finite rewards [prompts, samples >= 2, rewards], got shape {values.shape}.")
    canonical: FloatArray = (values - values.mean(axis=1, keepdims=True)).reshape(-1, values.shape[2])
    norm = np.sqrt((canonical**2).mean(axis=0))
    constant = norm <= TINY * np.maximum(np.abs(values).max(axis=(0, 1)), np.finfo(float).tiny)
    standard = np.where(constant, 0.0, canonical / np.where(constant, 1.0, norm))
    return np.sqrt(((standard[:, :, None] - standard[:, None]) ** 2).mean(axis=0))
