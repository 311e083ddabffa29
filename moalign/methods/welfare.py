"""Social welfare: what the utilities of groups are worth together, and how much each of them counts at the margin.

A welfare is a concave function W of the expected rewards of groups with shares a. Its gradient are the weights with
which a policy that maximises W - beta KL is the optimum of a weighted sum, so any of them trains like one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.rewards import scalarisation


class Welfare(Protocol):
    """W of utilities [..., groups] and shares [..., groups] -> [...]; a group without a share does not count."""

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class Worst:
    """min_g u_g; with a temperature t > 0 the soft minimum -t log sum_g a_g exp(-u_g / t), reward units.

    The soft one is the value of an adversary who pays t KL(weights || shares) for leaving the shares.
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise DefinitionError(f"temperature must be finite and >= 0, got {self.temperature}.", where="Worst")

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor:
        if self.temperature == 0:
            worst: Tensor = scalarisation.worst(utilities.where(shares > 0, torch.inf))
            return worst
        log_shares = shares.log()
        soft: Tensor = scalarisation.log_sum_exp(log_shares - utilities / self.temperature)
        return -self.temperature * soft


@final
@dataclass(frozen=True)
class Mean:
    """sum_g a_g u_g: the utilitarian case, which is the weighted sum of rewards."""

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor:
        total: Tensor = scalarisation.linear(utilities, shares)
        return total


@final
@dataclass(frozen=True)
class Nash:
    """sum_g a_g log(u_g - d_g), d being what each group has without an agreement; invariant to a group's unit.

    Attributes:
        disagreement: d, one number or one per group, reward units.
        least: gains below count as this, reward units, so that a bad start or a noisy estimate has weights.
    """

    disagreement: Sequence[float] | float = 0.0
    least: float = 1e-2

    def __post_init__(self) -> None:
        _freeze(self, "disagreement")
        _positive(self, "least")

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor:
        worth: Tensor = scalarisation.nash_welfare(_above(utilities, self.disagreement, self.least), shares, 0.0)
        return worth


@final
@dataclass(frozen=True)
class CVaR:
    """Mean utility of the worst `level` share of people, level in (0, 1]; 1 is the mean, little the minimum."""

    level: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.level <= 1:
            raise DefinitionError(f"level must be in (0, 1], got {self.level}.", where="CVaR")

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor:
        tail: Tensor = scalarisation.cvar(utilities, self.level, shares)
        return tail


@final
@dataclass(frozen=True)
class PowerMean:
    """(sum_g a_g (u_g - floor_g)^p)^(1/p), p <= 1: 1 the mean, 0 the geometric mean, -1 the harmonic, -inf the minimum.

    Attributes:
        power: p.
        floor: reward units, below the utilities that matter; one number or one per group.
        least: gains below count as this, as in `Nash`.
    """

    power: float = 0.0
    floor: Sequence[float] | float = 0.0
    least: float = 1e-2

    def __post_init__(self) -> None:
        _freeze(self, "floor")
        _positive(self, "least")
        if not self.power <= 1:
            raise DefinitionError(f"power must be <= 1, or it favours inequality, got {self.power}.", where="PowerMean")

    def __call__(self, utilities: Tensor, shares: Tensor) -> Tensor:
        gains = _above(utilities, self.floor, self.least)
        mean: Tensor = scalarisation.generalised_mean(gains, shares, self.power)
        return mean


def marginal_weights(welfare: Welfare, utilities: Tensor, shares: Tensor) -> Tensor:
    """Returns the gradient of a welfare by the utilities [..., groups]; ties of a minimum share it evenly."""
    with torch.enable_grad():
        at = utilities.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(welfare(at, shares).sum(), at)
    return gradient


def welfare_problems(welfare: Any, groups: int) -> list[str]:
    """Returns what does not fit this number of groups."""
    if isinstance(welfare, type) or not callable(welfare):
        return [f"welfare must be one of moalign.methods.welfare, such as Worst(), got {welfare!r}."]
    given: Any = getattr(welfare, "disagreement", getattr(welfare, "floor", 0.0))
    count = len(given) if np.ndim(given) else groups
    return [] if count == groups else [f"{type(welfare).__name__} has numbers for {count} groups, there are {groups}."]


def _above(utilities: Tensor, floor: Sequence[float] | float, least: float) -> Tensor:
    gains = utilities - torch.as_tensor(floor, dtype=utilities.dtype, device=utilities.device)
    # the slope of a gain that is too small stays that of the least one, where clamping would make it 0
    return gains + (least - gains).clamp(min=0).detach()


def _freeze(welfare: Any, name: str) -> None:
    value = getattr(welfare, name)
    if np.ndim(value):
        object.__setattr__(welfare, name, tuple(float(v) for v in value))
    if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
        raise DefinitionError(f"{name} must be finite, got {value}.", where=type(welfare).__name__)


def _positive(welfare: Any, name: str) -> None:
    value = getattr(welfare, name)
    if not (math.isfinite(value) and value > 0):
        raise DefinitionError(f"{name} must be finite and > 0, got {value}.", where=type(welfare).__name__)
