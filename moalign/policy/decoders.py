"""One token more for every row of K policies: the part of decoding that runs the model and holds the cache.

Rows are [policies, columns]; a column is one sample of one prompt. Two decoders do the same: over the native pass with
keys and values in place, and over the model's own pass with adapters hooked in, for every other model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.policy.adapters import AdapterStack, attached
from moalign.policy.batches import Responses
from moalign.policy.model import LanguageModel
from moalign.policy.native import Adapters, NativeModel
from moalign.policy.native.attention import Attention
from moalign.policy.native.fixed import FixedAdapters
from moalign.policy.packing import PackedRows


class Decoder(Protocol):
    """Feeds tokens and gives what comes next."""

    def prefill(self) -> Tensor:
        """Returns the logits after every prompt [policies, prompts, vocabulary]."""

    def step(self, tokens: Tensor) -> Tensor:
        """Returns the logits [policies, columns, vocabulary] after one more token each [policies, columns]."""

    def keep(self, columns: Tensor) -> None:
        """Goes on with the given columns only, numbered among those there are."""


@contextmanager
def decoder(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    stack: AdapterStack | None,
    samples: int,
    new_tokens: int,
) -> Iterator[Decoder]:
    """Gives the decoder for `samples` columns of each prompt that get up to `new_tokens` tokens; use it inside."""
    native = language_model.native
    if native is not None and max(map(len, prompts)) + new_tokens <= native.window:
        yield NativeDecoder(language_model, native, prompts, stack, samples, new_tokens)
        return
    with attached(language_model.model, stack):
        yield HookedDecoder(language_model, prompts, 1 if stack is None else len(stack), samples)


@final
@dataclass(frozen=True, eq=False)
class _Tokens:
    """What the embeddings and positions of a native model read: ids [policies, columns], positions [columns]."""

    ids: Tensor
    position: Tensor


@final
class NativeDecoder:
    """Decoding over the native blocks. Prompts pass once for all samples, and once for all policies below the adapters.

    Keys and values of a layer are [policies * columns, key heads, places, head], made once for the longest row: the
    prompt's places, then one for every new token. A step writes its place and reads all before; nothing is copied.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        native: NativeModel,
        prompts: Sequence[Sequence[int]],
        stack: AdapterStack | None,
        samples: int,
        new_tokens: int,
    ) -> None:
        self._lm, self._body = language_model, native.body
        self._prompts, self._samples, self._new = prompts, samples, new_tokens
        self._policies = 1 if stack is None else len(stack)
        pairs = {} if stack is None else {site.name: site.views(stack.matrix) for site in stack.sites}
        self._adapters = FixedAdapters(Adapters(pairs, 1.0 if stack is None else stack.lora.scale))
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._filled = max(map(len, prompts))
        lengths = torch.tensor([len(p) for p in prompts], device=language_model.device)
        self._position = lengths.repeat_interleave(samples)  # of the next token, per column
        self._mask = self._gaps(lengths) if len(set(map(len, prompts))) > 1 else None

    def prefill(self) -> Tensor:
        rows = _prompts_alone(self._prompts, self._lm.device)
        x = self._body.embed(rows)
        attention = Attention.over(rows, self._body.head, x.dtype)
        positions = self._body.positions(rows, x)
        for block in self._body.blocks:
            query, key, value = block.heads(x, positions, self._adapters)
            self._layers.append((self._stored(key, rows), self._stored(value, rows)))
            mixed = attention(query, key, value)
            if block is self._body.blocks[-1]:  # only the last token of each prompt predicts something
                x, mixed = x.index_select(1, rows.last), mixed.index_select(1, rows.last)
            x = block.finish(x, mixed, self._adapters)
        return self._logits(x)

    def step(self, tokens: Tensor) -> Tensor:
        policies, columns = tokens.shape
        told = _Tokens(tokens, self._position)
        x = self._body.embed(told)
        positions = self._body.positions(told, x)
        until = self._filled + 1
        mask = None if self._mask is None else self._mask[:, :, :, :until].repeat(policies, 1, 1, 1)
        for block, (keys, values) in zip(self._body.blocks, self._layers, strict=True):
            query, key, value = block.heads(x, positions, self._adapters)
            shape = (policies * columns, keys.shape[1], keys.shape[3])
            keys[:, :, self._filled] = key.reshape(shape)
            values[:, :, self._filled] = value.reshape(shape)
            # the heads that share a key head are as many queries of it: [rows, key heads, queries, head]
            grouped = query.reshape(*shape[:2], -1, shape[2])
            scale = self._body.head**-0.5
            mixed = F.scaled_dot_product_attention(
                grouped, keys[:, :, :until], values[:, :, :until], attn_mask=mask, scale=scale
            )
            x = block.finish(x, mixed.reshape(policies, columns, -1), self._adapters)
        self._filled, self._position = until, self._position + 1
        return self._logits(x)

    def keep(self, columns: Tensor) -> None:
        rows = _rows_of(columns, self._policies, len(self._position))
        self._position = self._position[columns]
        self._mask = None if self._mask is None else self._mask[columns]
        self._layers = [(self._kept(keys, rows), self._kept(values, rows)) for keys, values in self._layers]

    def _logits(self, x: Tensor) -> Tensor:
        return self._lm.logits(self._body.norm(x)).expand(self._policies, -1, -1)

    def _gaps(self, lengths: Tensor) -> Tensor:
        """Returns what is added to the scores of every place [columns, 1, 1, places]: -inf behind shorter prompts."""
        place = torch.arange(self._filled + self._new, device=lengths.device)
        gap = (place >= lengths[:, None]) & (place < self._filled)
        dtype = next(self._lm.model.parameters()).dtype
        mask = torch.zeros(gap.shape, dtype=dtype, device=gap.device).masked_fill_(gap, float("-inf"))
        return mask.repeat_interleave(self._samples, dim=0)[:, None, None]

    def _stored(self, x: Tensor, rows: PackedRows) -> Tensor:
        """Returns the cache of one layer with the prompts' keys or values [policies or 1, tokens, width] in it."""
        head = self._body.head
        slots = rows.prompts.slots
        spread = x[:, slots.flatten()].view(len(x), *slots.shape, -1, head).transpose(2, 3)
        shape = (self._policies, len(slots), self._samples, x.shape[-1] // head, self._filled + self._new, head)
        cache = x.new_empty(shape)
        cache[..., : self._filled, :] = spread[:, :, None]
        return cache.flatten(0, 2)

    def _kept(self, cache: Tensor, rows: Tensor) -> Tensor:
        kept = cache.new_empty(len(rows), *cache.shape[1:])
        kept[:, :, : self._filled] = cache[:, :, : self._filled].index_select(0, rows)
        return kept


@final
class HookedDecoder:
    """Decoding over the model's own forward pass and cache, inside `attached`; prompts are padded on the left."""

    def __init__(
        self, language_model: LanguageModel, prompts: Sequence[Sequence[int]], policies: int, samples: int
    ) -> None:
        self._lm, self._policies, self._samples = language_model, policies, samples
        device, pad, longest = language_model.device, language_model.pad_id, max(map(len, prompts))
        self._ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
        self._mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        self._padded = len(set(map(len, prompts))) > 1
        self._cache: Any = None

    def prefill(self) -> Tensor:
        ids, mask = self._ids.repeat(self._policies, 1), self._mask.repeat(self._policies, 1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        states, self._cache = self._lm.hidden(
            ids, attention_mask=mask if self._padded else None, position_ids=positions, use_cache=True
        )
        self._cache.batch_repeat_interleave(self._samples)
        self._mask = mask.repeat_interleave(self._samples, dim=0)
        self._position = positions[:, -1:].repeat_interleave(self._samples, dim=0)
        return self._lm.logits(states[:, -1]).view(self._policies, len(self._ids), -1)

    def step(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._position = self._position + 1
        states, self._cache = self._lm.hidden(
            tokens.reshape(-1, 1),
            attention_mask=self._mask if self._padded else None,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._lm.logits(states[:, -1]).view(*tokens.shape, -1)

    def keep(self, columns: Tensor) -> None:
        rows = _rows_of(columns, self._policies, len(self._mask) // self._policies)
        self._mask, self._position = self._mask[rows], self._position[rows]
        self._cache.batch_select_indices(rows)


def _prompts_alone(prompts: Sequence[Sequence[int]], device: torch.device) -> PackedRows:
    """Returns the prompts packed; a completion of one token is never computed."""
    count = len(prompts)
    alone = Responses(
        prompts=tuple(map(tuple, prompts)), prompt_of=np.arange(count), completions=tuple((p[-1],) for p in prompts)
    )
    return PackedRows.build(alone, range(count), device)


def _rows_of(columns: Tensor, policies: int, before: int) -> Tensor:
    """Returns the numbers of the columns' rows in [policies * columns before]."""
    return (torch.arange(policies, device=columns.device)[:, None] * before + columns).flatten()
