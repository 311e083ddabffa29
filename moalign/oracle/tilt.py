"""Exponential tilts of candidate sets, for many weight vectors at once.

A tilt reweighs base probabilities p0 by exp(query . reward), query = weights / beta. As a function of the query it is
softmax attention: keys are (reward, log p0), queries are (query, 1), values are what is to be averaged, and the
log-sum-exp is log Z. A fused kernel therefore evaluates all weights for all prompts without ever storing a probability.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.oracle.attention import attention, twofold
from moalign.oracle.candidates import Candidates

CHUNK_ELEMENTS = 1 << 20  # prompts x weights x width of the results held at once: 4 MiB in float32
CHUNK_ELEMENTS_ACCELERATOR = 1 << 26  # where short chunks leave the device waiting for the host
WRITTEN_ELEMENTS = 1 << 21  # weights x prompts x candidates of the form that stores probabilities
PROMPTS_AT_ONCE = 64  # on a CPU where only means are asked for: keeps chunks of weights long, which the kernel likes
IMPOSSIBLE = -1e4  # a finite log-probability whose exponential is zero: -inf times a padded zero would be NaN
SMALL_REACH = 0.1  # largest |query . reward| below which log Z is so near zero that absolute rounding would show
LARGE_REACH = 1e3  # and above which an impossible candidate could be mistaken for a possible one
WIDTH = 16  # numbers per key on a CPU: its fused kernel wants equal head sizes, and is slower with fewer


class Tilt(NamedTuple):
    """Tilted candidates, relative to their centre."""

    rewards: Tensor  # [prompts, weights, objectives]
    values: Tensor  # [prompts, weights, judged]
    log_z: Tensor  # [prompts, weights]
    kl: Tensor  # [prompts, weights], nats
    covariance: Tensor | None  # [prompts, weights, objectives, objectives]


class MeanTilt(NamedTuple):
    """The same, averaged over prompts in float64."""

    rewards: Tensor  # [weights, objectives]
    values: Tensor  # [weights, judged]
    log_z: Tensor  # [weights]
    kl: Tensor  # [weights]


@final
class Tilter:
    """Tilts one set of candidates by any queries.

    Attention does the work. Where it would lose digits, which is for very small and very large tilts, its result is
    replaced by a form that keeps them.

    Args:
        candidates: what is tilted.
        covariance: whether second moments are computed, too.
        half: whether attention multiplies bfloat16 numbers.
    """

    def __init__(self, candidates: Candidates, *, covariance: bool = False, half: bool = False) -> None:
        self._candidates = candidates
        self._covariance = covariance
        self._attending = _Attending(candidates, covariance, half)
        self._extent = candidates.rewards.abs().amax((0, 1))  # [objectives]

    def __call__(self, queries: Tensor) -> Tilt:
        """Returns the tilts by `queries` [weights, objectives], in their order."""
        tilt, others = self._attending(queries), self._inexact(queries)
        for some in self._written_chunks(others):
            better = _written_out(self._candidates, queries[some], self._covariance)
            for field, digits in zip(tilt, better, strict=True):
                if field is not None and digits is not None:
                    field[:, some] = digits
        return tilt

    def means(self, queries: Tensor, chunk: int | None = None) -> MeanTilt:
        """Returns the means over prompts of the tilts by `queries` [weights, objectives], without the covariance.

        Any number of queries is taken in chunks of bounded size; `chunk` as in `chunks`.
        """
        mean, others = self._attending.means(queries, chunk), self._inexact(queries)
        for some in self._written_chunks(others):
            better = _written_out(self._candidates, queries[some], False)
            for field, digits in zip(mean, better[:4], strict=True):
                field[some] = digits.mean(0, dtype=torch.float64)
        return mean

    def _inexact(self, queries: Tensor) -> Tensor:
        """Returns the positions of the queries for which attention would lose digits."""
        reach = queries.abs() @ self._extent  # [weights], bounds every |query . reward|
        return (~((reach >= SMALL_REACH) & (reach <= LARGE_REACH))).nonzero().flatten()

    def _written_chunks(self, positions: Tensor) -> tuple[Tensor, ...]:
        prompts, count, objectives = self._candidates.rewards.shape
        each = prompts * count * (objectives if self._covariance else 1)
        return torch.split(positions, max(1, WRITTEN_ELEMENTS // each)) if len(positions) else ()


def chunks(weights: int, candidates: Candidates, chunk: int | None, *, covariance: bool = False) -> list[slice]:
    """Returns slices of the weights to tilt by at once, each `chunk` long or short enough for bounded results.

    Args:
        weights: how many there are.
        candidates: what is tilted.
        chunk: length of the slices; None bounds the results at a million numbers, on an accelerator at 67 million.
        covariance: whether second moments are computed, too.

    Raises:
        DefinitionError: a chunk below 1.
    """
    prompts, _, objectives = candidates.rewards.shape
    moments = objectives * objectives if covariance else 0
    width = _padded(objectives + 1 + candidates.values.shape[-1] + moments)
    step = _step(prompts, width, chunk, candidates.rewards.device)
    return [slice(start, start + step) for start in range(0, weights, step)]


def _step(prompts: int, width: int, chunk: int | None, device: torch.device) -> int:
    if chunk is not None and chunk < 1:
        raise DefinitionError(f"chunk must be at least 1 weight vector, got {chunk}.")
    most = CHUNK_ELEMENTS if device.type == "cpu" else CHUNK_ELEMENTS_ACCELERATOR
    return chunk or max(1, most // (prompts * width))


class _Attending:
    """Candidates laid out as keys and contents of attention.

    With `half` every number is the sum of two bfloat16 ones, (high, low). Of a product of two such numbers all but
    low x low is kept: keys are (high, low, high) and queries (high, high, low), one above the other.
    """

    def __init__(self, candidates: Candidates, covariance: bool, half: bool) -> None:
        rewards, values = candidates.rewards, candidates.values
        self.objectives, self.judged = rewards.shape[-1], values.shape[-1]
        self.pairs = torch.triu_indices(self.objectives, self.objectives, device=rewards.device) if covariance else None
        columns = [rewards, values]
        if self.pairs is not None:
            columns.append(rewards[..., self.pairs[0]] * rewards[..., self.pairs[1]])
        content = torch.cat(columns, -1)  # [prompts, candidates, columns]
        keys = torch.cat([rewards, candidates.log_base.clamp_min(IMPOSSIBLE)[..., None]], -1)
        self.width = max(keys.shape[-1], content.shape[-1])
        if rewards.device.type == "cpu":
            self.width = _padded(self.width)
            keys, content = (F.pad(part, (0, self.width - part.shape[-1])) for part in (keys, content))
        self.keys, self.content = keys, content  # [prompts, candidates, width]
        self.query_width, self.content_width, self.half = keys.shape[-1], content.shape[-1], half
        if half:
            high, low = twofold(self.keys)
            self.keys = torch.cat([high, low, high], -1)
            self.content = torch.cat(twofold(self.content), -1)

    def __call__(self, queries: Tensor) -> Tilt:
        m, last = self.objectives, self.objectives + self.judged
        averages, log_z = self._attend(self._asked(queries), slice(None))
        rewards = averages[..., :m]
        return Tilt(
            rewards=rewards,
            values=averages[..., m:last],
            log_z=log_z,
            kl=((rewards * queries).sum(-1) - log_z).clamp_min(0),
            covariance=None if self.pairs is None else _covariance(rewards, averages[..., last:], self.pairs),
        )

    def means(self, queries: Tensor, chunk: int | None) -> MeanTilt:
        m, prompts, device = self.objectives, len(self.keys), self.keys.device
        at_once = min(PROMPTS_AT_ONCE, prompts) if device.type == "cpu" else prompts
        step = _step(at_once, self.width, chunk, device)
        asked = self._asked(queries)
        # allocated before the chunks: results kept between them would pin the memory that they free
        total = self.keys.new_zeros(len(queries), m + self.judged, dtype=torch.float64)
        log_z = total.new_zeros(len(queries))
        for first in range(0, len(queries), step):
            for start in range(0, prompts, at_once):
                some, turn = slice(first, first + step), slice(start, start + at_once)
                averages, part = self._attend(asked[some], turn)
                total[some] += averages[..., : m + self.judged].sum(0, dtype=torch.float64)
                log_z[some] += part.sum(0, dtype=torch.float64)
        rewards, log_z = total[:, :m] / prompts, log_z / prompts
        kl = ((rewards * queries).sum(-1) - log_z).clamp_min(0)
        return MeanTilt(rewards, total[:, m:] / prompts, log_z, kl)

    def _asked(self, queries: Tensor) -> Tensor:
        asked = F.pad(F.pad(queries, (0, 1), value=1.0), (0, self.query_width - self.objectives - 1))
        if not self.half:
            return asked
        high, low = twofold(asked)
        return torch.cat([high, high, low], -1)

    def _attend(self, asked: Tensor, prompts: slice) -> tuple[Tensor, Tensor]:
        averages, log_z = attention(asked, self.keys[prompts], self.content[prompts])
        if self.half:
            averages = averages[..., : self.content_width] + averages[..., self.content_width :]
        return averages, log_z


def _padded(width: int) -> int:
    return -(-width // WIDTH) * WIDTH


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
