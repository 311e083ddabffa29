"""The KL strength at which the optimum of each weight vector has a wanted KL."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.candidates import Candidates, candidates, checked_weights
from moalign.oracle.tilt import WRITTEN_ELEMENTS, Tilter

BRACKET = 4.0  # factor by which beta is lowered until the KL exceeds the target
MOST_LOWERINGS = 60


@torch.no_grad()
def kl_target(
    rewards: Float[Tensor, "prompts candidates objectives"],
    weights: Float[Tensor, "weights objectives"] | Float[FloatArray, "weights objectives"],
    target_kl: float | Float[Tensor, " weights"],
    *,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, " weights"]:
    """Returns beta for every weight vector, such that its optimum has mean KL `target_kl` (nats) to the base.

    The KL falls strictly in beta, so beta is bisected on a logarithmic scale, down to the rounding of the dtype.

    Args:
        rewards, weights, log_base, mask, chunk: as in `oracle`.
        target_kl: mean over prompts, in nats; one number, or one per weight vector. Attainable are values above 0 and
            below the mean of -log(base probability of the best candidates), log N for one best among N samples.

    Raises:
        DefinitionError: arguments that `oracle` refuses, or targets out of reach, each with the largest attainable KL.
    """
    given = candidates(rewards, log_base=log_base, mask=mask)
    asked, target = checked_weights(given, weights, target_kl=target_kl)
    _check_attainable(given, asked, target)
    tilter = Tilter(given)

    def kl(beta: Tensor) -> Tensor:
        return tilter.means(asked / beta[:, None], chunk).kl

    # a score of range d has variance at most d^2 / 4 under any tilt, hence KL <= d^2 / (8 beta^2): this starts too high
    extent = asked.abs() @ (given.rewards.amax((0, 1)) - given.rewards.amin((0, 1)))
    high = extent / (8 * target).sqrt()
    low = _lowered(kl, high, target)
    high = torch.minimum(high, low * BRACKET)
    for _ in range(1 - int(math.log2(torch.finfo(low.dtype).eps))):
        middle = (low * high).sqrt()
        above = kl(middle) > target
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low * high).sqrt()


def _lowered(kl: Callable[[Tensor], Tensor], beta: Tensor, target: Tensor) -> Tensor:
    """Returns beta divided by four as often as its KL needs to exceed the target."""
    for _ in range(MOST_LOWERINGS):
        below = kl(beta) <= target
        if not below.any():
            return beta
        beta = torch.where(below, beta / BRACKET, beta)
    raise DefinitionError(
        f"target_kl is within rounding of the largest attainable KL for weights {below.nonzero().flatten().tolist()}; "
        "ask for less, or use a tiny beta to reach the best candidates."
    )


def _check_attainable(given: Candidates, weights: Tensor, target: Tensor) -> None:
    step = max(1, WRITTEN_ELEMENTS // given.log_base.numel())
    largest = torch.cat([_largest_kl(given, some) for some in torch.split(weights, step)])
    problems = [
        f"target_kl {float(target[i]):g} for weights[{i}] is out of reach: always giving the best candidate has a KL "
        f"of {float(largest[i]):g} nats. Ask for less, or add candidates."
        for i in (target >= largest).nonzero().flatten().tolist()
    ]
    if problems:
        raise DefinitionError(problems, "kl_target")


def _largest_kl(given: Candidates, weights: Tensor) -> Tensor:
    """Returns the KL of giving only the best candidates, ties in proportion to the base [weights]."""
    scores = torch.einsum("wm,pnm->pwn", weights, given.rewards).masked_fill(~given.used[:, None], -torch.inf)
    top = scores.amax(-1, keepdim=True)
    rounding = 8 * torch.finfo(scores.dtype).eps * (weights.abs() @ given.rewards.abs().amax((0, 1)))
    best = scores >= top - rounding[:, None]
    log_mass = torch.where(best, given.log_base[:, None], -torch.inf).logsumexp(-1)
    return log_mass.clamp_max(0).mean(0).abs()
