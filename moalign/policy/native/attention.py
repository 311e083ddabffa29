"""Causal attention over packed rows, in two calls: prompts among themselves, completions over prompt and own keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from moalign.policy.packing import PackedRows, Rectangle

NARROWEST_CPU_HEAD = 16  # narrower heads take longer than this width: the kernel's small products fill no vector


@final
@dataclass(frozen=True, eq=False)
class Attention:
    """Attention for one batch.

    Attributes:
        rows: the batch.
        mask: what completions see, as numbers added to the scores (0 or -inf); None without completion tokens.
        head: width of a head.
    """

    rows: PackedRows
    mask: Tensor | None
    head: int

    @staticmethod
    def over(rows: PackedRows, head: int, dtype: torch.dtype) -> Attention:
        """Returns the attention of `rows`; its mask is made once for all layers."""
        if rows.visible is None:
            return Attention(rows, None, head)
        mask = torch.zeros(rows.visible.shape, dtype=dtype, device=rows.visible.device)
        return Attention(rows, mask.masked_fill_(~rows.visible, float("-inf")), head)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Returns attended values [policies, tokens, width of the query].

        Args:
            query: [policies or 1, tokens, heads * head].
            key, value: [policies or 1, tokens, key heads * head]; key heads divide heads.
        """
        policies = max(len(query), len(key), len(value))
        query, key, value = (x.expand(policies, -1, -1) for x in (query, key, value))
        of_prompts, of_completions = _Queries.apply(query, self.rows)  # type: ignore[no-untyped-call]
        key_prompts, key_rows = _Keys.apply(key, self.rows)  # type: ignore[no-untyped-call]
        value_prompts, value_rows = _Keys.apply(value, self.rows)  # type: ignore[no-untyped-call]
        prompts = self._attend(of_prompts, key_prompts, value_prompts, None)
        completions = None
        if self.mask is not None:
            mask = self.mask if len(self.mask) == 1 else self.mask.repeat(policies, 1, 1, 1)
            completions = self._attend(of_completions, key_rows, value_rows, mask)
        return _Join.apply(prompts, completions, self.rows)  # type: ignore[no-untyped-call]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Returns [policies, rows, queries, width] from inputs of that layout; causal without a mask."""
        q, k, v = (self._heads(x) for x in (query, key, value))
        if q.is_cuda and q.shape[1] != k.shape[1]:  # no fused CUDA kernel takes both a mask and grouped heads
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        grouped = q.shape[1] != k.shape[1]
        scale = self.head**-0.5
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
        )
        return mixed[..., : self.head].transpose(1, 2).reshape(query.shape)

    def _heads(self, x: Tensor) -> Tensor:
        """Returns [policies * rows, heads, tokens, head]; narrow heads are widened by zeros, which change no score."""
        heads = x.reshape(-1, x.shape[2], x.shape[3] // self.head, self.head).transpose(1, 2)
        lacking = NARROWEST_CPU_HEAD - self.head if x.device.type == "cpu" else 0
        return F.pad(heads, (0, lacking)) if lacking > 0 else heads


class _Queries(Function):
    """Flat tokens to the rectangles of prompts and of completions (None without any)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: PackedRows) -> tuple[Tensor, Tensor | None]:
        ctx.rows = rows
        prompt, own = torch.split(x, [rows.prompt_tokens, rows.tokens - rows.prompt_tokens], dim=1)
        return _spread(prompt, rows.prompts), None if rows.completions is None else _spread(own, rows.completions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _collect(gradients[0], gradients[1], ctx.rows), None


class _Keys(Function):
    """Flat tokens to the prompts' rectangle and, per completion, its prompt's tokens followed by its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: PackedRows) -> tuple[Tensor, Tensor | None]:
        ctx.rows = rows
        prompt, own = torch.split(x, [rows.prompt_tokens, rows.tokens - rows.prompt_tokens], dim=1)
        prompts = _spread(prompt, rows.prompts)
        if rows.completions is None:
            return prompts, None
        return prompts, torch.cat([prompts.index_select(1, rows.prompt_of), _spread(own, rows.completions)], dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows: PackedRows = ctx.rows
        if rows.completions is None:
            return _collect(gradients[0], None, rows), None
        prompt, own = torch.split(gradients[1], [gradients[0].shape[2], rows.completions.slots.shape[-1]], dim=2)
        return _collect(gradients[0].index_add(1, rows.prompt_of, prompt), own, rows), None


class _Join(Function):
    """The rectangles of prompts and of completions back to flat tokens."""

    @staticmethod
    def forward(ctx: Any, prompts: Tensor, completions: Tensor | None, rows: PackedRows) -> Tensor:
        ctx.rows = rows
        return _collect(prompts, completions, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows: PackedRows = ctx.rows
        prompt, own = torch.split(gradients[0], [rows.prompt_tokens, rows.tokens - rows.prompt_tokens], dim=1)
        to_completions = None if rows.completions is None else _spread(own, rows.completions, zero=True)
        return _spread(prompt, rows.prompts, zero=True), to_completions, None


def _spread(x: Tensor, rectangle: Rectangle, zero: bool = False) -> Tensor:
    """Returns [policies, rows, longest, width] from the tokens [policies, tokens, width]; padding zero if asked."""
    shape = (len(x), *rectangle.slots.shape[-2:], x.shape[-1])
    if rectangle.padding is None:
        return x.reshape(shape)
    placed = _take(x, rectangle.slots.flatten(-2))
    if zero:
        placed.masked_fill_(rectangle.padding[..., None], 0)
    return placed.view(shape)


def _collect(prompts: Tensor, completions: Tensor | None, rows: PackedRows) -> Tensor:
    """Returns flat tokens [policies, tokens, width] from the two rectangles."""
    parts = [_gather(prompts, rows.prompts)]
    if completions is not None and rows.completions is not None:
        parts.append(_gather(completions, rows.completions))
    return torch.cat(parts, dim=1)


def _gather(x: Tensor, rectangle: Rectangle) -> Tensor:
    flat = x.flatten(1, 2)
    return flat if rectangle.padding is None else _take(flat, rectangle.places)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Returns tokens of `x` [policies, tokens, width] by number [taken], or of each policy's own [policies, taken]."""
    if index.dim() == 1:
        return x.index_select(1, index)
    return x.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, x.shape[-1])
