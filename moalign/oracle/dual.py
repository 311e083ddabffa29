"""The convex dual of goals on expected rewards: beta * mean log Z as a function of weights, and what its optimum is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.candidates import candidates, checked_weights
from moalign.oracle.newton import Local
from moalign.oracle.tilt import Tilter

ROUNDING = 1e-13  # of the rewards' extent: smaller gaps than this are rounding


@final
@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The optimum of one query. Its policy is the tilt by `weights` at `beta`."""

    weights: Float[Tensor, " objectives"]  # not normalised
    beta: float
    rewards: Float[Tensor, " objectives"]  # expected rewards
    kl: float  # to the base, nats
    value: float  # what the policy attains: goal - beta * kl, reward units
    bound: float  # what no policy on the candidates exceeds
    violation: float  # largest shortfall of a constraint, reward units; 0 without constraints
    iterations: int

    @property
    def gap(self) -> float:
        """How far `value` is below `bound` at most, in reward units."""
        return self.bound - self.value

    @property
    def simplex_weights(self) -> Float[Tensor, " objectives"]:
        """The same direction on the simplex, for training or serving with `simplex_beta`."""
        return self.weights / self.weights.sum()

    @property
    def simplex_beta(self) -> float:
        """The KL strength that belongs to `simplex_weights`; small where constraints are nearly infeasible."""
        return self.beta / float(self.weights.sum())


@final
class Dual:
    """beta * mean log Z as a function of weights, in float64."""

    def __init__(self, rewards: Tensor, beta: float, log_base: Tensor | None, mask: Tensor | None) -> None:
        self._given = candidates(rewards.double(), log_base=log_base, mask=mask)
        checked_weights(self._given, torch.zeros(1, rewards.shape[-1]), beta=beta)
        self._tilter = Tilter(self._given, covariance=True)
        self._beta = beta
        self._centre = self._given.centre.mean(0)
        span = self._given.rewards.amax((0, 1)) - self._given.rewards.amin((0, 1))
        self.extent = float(span.amax())

    def __call__(self, weights: Tensor) -> Local:
        """Returns the value V, its gradient, the expected rewards, and its Hessian, their Jacobian."""
        tilt = self._tilter(weights[None] / self._beta)
        assert tilt.covariance is not None  # asked for
        tilted, common = float(self._beta * tilt.log_z.mean()), float(weights @ self._centre)
        return Local(
            tilted + common,
            abs(tilted) + abs(common),
            tilt.rewards[:, 0].mean(0) + self._centre,
            tilt.covariance[:, 0].mean(0) / self._beta,
        )

    def kl(self, weights: Tensor) -> float:
        return float(self._tilter.means(weights[None] / self._beta).kl)

    def rounded(self, tolerance: float, size: float = 0.0) -> float:
        return max(tolerance, ROUNDING) * max(self.extent, abs(size))

    def vector(self, value: float | Tensor | FloatArray, name: str) -> Tensor:
        objectives = self._given.rewards.shape[-1]
        found = torch.as_tensor(value, dtype=torch.float64, device=self._given.rewards.device).detach()
        if found.ndim > 1 or (found.ndim and len(found) != objectives) or not bool(found.isfinite().all()):
            raise DefinitionError(f"{name} must be {objectives} finite numbers, one per objective, got {value!r}.")
        return found.expand(objectives).clone()

    def largest(self) -> Tensor:
        """Returns the largest attainable expected reward of each objective alone."""
        possible = self._given.rewards.masked_fill(~self._given.used[..., None], -torch.inf)
        return possible.amax(1).mean(0) + self._centre

    def refuse_unattainable(self, bounds: Tensor, rows: Tensor) -> None:
        largest = self.largest()
        problems = [
            f"objective {j} must reach {float(bounds[j]):g}, but always giving its best candidate has "
            f"{float(largest[j]):g}. Ask for less, or add candidates."
            for j in rows.tolist()
            if bounds[j] >= largest[j]
        ]
        if problems:
            raise DefinitionError(problems, "constrained")

    def jointly_unattainable(self, bounds: Tensor, rows: Tensor) -> str:
        wanted = ", ".join(f"objective {j} >= {float(bounds[j]):g}" for j in rows.tolist())
        alone = ", ".join(f"{float(v):g}" for v in self.largest())
        return f"no policy on the candidates has {wanted} at once (each alone can reach {alone}). Ask for less."
