"""Pieces of a transformer whose weights are frozen, with gradients that keep less than automatic ones.

Each saves only what its own formula needs and makes few passes over the activations. All shapes are
[policies, tokens, ...].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns weight x / sqrt(mean(x^2) + eps) over the last axis; the weight is frozen."""
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Returns silu(gate) up, with silu(g) = g sigmoid(g)."""
    return _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, head: int) -> Tensor:
    """Returns `x` [policies, tokens, width] with rotary positions: halves (a, b) become (a c - b s, b c + a s).

    Args:
        x: all heads side by side; each is turned by its own token's angles.
        cosine: [1 or policies, tokens, width].
        sine: [1 or policies, tokens, head / 2], the same for both halves of all heads.
        head: width of one head.
    """
    return _Rotate.apply(x, cosine, sine, head)  # type: ignore[no-untyped-call]


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        scaled = gradients[0] * weight
        # d inverse / dx = -x inverse^3 / width
        along = torch.linalg.vecdot(scaled, x).unsqueeze(-1).mul_(inverse.pow(3)).div_(-x.shape[-1])
        return scaled.mul_(inverse).addcmul_(x, along), None, None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        through_gate = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return through_gate, F.silu(gate).mul_(gradients[0])


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, head: int) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.head = head
        return _turn(x, cosine, sine, head, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        cosine, sine = ctx.saved_tensors
        # a rotation's transpose turns the other way
        return _turn(gradients[0], cosine, sine, ctx.head, -1), None, None, None


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, head: int, direction: int) -> Tensor:
    turned = (x * cosine).contiguous()
    halves, into = (y.view(*y.shape[:-1], -1, 2, head // 2) for y in (x.contiguous(), turned))
    sine = sine.unsqueeze(-2)  # of every head
    into[..., 0, :].addcmul_(halves[..., 1, :], sine, value=-direction)
    into[..., 1, :].addcmul_(halves[..., 0, :], sine, value=direction)
    return turned
