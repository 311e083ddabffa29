"""f-divergences as small objects: D_f = E_reference[f(u)] with u = policy / reference, all in terms of log u.

`score` is f'(u) up to a constant, the transform of the log-ratio that f-DPO (arXiv 2309.16240) puts in place of the
log-ratio itself: max E[r] - beta D_f has r = beta f'(u) + constant at its optimum. `derivative` is f'(t) itself for the
ratio t = policy / target of f-DPG (arXiv 2302.08215). Exponents are clamped at 80, where nothing else overflows in
float32; beyond it the gradient is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.errors import DefinitionError

LARGEST_EXPONENT = 80.0


@runtime_checkable
class Divergence(Protocol):
    """A convex f with f(1) = 0, given through the log-ratio l = log u."""

    def value(self, log_ratio: Tensor) -> Tensor:
        """Returns f(u) for every entry; its mean under the reference is the divergence, up to a multiple of u - 1."""

    def derivative(self, log_ratio: Tensor) -> Tensor:
        """Returns f'(u) for every entry."""


@final
@dataclass(frozen=True)
class ReverseKL:
    """KL(policy || reference): f(u) = u log u. The one whose f-DPO is DPO, and whose f-DPG is RL with a KL penalty."""

    def value(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.exp() * log_ratio

    def derivative(self, log_ratio: Tensor) -> Tensor:
        return log_ratio + 1.0


@final
@dataclass(frozen=True)
class ForwardKL:
    """KL(reference || policy): f(u) = -log u. Its f-DPO score is bounded above by 1."""

    def value(self, log_ratio: Tensor) -> Tensor:
        return -log_ratio

    def derivative(self, log_ratio: Tensor) -> Tensor:
        return -_exp(-log_ratio)


@final
@dataclass(frozen=True)
class JensenShannon:
    """f(u) = u log u - (u + 1) log((u + 1) / 2), twice the usual divergence of mixture weights one half."""

    def value(self, log_ratio: Tensor) -> Tensor:
        mixed = F.softplus(log_ratio) - math.log(2)  # log((u + 1) / 2)
        u = log_ratio.exp()
        return u * (log_ratio - mixed) - mixed

    def derivative(self, log_ratio: Tensor) -> Tensor:
        return math.log(2) - F.softplus(-log_ratio)


@final
@dataclass(frozen=True)
class AlphaDivergence:
    """f(u) = (u^(1 - alpha) - (1 - alpha) u - alpha) / (alpha (alpha - 1)), from reverse (0) to forward KL (1).

    Attributes:
        alpha: in (0, 1), the paper's; TRL's coefficient is 1 - alpha.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise DefinitionError(
                f"The alpha of an alpha-divergence lies in (0, 1), got {self.alpha}; its ends are ReverseKL() and "
                "ForwardKL()."
            )

    def value(self, log_ratio: Tensor) -> Tensor:
        a = self.alpha
        rise = torch.expm1((1 - a) * log_ratio) - (1 - a) * torch.expm1(log_ratio)
        return rise / (a * (a - 1))

    def derivative(self, log_ratio: Tensor) -> Tensor:
        exponent = (-self.alpha * log_ratio).clamp(max=LARGEST_EXPONENT)
        return -torch.expm1(exponent) / self.alpha  # expm1: a small alpha loses no digits


@final
@dataclass(frozen=True)
class TotalVariation:
    """f(u) = |1 - u| / 2. For f-DPG only: f' takes two values, so no reward can be read off it."""

    def value(self, log_ratio: Tensor) -> Tensor:
        return 0.5 * torch.expm1(log_ratio).abs()

    def derivative(self, log_ratio: Tensor) -> Tensor:
        return 0.5 * log_ratio.sign()


def f_dpo_score(log_ratio: Tensor, divergence: Divergence) -> Tensor:
    """Returns f'(u) up to a constant, which differences of scores do not see.

    Raises:
        DefinitionError: the divergence's f' is not invertible on (0, inf), as that of the total variation.
    """
    if isinstance(divergence, TotalVariation):
        raise DefinitionError("f-DPO needs an f' that is invertible; total variation's takes only two values.")
    if isinstance(divergence, ReverseKL):
        return log_ratio  # without the constant, which would cost digits
    if isinstance(divergence, ForwardKL):
        return -torch.expm1((-log_ratio).clamp(max=LARGEST_EXPONENT))
    return divergence.derivative(log_ratio)


def _exp(exponent: Tensor) -> Tensor:
    return exponent.clamp(max=LARGEST_EXPONENT).exp()
