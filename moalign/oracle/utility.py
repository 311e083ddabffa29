"""The optimum of a smooth, concave utility of expected rewards: the tilt by the utility's own gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import functional

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.dual import Dual, Optimum
from moalign.oracle.newton import MOST_HALVINGS, Local

_derivatives: Any = functional  # untyped in torch


@torch.no_grad()
def best_utility(
    rewards: Float[Tensor, "prompts candidates objectives"],
    utility: Callable[[Tensor], Tensor],
    beta: float,
    *,
    start: Float[Tensor, " objectives"] | Float[FloatArray, " objectives"] | None = None,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    tolerance: float = 1e-9,
    iterations: int = 200,
) -> Optimum:
    """Returns the optimum of utility(R) - beta * KL for a smooth, concave utility of the expected rewards.

    At the optimum the weights are the utility's gradient at R. The bound needs no conjugate: by concavity utility(R')
    <= utility(R) + g . (R' - R) for all policies, and the right side's optimum is known exactly. It holds for concave
    utilities only, which cannot be checked here; a negative gap is a proof that yours is not.

    Args:
        rewards, log_base, mask: as in `oracle`.
        utility: expected rewards [objectives] -> one number, differentiable twice by torch; such as Nash welfare,
            `lambda R: (R - d).log().sum()`, or a generalised mean with a power below one. For min use `maximin`.
        beta: KL strength > 0.
        start: weights whose optimum lies where the utility is finite; equal ones when None.
        tolerance: of the gap, relative to the largest of utility and extent of the rewards.
        iterations: at most; the gap tells what was reached.

    Raises:
        DefinitionError: arguments that `oracle` refuses, or a utility that is not finite at the start.
    """
    dual = Dual(rewards, beta, log_base, mask)
    at = dual.vector(1.0 / rewards.shape[-1] if start is None else start, "start")
    here = _Utility.at(at, dual, utility)
    if not here.finite:
        raise DefinitionError(
            f"the utility or its gradient is not finite at the rewards {[round(v, 6) for v in here.rewards.tolist()]}, "
            "where the search starts. Pass start=... weights whose optimum lies in its domain."
        )
    done = 0
    while done < iterations and here.gap > dual.rounded(tolerance, here.utility):
        newton = torch.eye(len(at)).to(at) - here.curvature @ here.local.hessian
        directions = (torch.linalg.solve(newton, here.gradient - here.weights), here.gradient - here.weights)
        better = next((found for d in directions if (found := _shorter(here, d, dual, utility)) is not None), None)
        done += 1
        if better is None:
            break
        here = better
    kl = dual.kl(here.weights)
    value = here.utility - beta * kl
    return Optimum(
        weights=here.weights, beta=beta, rewards=here.rewards, kl=kl, iterations=done, violation=0.0,
        value=value, bound=value + here.gap,
    )  # fmt: skip


@dataclass(frozen=True)
class _Utility:
    """A utility at the optimum of some weights."""

    weights: Tensor
    local: Local
    utility: float
    gradient: Tensor
    curvature: Tensor
    gap: float

    @property
    def rewards(self) -> Tensor:
        return self.local.gradient

    @property
    def finite(self) -> bool:
        return math.isfinite(self.utility) and math.isfinite(self.gap) and bool(self.curvature.isfinite().all())

    @staticmethod
    def at(weights: Tensor, dual: Dual, utility: Callable[[Tensor], Tensor]) -> _Utility:
        local = dual(weights)
        with torch.enable_grad():
            value = float(utility(local.gradient))
            gradient = _derivatives.jacobian(utility, local.gradient)
            curvature = _derivatives.hessian(utility, local.gradient)
        # the best gain along the gradient, minus the gain that this policy has: its regret at the weights `gradient`
        attained = float((gradient - weights) @ local.gradient) + local.value
        gap = dual(gradient).value - attained if bool(gradient.isfinite().all()) else math.nan
        return _Utility(weights, local, value, gradient, curvature, gap)


def _shorter(here: _Utility, direction: Tensor, dual: Dual, utility: Callable[[Tensor], Tensor]) -> _Utility | None:
    """Returns the utility after the longest of halved steps that narrows the gap; None if none does."""
    length = 1.0
    for _ in range(MOST_HALVINGS):
        there = _Utility.at(here.weights + length * direction, dual, utility)
        if there.finite and there.gap < (1 - 0.1 * length) * here.gap:
            return there
        length /= 2
    return None
