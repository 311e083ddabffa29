"""What the users of a fitted model share: the heads that turn an item and a mixture of prototypes into a reward.

Two kinds with one interface, `rewards(items, prompts, mixtures)`: ideal points (PAL-A and PAL-B), and a mixture of
linear rewards. Arrays have no batch of starts here; `training.py` and `em.py` train many and hand over the chosen one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from moalign.rewards.people.scores import Ideal, Layer, angle_reward, distance_reward, ideal_points, project


class Heads(Protocol):
    """Rewards of items for mixtures of prototypes."""

    @property
    def prototypes(self) -> int:
        """The number of prototypes K."""

    def rewards(self, items: Tensor, prompts: Tensor, mixtures: Tensor) -> Tensor:
        """Returns the reward [...] of item features [..., n, d] and prompt features for mixtures [..., K]."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Returns all numbers by name."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHeads:
    """One linear reward per group; a user's reward is the mean under the probability of their group."""

    weights: Tensor  # [K, features]

    @property
    def prototypes(self) -> int:
        return len(self.weights)

    def rewards(self, items: Tensor, prompts: Tensor, mixtures: Tensor) -> Tensor:
        """See `Heads`; prompts are part of the items."""
        return ((items @ self.weights.T) * mixtures).sum(-1)

    def tensors(self) -> Mapping[str, Tensor]:
        """See `Heads`."""
        return {"weights": self.weights}


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PointHeads:
    """PAL. Form A: distance or angle to the ideal point of P and w. Form B: angle to sum_k w_k g_k(prompt)."""

    f: tuple[Layer, ...]
    points: Tensor | None = None  # P of form A
    g: tuple[Layer, ...] = ()  # of form B, with a leading axis [K, ...]
    log_scale: Tensor | None = None  # of the angle; None scores by distance
    ideal: Ideal = "f(Pw)"
    gelu: bool = False
    residual: bool = False

    @property
    def prototypes(self) -> int:
        return len(self.points) if self.points is not None else len(self.g[0][0])

    def project(self, x: Tensor) -> Tensor:
        """Returns f(x) in the preference space, [..., n, dim]."""
        return project(self.f, x, gelu=self.gelu, residual=self.residual)

    def ideal_points(self, mixtures: Tensor, prompts: Tensor) -> Tensor:
        """Returns a (form A) or z(prompt) (form B) of each mixture, [..., dim]."""
        if self.points is not None:
            return ideal_points(self.project, self.points, mixtures, self.ideal)
        each = project(self.g, prompts[..., None, :, :], gelu=self.gelu, residual=self.residual)  # [..., K, n, dim]
        return (mixtures[..., None] * each.transpose(-3, -2)).sum(-2)

    def rewards(self, items: Tensor, prompts: Tensor, mixtures: Tensor) -> Tensor:
        """See `Heads`."""
        placed, ideal = self.project(items), self.ideal_points(mixtures, prompts)
        return distance_reward(placed, ideal) if self.log_scale is None else angle_reward(placed, ideal, self.log_scale)

    def tensors(self) -> Mapping[str, Tensor]:
        """See `Heads`."""
        found: dict[str, Tensor] = {}
        for name, layers in (("f", self.f), ("g", self.g)):
            for i, (weight, bias) in enumerate(layers):
                found |= {f"{name}.{i}.weight": weight, f"{name}.{i}.bias": bias}
        for name in ("points", "log_scale"):
            if (tensor := getattr(self, name)) is not None:
                found[name] = tensor
        return found


def heads_from(kind: str, tensors: Mapping[str, Tensor], options: Mapping[str, object]) -> Heads:
    """Returns the heads of saved tensors; inverse of `tensors()` and `options_of`."""
    if kind == "LinearHeads":
        return LinearHeads(weights=tensors["weights"])
    layers = {
        name: tuple(
            (tensors[f"{name}.{i}.weight"], tensors[f"{name}.{i}.bias"])
            for i in range(sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in tensors))
        )
        for name in ("f", "g")
    }
    rest = {name: tensors.get(name) for name in ("points", "log_scale")}
    return PointHeads(**layers, **rest, **options)  # type: ignore[arg-type]


def options_of(heads: Heads) -> dict[str, object]:
    """Returns the fields that are no tensors."""
    return {n: getattr(heads, n) for n in ("ideal", "gelu", "residual")} if isinstance(heads, PointHeads) else {}


def as_tensor(values: object) -> Tensor:
    """Returns an array as a float64 tensor on the CPU, where fitted models are evaluated."""
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy: arrays may be read-only
