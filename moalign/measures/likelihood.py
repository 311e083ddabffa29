"""What a policy does to the likelihood of preference pairs: ranking, its ideal, and displacement.

Log-probs are sums over the response in nats, one per pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_vector
from moalign.errors import DefinitionError

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
CERTAIN = 1e-3  # unanimous raters are taken for 1 - CERTAIN


def ranking_accuracy(
    chosen: ArrayLike,
    rejected: ArrayLike,
    *,
    chosen_tokens: ArrayLike | None = None,
    rejected_tokens: ArrayLike | None = None,
) -> float:
    """Returns the share of pairs in which the policy gives the chosen response at least the rejected one's log-prob.

    Not the reward accuracy of DPO, which compares log-ratios to the reference. With token counts, means per token are
    compared. Source: arXiv 2405.19534.
    """
    first, second = _two(chosen, rejected)
    if (chosen_tokens is None) != (rejected_tokens is None):
        raise DefinitionError("give the token counts of both responses, or of none.")
    if chosen_tokens is not None and rejected_tokens is not None:
        counts = _two(chosen_tokens, rejected_tokens)
        if len(counts[0]) != len(first) or min(c.min() for c in counts) < 1:
            raise DefinitionError("token counts must be at least 1, one for each response.")
        first, second = first / counts[0], second / counts[1]
    return float((first >= second).mean())


@final
@dataclass(frozen=True, kw_only=True)
class IdealRanking:
    """Ranking accuracy of the exact optimum of the preference loss, over KL strengths."""

    by_beta: dict[float, float]
    low: float
    median: float
    high: float


def idealised_ranking(
    reference_chosen: ArrayLike, reference_rejected: ArrayLike, share: ArrayLike, betas: Sequence[float] = BETAS
) -> IdealRanking:
    """Returns which share of pairs a perfectly trained policy would rank correctly.

    Its log-odds are those of the reference plus log(a / (1 - a)) / beta. The distance of a real policy's accuracy to
    the median is the alignment gap.

    Args:
        reference_chosen, reference_rejected: log-probs under the reference.
        share: of the raters, who prefer the chosen response; 1 is taken for .999.
        betas: KL strengths > 0.

    Source: arXiv 2405.19534, section 3.
    """
    first, second = _two(reference_chosen, reference_rejected)
    raters = np.clip(as_vector(share, "share", len(first)), CERTAIN, 1 - CERTAIN)
    if not betas or min(betas) <= 0:
        raise DefinitionError(f"betas must be positive, got {list(betas)}.")
    odds = np.log(raters / (1 - raters))
    found = {float(b): float((first - second + odds / b > 0).mean()) for b in betas}
    values = list(found.values())
    return IdealRanking(by_beta=found, low=min(values), median=float(np.median(values)), high=max(values))


def flip_threshold(
    reference_chosen: ArrayLike, reference_rejected: ArrayLike, beta: float
) -> Float[np.ndarray, " pairs"]:
    """Returns the DPO loss of each pair at and below which the policy ranks it correctly: -log sigmoid(beta * c).

    c is the reference's log-prob of the rejected minus that of the chosen response: large where the reference is wrong
    by much, and then the loss must be far below log 2.
    """
    first, second = _two(reference_chosen, reference_rejected)
    return np.logaddexp(0, -beta * (second - first))


@final
@dataclass(frozen=True, kw_only=True)
class Displacement:
    """How log-probs of pairs moved from the reference to the policy; means over pairs in nats."""

    chosen: float  # change of the chosen responses; below 0 is displacement
    rejected: float
    margin: float  # chosen - rejected
    displaced: float  # share of pairs whose chosen response fell while their margin grew


def displacement(
    chosen: ArrayLike, rejected: ArrayLike, reference_chosen: ArrayLike, reference_rejected: ArrayLike
) -> Displacement:
    """Returns how the policy moved the pairs' likelihoods.

    Falling chosen likelihoods alone are no error where the reference was fine-tuned on them. Source: arXiv 2410.08847.
    """
    first, second = _two(chosen, rejected)
    before = _two(reference_chosen, reference_rejected)
    if len(before[0]) != len(first):
        raise DefinitionError(f"policy and reference must score the same pairs, got {len(first)} and {len(before[0])}.")
    up, down = first - before[0], second - before[1]
    return Displacement(
        chosen=float(up.mean()),
        rejected=float(down.mean()),
        margin=float((up - down).mean()),
        displaced=float(((up < 0) & (up > down)).mean()),
    )


def _two(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    a = as_vector(first, "chosen")
    b = as_vector(second, "rejected", len(a))
    if not len(a):
        raise DefinitionError("at least one pair is needed.")
    return a, b
