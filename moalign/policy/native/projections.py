"""Frozen projections with stacked LoRA updates (arXiv 2106.09685): y = W x + b + scale B A x per policy.

The frozen product is one matrix multiplication over the tokens of all policies. Activations that no adapter has
touched yet have a policies axis of size 1 and are multiplied once for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """A frozen weight [out, in] and bias [out] of the loaded model, under its module name."""

    name: str
    weight: Tensor
    bias: Tensor | None

    @staticmethod
    def of(name: str, module: nn.Module) -> Projection:
        """Returns the projection of a Linear or Conv1D (which stores [in, out]) without copying its weight."""
        weight: Any = module.weight
        bias: Any = getattr(module, "bias", None)
        return Projection(name, weight if isinstance(module, nn.Linear) else weight.t(), bias)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@final
@dataclass(frozen=True, eq=False)
class Adapters:
    """A [policies, rank, in] and B [policies, out, rank] per module name; empty for the frozen model itself."""

    pairs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    scale: float = 1.0


class Projecting(Protocol):
    """Adapters that know themselves how to project, in another way than `project` does."""

    def __call__(self, x: Tensor, projections: Sequence[Projection], residual: Tensor | None) -> list[Tensor]: ...


def project(
    x: Tensor, projections: Sequence[Projection], adapters: Adapters | Projecting, residual: Tensor | None = None
) -> list[Tensor]:
    """Returns every projection of `x` with its update, plus `residual` if one is given.

    Args:
        x: activations [policies or 1, tokens, in].
        projections: those that read `x`.
        adapters: updates by name, projections without one stay frozen; or what projects itself.
        residual: added to the (single) output [policies or 1, tokens, out].
    """
    if not isinstance(adapters, Adapters):
        return adapters(x, projections, residual)
    adapted = [p for p in projections if p.name in adapters.pairs]
    updated: dict[str, Tensor] = {}
    if adapted:
        factors = [factor for p in adapted for factor in adapters.pairs[p.name]]
        outputs = _Adapted.apply(x, residual, adapters.scale, adapted, *factors)  # type: ignore[no-untyped-call]
        updated = {p.name: y for p, y in zip(adapted, outputs, strict=True)}
    plain = [None if p.name in updated else p(x) for p in projections]
    if residual is not None:
        plain = [None if y is None else residual + y for y in plain]
    return [updated[p.name] if y is None else y for p, y in zip(projections, plain, strict=True)]


class _Adapted(Function):
    """Several adapted projections of one input.

    Their A are stacked to one factor, so that the input is read once for all. An input with a policies axis of size 1
    comes from frozen weights alone and gets no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        scale: float,
        projections: Sequence[Projection],
        *factors: Tensor,
    ) -> tuple[Tensor, ...]:
        down = torch.cat([a.to(x.dtype) for a in factors[::2]], dim=1).mul_(scale)  # [policies, sum of ranks, in]
        ups = [b.to(x.dtype) for b in factors[1::2]]
        inner = read(x, down)
        outputs = []
        for projection, up, part in zip(projections, ups, _split(inner, ups), strict=True):
            frozen = projection(x)
            if residual is not None:
                frozen = frozen.add_(residual) if len(frozen) >= len(residual) else frozen + residual
            if len(frozen) == len(down):
                outputs.append(frozen.baddbmm_(part, up.transpose(1, 2)))
            else:
                outputs.append(torch.baddbmm(frozen, part, up.transpose(1, 2)))
        ctx.save_for_backward(x, inner, down, *ups)
        ctx.scale, ctx.projections, ctx.dtypes = scale, projections, [f.dtype for f in factors]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, inner, down, *ups = ctx.saved_tensors
        flat = [g.reshape(-1, g.shape[-1]) for g in gradients]  # [policies * tokens, out]
        whole = [f.view(g.shape) for f, g in zip(flat, gradients, strict=True)]
        inner_gradient = torch.empty_like(inner)
        up_gradients = []
        parts = zip(whole, ups, _split(inner, ups), _split(inner_gradient, ups), strict=True)
        for gradient, up, part, part_gradient in parts:
            part_gradient.copy_(torch.bmm(gradient, up))
            up_gradients.append(torch.bmm(gradient.transpose(1, 2), part))
        down_gradient = torch.matmul(inner_gradient.transpose(1, 2), x).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = flat[0] @ ctx.projections[0].weight
            for piece, projection in zip(flat[1:], ctx.projections[1:], strict=True):
                to_x.addmm_(piece, projection.weight)
            to_x = to_x.view(x.shape).baddbmm_(inner_gradient, down)
        down_gradients = torch.split(down_gradient, [up.shape[-1] for up in ups], dim=1)
        pairs = zip(down_gradients, up_gradients, strict=True)
        to_factors = [g.to(d) for g, d in zip((g for pair in pairs for g in pair), ctx.dtypes, strict=True)]
        to_residual = whole[0] if ctx.needs_input_grad[1] else None
        return to_x, to_residual, None, None, *to_factors


def read(x: Tensor, down: Tensor) -> Tensor:
    """Returns x down^T [policies, tokens, sum of ranks]; an input shared by all policies is multiplied once."""
    if len(x) == len(down):
        return torch.bmm(x, down.transpose(1, 2))
    together = x[0] @ down.reshape(-1, down.shape[-1]).t()  # [tokens, policies * sum of ranks]
    return together.view(len(together), len(down), -1).transpose(0, 1)


def _split(inner: Tensor, ups: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.split(inner, [up.shape[-1] for up in ups], dim=2)
