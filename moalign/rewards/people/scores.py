"""The mathematics of ideal points (PAL; arXiv 2406.08469): projections, ideal points, rewards and losses.

Leading axes are free (`...`), so one function serves one model and a batch of starts. Conventions: a reward is higher
where the item is liked more, and a margin is reward of chosen minus reward of rejected, so with the paper's label
y = -1 for "left preferred" and left = chosen, margin = y s. Differs from the published code where that is wrong:
distances enter every loss with a negative sign (its `dist_logistic` prefers the farther item), and normalisation is
always over features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Layer: TypeAlias = tuple[Tensor, Tensor]  # weight [..., out, in], bias [..., out]
Ideal: TypeAlias = Literal["f(Pw)", "f(P)w", "|f(P)|w", "Pw"]
Loss: TypeAlias = Literal["hinge", "logistic", "smooth hinge"]

MOST_SCALE = 100.0  # of the angle's logits
_SMOOTH = 5.0  # gamma of the smooth hinge
_TINY = 1e-12  # squared length at which the gradient of a length is cut


def project(
    layers: Sequence[Layer], x: Tensor, *, gelu: bool = False, residual: bool = False, dropout: float = 0.0
) -> Tensor:
    """Returns f(x) [..., n, out]: linear layers with dropout and ReLU or exact GELU between, none after the last.

    Args:
        layers: one or more; L hidden layers are L + 1 entries.
        x: [..., n, in].
        gelu: GELU instead of ReLU.
        residual: add x, which then has the width of the output.
        dropout: probability, after each hidden layer and before the activation.
    """
    y = x
    for i, (weight, bias) in enumerate(layers):
        y = y @ weight.transpose(-1, -2) + bias[..., None, :]
        if i < len(layers) - 1:
            y = torch.nn.functional.dropout(y, dropout, training=dropout > 0)
            y = torch.nn.functional.gelu(y) if gelu else torch.nn.functional.relu(y)
    return x + y if residual else y


def ideal_points(f: Callable[[Tensor], Tensor], prototypes: Tensor, mixtures: Tensor, ideal: Ideal = "f(Pw)") -> Tensor:
    """Returns the ideal point of each mixture, [..., users, dim].

    Args:
        f: the projection of items.
        prototypes: P [..., K, features], or [..., K, dim] for "Pw".
        mixtures: w [..., users, K] on the simplex.
        ideal: where f is applied: f(P^T w), f(P)^T w, the same of points of unit length, or P^T w.
    """
    if ideal == "f(Pw)":
        return f(mixtures @ prototypes)
    points = prototypes if ideal == "Pw" else f(prototypes)
    if ideal == "|f(P)|w":
        points = points / length(points)[..., None]
    return mixtures @ points


def length(x: Tensor) -> Tensor:
    """Returns Euclidean lengths over the last axis, with a finite gradient at zero."""
    return (x**2).sum(-1).clamp_min(_TINY).sqrt()


def distance_reward(items: Tensor, points: Tensor) -> Tensor:
    """Returns -||f(e(x)) - a||, the plain norm, over the last axis."""
    return -length(items - points)


def angle_reward(items: Tensor, points: Tensor, log_scale: Tensor) -> Tensor:
    """Returns q cos(f(e(x)), a) over the last axis, q = min(exp(log_scale), 100)."""
    cosine = (items * points).sum(-1) / (length(items) * length(points))
    return log_scale.exp().clamp(max=MOST_SCALE) * cosine


def preference_loss(margins: Tensor, labels: Tensor, kind: Loss) -> Tensor:
    """Returns the loss of each margin under soft labels: label * h(m) + (1 - label) * h(-m).

    hinge max(0, 1 - m); logistic log(1 + exp(-m)), which is the cross-entropy of the two rewards as logits; smooth
    hinge max(0, 1 - m)^2 / 10 above -4 and linear below.
    """
    return labels * _loss(margins, kind) + (1 - labels) * _loss(-margins, kind)


def _loss(margins: Tensor, kind: Loss) -> Tensor:
    if kind == "hinge":
        return (1 - margins).clamp_min(0)
    if kind == "logistic":
        return torch.nn.functional.softplus(-margins)
    lack = (1 - margins).clamp_min(0)
    return torch.where(margins >= 1 - _SMOOTH, lack**2 / (2 * _SMOOTH), 1 - _SMOOTH / 2 - margins)
