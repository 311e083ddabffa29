"""Exponential tilts of candidate sets, for many weight vectors at once.

A tilt reweighs base probabilities p0 by exp(query . reward), query = weights / beta. As a function of the query it is
softmax attention: keys are (reward, log p0), queries are (query, 1), values are what is to be averaged. A fused
attention kernel therefore evaluates all weights for all prompts without ever storing a probability.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.oracle.candidates import Candidates

CHUNK_ELEMENTS = 4_000_000  # weights x prompts x candidates handled at once
IMPOSSIBLE = -1e4  # a finite log-probability whose exponential is zero: -inf times a padded zero would be NaN
SMALL_REACH = 0.1  # largest |query . reward| below which log Z is so near zero that absolute rounding would show
LARGE_REACH = 1e3  # and above which an impossible candidate could be mistaken for a possible one
EXPONENT_SHARE = 0.7  # of the dtype's exponent range that log Z may take before the sink's probability underflows


class Tilt(NamedTuple):
    """Tilted candidates, relative to their centre."""

    rewards: Tensor  # [prompts, weights, objectives]
    values: Tensor  # [prompts, weights, judged]
    log_z: Tensor  # [prompts, weights]
    kl: Tensor  # [prompts, weights], nats
    covariance: Tensor | None  # [prompts, weights, objectives, objectives]


@final
class Tilter:
    """Tilts one set of candidates by any queries.

    The fused kernel does the work. Where it would lose digits, which is for very small and very large tilts, its
    result is replaced by the written-out form.
    """

    def __init__(self, candidates: Candidates, *, covariance: bool = False) -> None:
        self._candidates = candidates
        self._covariance = covariance
        self._fused = _Fused(candidates, covariance)
        self._extent = candidates.rewards.abs().amax((0, 1))  # [objectives]
        self._largest_log_z = -EXPONENT_SHARE * math.log(torch.finfo(self._extent.dtype).tiny)

    def __call__(self, queries: Tensor) -> Tilt:
        """Returns the tilts by `queries` [weights, objectives], in their order."""
        reach = queries.abs() @ self._extent  # [weights], bounds every |query . reward|
        tilt = self._fused(queries)
        # written so that an overflowed (infinite or NaN) log Z counts as inexact
        exact = (reach >= SMALL_REACH) & (reach <= LARGE_REACH) & (tilt.log_z.amax(0) <= self._largest_log_z)
        others = (~exact).nonzero().flatten()
        if len(others):
            written_out = _written_out(self._candidates, queries[others], self._covariance)
            for field, better in zip(tilt, written_out, strict=True):
                if field is not None and better is not None:
                    field[:, others] = better
        return tilt


def chunks(weights: int, candidates: Candidates, chunk: int | None, *, covariance: bool = False) -> list[slice]:
    """Returns slices of the weights to tilt by at once, each `chunk` long or short enough for four million numbers.

    Raises:
        DefinitionError: a chunk below 1.
    """
    if chunk is not None and chunk < 1:
        raise DefinitionError(f"chunk must be at least 1 weight vector, got {chunk}.")
    prompts, count, objectives = candidates.rewards.shape
    step = chunk or max(1, CHUNK_ELEMENTS // (prompts * count * (objectives if covariance else 1)))
    return [slice(start, start + step) for start in range(0, weights, step)]


class _Fused:
    """The fused form, with one extra candidate that makes log Z readable.

    This sink has logit 0 and so probability 1 / (1 + Z). Rewards are centred, hence Z >= 1 by Jensen's inequality, the
    sink never takes more than half, and both Z and the averages over the real candidates keep all their digits.
    """

    def __init__(self, candidates: Candidates, covariance: bool) -> None:
        rewards, values = candidates.rewards, candidates.values
        self.objectives, self.judged = rewards.shape[-1], values.shape[-1]
        self.pairs = torch.triu_indices(self.objectives, self.objectives, device=rewards.device) if covariance else None
        columns = [rewards, rewards.new_zeros(*rewards.shape[:2], 1), values]
        if self.pairs is not None:
            columns.append(rewards[..., self.pairs[0]] * rewards[..., self.pairs[1]])
        content = F.pad(torch.cat(columns, -1), (0, 0, 0, 1))  # [prompts, candidates + 1, columns]
        content[:, -1, self.objectives] = 1  # what the sink receives is its probability
        log_base = candidates.log_base.clamp_min(IMPOSSIBLE)[..., None]
        keys = F.pad(torch.cat([rewards, log_base], -1), (0, 0, 0, 1))
        width = -(-max(keys.shape[-1], content.shape[-1]) // 16) * 16  # fused kernels want equal, even head sizes
        self.keys = F.pad(keys, (0, width - keys.shape[-1]))[:, None]  # [prompts, 1 head, candidates + 1, width]
        self.content = F.pad(content, (0, width - content.shape[-1]))[:, None]

    def __call__(self, queries: Tensor) -> Tilt:
        prompts, _, _, width = self.keys.shape
        m = self.objectives
        asked = F.pad(F.pad(queries, (0, 1), value=1.0), (0, width - m - 1))  # [weights, width]
        asked = asked.expand(prompts, 1, *asked.shape)
        averages = F.scaled_dot_product_attention(asked, self.keys, self.content, scale=1.0)[:, 0]
        sink = averages[..., m : m + 1]  # [prompts, weights, 1]
        rest = 1 - sink
        rewards = averages[..., :m] / rest
        log_z = -sink.squeeze(-1).logit()
        first, last = m + 1, m + 1 + self.judged
        return Tilt(
            rewards=rewards,
            values=averages[..., first:last] / rest,
            log_z=log_z,
            kl=((rewards * queries).sum(-1) - log_z).clamp_min(0),
            covariance=None if self.pairs is None else _covariance(rewards, averages[..., last:] / rest, self.pairs),
        )


def _covariance(means: Tensor, moments: Tensor, pairs: Tensor) -> Tensor:
    first, second = pairs
    upper = moments[..., : len(first)] - means[..., first] * means[..., second]
    covariance = means.new_empty(*means.shape, means.shape[-1])
    covariance[..., first, second] = upper
    covariance[..., second, first] = upper
    return covariance


def _written_out(candidates: Candidates, queries: Tensor, covariance: bool) -> Tilt:
    """The same with all probabilities formed, exact for tilts of any size."""
    scores = queries @ candidates.rewards.mT  # [prompts, weights, candidates]
    log_base = candidates.log_base[:, None]  # [prompts, 1, candidates]
    used = candidates.used[:, None]
    small = scores.abs().amax(-1, keepdim=True) < 1
    # the top score goes first; where all are small, log Z is near zero and a sum of expm1 keeps its digits instead
    top = torch.where(small, 0, scores.masked_fill(~used, -torch.inf).amax(-1, keepdim=True))
    scores = scores - top
    logits = scores + log_base
    log_z = logits.logsumexp(-1, keepdim=True)
    if small.any():
        excess = (log_base.exp() * torch.where(small, scores, 0).expm1()).sum(-1, keepdim=True)
        log_z = torch.where(small, excess.log1p(), log_z)
    probabilities = torch.softmax(logits, -1)
    rewards = probabilities @ candidates.rewards
    kl = torch.where(used, probabilities * (scores - log_z), 0).sum(-1).clamp_min(0)
    return Tilt(
        rewards=rewards,
        values=probabilities @ candidates.values,
        log_z=(log_z + top).squeeze(-1),
        kl=kl,
        covariance=_spread(probabilities, candidates.rewards, rewards) if covariance else None,
    )


def _spread(probabilities: Tensor, rewards: Tensor, means: Tensor) -> Tensor:
    apart = rewards[:, None] - means[:, :, None]  # [prompts, weights, candidates, objectives]
    return (probabilities[..., None] * apart).mT @ apart
