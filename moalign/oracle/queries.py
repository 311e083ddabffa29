"""Constrained and maximin optima on candidate sets: each is the tilt by one vector of weights.

Expected rewards are linear in the policy and the KL is convex, so a concave goal has a convex dual over weights. Every
answer carries its certificate: a primal value that its policy attains, a dual bound that no policy on the candidates
exceeds, and the gap between them. Everything is computed in float64.

For a utility of each single response, f(reward), nothing here is needed: it is one more reward for `oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.dual import ROUNDING, Dual, Optimum
from moalign.oracle.newton import Local, step

LARGEST_MULTIPLIER = 1e6  # relative to beta over the rewards' extent: by then policies only give the best candidates


@torch.no_grad()
def maximin(
    rewards: Float[Tensor, "prompts candidates objectives"],
    beta: float,
    *,
    baseline: Float[Tensor, " objectives"] | None = None,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    tolerance: float = 1e-9,
    iterations: int = 200,
) -> Optimum:
    """Returns the optimum of min_g (R_g - baseline_g) - beta * KL over all policies on the candidates.

    Groups are objectives. The minimum is over population means, one for all prompts. At the optimum all groups with
    positive weight have the same, lowest R_g - baseline_g; the gap is sum_g w_g (R_g - b_g) - min_g (R_g - b_g) >= 0.

    Args:
        rewards, log_base, mask: as in `oracle`.
        beta: KL strength > 0.
        baseline: of each group, such as the reward of its own best policy; 0 when None. Other than in a weighted sum
            it changes the solution.
        tolerance: of the gap, relative to the rewards' extent.
        iterations: at most; the gap tells what was reached.

    Raises:
        DefinitionError: arguments that `oracle` refuses.

    Source: minimax theorem; the maximin objective over user groups of arXiv 2402.08925.
    """
    dual = Dual(rewards, beta, log_base, mask)
    floor = dual.vector(0.0 if baseline is None else baseline, "baseline")
    weights = torch.full_like(floor, 1 / len(floor))

    def evaluate(at: Tensor) -> Local:
        here = dual(at)
        paid = float(at @ floor)
        return Local(here.value - paid, here.size + abs(paid), here.gradient - floor, here.hessian)

    here, done = evaluate(weights), 0
    while done < iterations and float(weights @ here.gradient - here.gradient.amin()) > dual.rounded(tolerance):
        moved, there = step(weights, here, evaluate, fixed_sum=True)
        done += 1
        if moved is weights:
            break
        weights, here = moved, there
    kl = dual.kl(weights)
    return Optimum(
        weights=weights, beta=beta, rewards=here.gradient + floor, kl=kl, iterations=done, violation=0.0,
        value=float(here.gradient.amin()) - beta * kl, bound=float(weights @ here.gradient) - beta * kl,
    )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class PromptMaximin:
    """Optima that are fair at every single prompt."""

    weights: Float[Tensor, "prompts objectives"]  # each prompt has its own
    prompt_rewards: Float[Tensor, "prompts objectives"]
    prompt_kl: Float[Tensor, " prompts"]
    value: float  # mean over prompts of min_g (R_g - baseline_g) - beta * kl
    gap: float  # mean over prompts

    @property
    def rewards(self) -> Float[Tensor, " objectives"]:
        return self.prompt_rewards.mean(0)


def prompt_maximin(
    rewards: Float[Tensor, "prompts candidates objectives"],
    beta: float,
    *,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    **options: Any,
) -> PromptMaximin:
    """Returns the optimum of the mean over prompts of min_g (R_g - baseline_g) - beta * KL, the minimum at each prompt.

    Stricter than `maximin`, where a group may lose at one prompt what it wins at another: the value is never larger.

    Args:
        rewards, beta, log_base, mask: as in `maximin`.
        options: baseline, tolerance, iterations; as in `maximin`.
    """

    def one(value: Tensor | None, row: int) -> Tensor | None:
        return None if value is None else value[row : row + 1]

    found = [
        maximin(rewards[row : row + 1], beta, log_base=one(log_base, row), mask=one(mask, row), **options)
        for row in range(len(rewards))
    ]
    return PromptMaximin(
        weights=torch.stack([f.weights for f in found]),
        prompt_rewards=torch.stack([f.rewards for f in found]),
        prompt_kl=torch.tensor([f.kl for f in found], dtype=torch.float64),
        value=sum(f.value for f in found) / len(found),
        gap=sum(f.gap for f in found) / len(found),
    )


@torch.no_grad()
def constrained(
    rewards: Float[Tensor, "prompts candidates objectives"],
    weights: Float[Tensor, " objectives"] | Float[FloatArray, " objectives"],
    beta: float,
    at_least: Float[Tensor, " objectives"] | Float[FloatArray, " objectives"],
    *,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    tolerance: float = 1e-9,
    iterations: int = 200,
) -> Optimum:
    """Returns the optimum of weights . R - beta * KL over the policies with R_j >= at_least_j.

    The result's weights are `weights` plus the multipliers of the constraints that bind. Read `simplex_beta`: near the
    edge of what is attainable the multipliers grow, which is the same as a smaller beta and a larger KL.

    Args:
        rewards, log_base, mask: as in `oracle`.
        weights: of the objectives, finite.
        beta: KL strength > 0.
        at_least: lower bounds of expected rewards; -inf where there is none.
        tolerance: of gap and violation, relative to the rewards' extent.
        iterations: at most; gap and violation tell what was reached.

    Raises:
        DefinitionError: arguments that `oracle` refuses, or bounds that no policy on the candidates meets, with the
            largest attainable rewards.
    """
    dual = Dual(rewards, beta, log_base, mask)
    given = dual.vector(weights, "weights")
    bounds = torch.as_tensor(at_least, dtype=given.dtype, device=given.device).detach()
    if bounds.shape != given.shape or bool(bounds.isnan().any() | (bounds == torch.inf).any()):
        raise DefinitionError(f"at_least must be {len(given)} numbers, -inf for none, got {bounds.tolist()}.")
    rows = (bounds > -torch.inf).nonzero().flatten()
    dual.refuse_unattainable(bounds, rows)

    def evaluate(multipliers: Tensor) -> Local:
        here = dual(given.index_add(0, rows, multipliers))
        paid = float(multipliers @ bounds[rows])
        return Local(
            here.value - paid, here.size + abs(paid), here.gradient[rows] - bounds[rows], here.hessian[rows][:, rows]
        )

    at, done, enough = torch.zeros_like(bounds[rows]), 0, dual.rounded(tolerance)
    here = evaluate(at)
    while done < iterations and not _solved(at, here.gradient, enough):
        if float(at.amax()) > LARGEST_MULTIPLIER * beta / max(dual.extent, ROUNDING):
            raise DefinitionError(dual.jointly_unattainable(bounds, rows))
        moved, there = step(at, here, evaluate, fixed_sum=False)
        done += 1
        if moved is at:
            break
        at, here = moved, there
    final = given.index_add(0, rows, at)
    reached, kl = dual(final).gradient, dual.kl(final)
    value = float(given @ reached) - beta * kl
    return Optimum(
        weights=final, beta=beta, rewards=reached, kl=kl, iterations=done, value=value,
        bound=value + float(at @ (reached - bounds)[rows]),
        violation=max(0.0, float((bounds - reached)[rows].amax())) if len(rows) else 0.0,
    )  # fmt: skip


def _solved(multipliers: Tensor, slack: Tensor, enough: float) -> bool:
    return not len(slack) or (float(-slack.amin()) <= enough and float((multipliers * slack).abs().amax()) <= enough)
