"""Best-of-n at every weight: the best of n samples of the reference, by weights . reward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.candidates import candidates, checked_weights
from moalign.oracle.tilt import WRITTEN_ELEMENTS


@final
@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """What best-of-n sampling gives, one row per weight vector."""

    n: int
    weights: Float[Tensor, "weights objectives"]
    rewards: Float[Tensor, "weights objectives"]  # expected rewards, mean over prompts
    values: Float[Tensor, "weights judged"]  # of further rewards, such as a held-out judge's
    kl_bound: float  # nats; the KL itself when no two responses tie, more than it when some do


@torch.no_grad()
def best_of_n(
    rewards: Float[Tensor, "prompts candidates objectives"],
    weights: Float[Tensor, "weights objectives"] | Float[FloatArray, "weights objectives"],
    n: int,
    *,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    values: Float[Tensor, "prompts candidates judged"] | None = None,
) -> BestOfN:
    """Returns the expected reward vector of best-of-n for every weight vector, estimated without bias.

    With N samples in ascending order of weights . reward the estimate is the sum over i of
    C(i - 1, n - 1) / C(N, n) * reward_(i), the mean over all subsets of n samples. Ties share their coefficients.

    Args:
        rewards: of samples of the reference policy, duplicates kept.
        weights: as in `oracle`.
        n: samples to choose from, 1 to the smallest number of candidates of a prompt.
        mask, values: as in `oracle`.

    Raises:
        DefinitionError: arguments that `oracle` refuses, or n out of range.

    Source: the estimator of arXiv 2112.09332, appendix I; the KL bound of arXiv 2401.01879.
    """
    given = candidates(rewards, mask=mask, values=values)
    asked, _ = checked_weights(given, weights, beta=1.0)
    counts = given.used.sum(-1)  # [prompts]
    if not 1 <= n <= int(counts.amin()):
        raise DefinitionError(f"n must be from 1 to {int(counts.amin())}, the fewest candidates of a prompt, got {n}.")
    content = torch.cat([given.rewards, given.values], -1).double()
    centre = torch.cat([given.centre, given.value_centre], -1).double().mean(0)
    table = _shares_below(int(counts.amax()), n).to(content.device)
    parts = []
    for some in torch.split(asked, max(1, WRITTEN_ELEMENTS // given.log_base.numel())):
        scores = (some @ given.rewards.mT).masked_fill(~given.used[:, None], -torch.inf)  # [prompts, weights, N]
        chances = _chances(scores, counts, table)
        parts.append(torch.einsum("pwn,pnm->wm", chances, content) / len(content) + centre)
    found = torch.cat(parts).to(asked)
    objectives = rewards.shape[-1]
    return BestOfN(
        n=n, weights=asked, rewards=found[:, :objectives], values=found[:, objectives:], kl_bound=best_of_n_kl(n)
    )


def best_of_n_kl(n: int) -> float:
    """Returns log n - (n - 1) / n, the KL of best-of-n to the reference in nats; an upper bound when responses tie."""
    if n < 1:
        raise DefinitionError(f"n must be at least 1, got {n}.")
    return math.log(n) - (n - 1) / n


def _chances(scores: Tensor, counts: Tensor, table: Tensor) -> Tensor:
    """Returns the probability of each candidate to be the best of n; ties in equal parts."""
    ranked = scores.sort(-1).values
    unused = scores.shape[-1] - counts[:, None, None]  # they rank lowest
    below = (torch.searchsorted(ranked, scores) - unused).clamp_min(0)
    up_to = (torch.searchsorted(ranked, scores, right=True) - unused).clamp_min(0)
    of = counts[:, None, None].expand_as(below)
    shares = (table[of, up_to] - table[of, below]) / (up_to - below).clamp_min(1)
    return torch.where(scores > -torch.inf, shares, 0)


def _shares_below(most: int, n: int) -> Tensor:
    """Returns [N, i]: the share C(i, n) / C(N, n) of all subsets of n among N that lie within the lowest i, float64."""
    total = torch.arange(most + 1, dtype=torch.float64)
    logs = torch.lgamma(total + 1) - torch.lgamma((total - n).clamp_min(0) + 1)  # log i! / (i - n)!
    shares = (logs[None] - logs[:, None]).exp()
    return torch.where((total[None] >= n) & (total[:, None] >= total[None]), shares, 0)
