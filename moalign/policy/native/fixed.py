"""Adapters made ready for many passes without gradients, as decoding needs them: one token per row, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from moalign.policy.native.projections import Adapters, Projection, read


@final
class FixedAdapters:
    """Adapted projections whose factors are scaled, stacked and laid out once, at their first use.

    It takes the place of `Adapters` in the blocks of a native model, under `torch.no_grad`.
    """

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters
        self._groups: dict[str, tuple[Tensor, dict[str, Tensor]] | None] = {}

    def __call__(self, x: Tensor, projections: Sequence[Projection], residual: Tensor | None = None) -> list[Tensor]:
        """Returns every projection of `x` [policies or 1, tokens, in] with its update, plus `residual`."""
        group = self._group(projections, x.dtype)
        if group is None:
            return [_plus(p(x), residual) for p in projections]
        down, ups = group
        inner = read(x, down)
        outputs, start = [], 0
        for projection in projections:
            y = _plus(projection(x), residual)
            up = ups.get(projection.name)
            if up is not None:
                part = inner[:, :, start : start + up.shape[1]]
                start += up.shape[1]
                y = y.baddbmm_(part, up) if len(y) == len(up) else torch.baddbmm(y, part, up)
            outputs.append(y)
        return outputs

    def _group(self, projections: Sequence[Projection], dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Returns all A of the projections as [policies, sum of ranks, in], scaled, and B [policies, rank, out]."""
        key = projections[0].name
        if key not in self._groups:
            pairs = {p.name: self._adapters.pairs[p.name] for p in projections if p.name in self._adapters.pairs}
            self._groups[key] = None
            if pairs:
                down = torch.cat([a for a, _ in pairs.values()], dim=1).to(dtype).mul_(self._adapters.scale)
                ups = {name: b.to(dtype).transpose(1, 2).contiguous() for name, (_, b) in pairs.items()}
                self._groups[key] = down, ups
        return self._groups[key]


def _plus(y: Tensor, residual: Tensor | None) -> Tensor:
    if residual is None:
        return y
    return y.add_(residual) if len(y) >= len(residual) else residual + y
