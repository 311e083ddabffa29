"""The forward pass: embeddings, blocks, final norm, for the tokens that predict completions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor

from moalign.errors import ModelError
from moalign.policy.native import gpt2, llama
from moalign.policy.native.attention import Attention
from moalign.policy.native.projections import Adapters
from moalign.policy.packing import PackedRows

FAMILIES: tuple[Any, ...] = (llama, gpt2)


def supports(model: Any) -> bool:
    """Returns whether the native pass computes exactly what this frozen model computes."""
    family = _family(model)
    if family is None or any(p.requires_grad for p in model.parameters()):
        return False
    return family.unsupported(model) is None and _window(model.config) > 0


def native_model(model: Any) -> NativeModel | None:
    """Returns the native pass over the model's own weights, or None where it is not supported."""
    family = _family(model)
    return NativeModel(family.Body(model), _window(model.config)) if family is not None and supports(model) else None


@final
@dataclass(frozen=True, eq=False)
class Trunk:
    """Activations [1, tokens, width] of a batch after the lowest `depth` blocks."""

    depth: int
    x: Tensor


@final
@dataclass(frozen=True, eq=False)
class NativeModel:
    """A loaded model's weights in the order in which packed rows pass them.

    Attributes:
        body: embeddings, blocks and final norm of its family.
        window: longest sequence for which attention is plainly causal (the sliding window where there is one).
    """

    body: Any
    window: float

    @cached_property
    def adaptable(self) -> frozenset[str]:
        """Returns the module names of all projections of the blocks."""
        return frozenset(p.name for block in self.body.blocks for p in block.projections)

    def depth(self, names: Iterable[str]) -> int:
        """Returns how many blocks lie below the first one that holds one of the named projections."""
        adapted, blocks = set(names), self.body.blocks
        return next((i for i, b in enumerate(blocks) if adapted & {p.name for p in b.projections}), len(blocks) - 1)

    @torch.no_grad()
    def below(self, depth: int, rows: PackedRows) -> Trunk:
        """Returns the activations after the lowest `depth` blocks; no gradient passes through them."""
        return Trunk(depth, self._through(slice(depth), rows, self.body.embed(rows), Adapters()))

    def trunk(self, rows: PackedRows, names: Iterable[str]) -> Trunk:
        """Returns the activations below the first block that holds one of the named projections.

        They are the same for all policies.
        """
        return self.below(self.depth(names), rows)

    def states(self, rows: PackedRows, adapters: Adapters, trunk: Trunk | None = None) -> Tensor:
        """Returns the states that predict the completion tokens [policies or 1, completion tokens, width].

        Args:
            rows: the responses.
            adapters: the policies; none is the base.
            trunk: where to start, from `trunk` for the same rows and adapters; at the embeddings when None.

        Raises:
            ModelError: an adapter belongs to a module that this pass does not know; it would have no effect.
        """
        unknown = sorted(adapters.pairs.keys() - self.adaptable)
        if unknown:
            raise ModelError(f"Adapters of {', '.join(unknown)} have no place in this model's blocks; adapt others.")
        start = Trunk(0, self.body.embed(rows)) if trunk is None else trunk
        x = self.body.norm(self._through(slice(start.depth, None), rows, start.x, adapters))
        prompts, own = torch.split(x, [len(rows.last), x.shape[1] - len(rows.last)], dim=1)
        return torch.cat([prompts.index_select(1, rows.prompt_of), own], dim=1)

    def _through(self, part: slice, rows: PackedRows, x: Tensor, adapters: Adapters) -> Tensor:
        """Returns `x` after the given blocks; after the last block only tokens that predict something are left."""
        attention = Attention.over(rows, self.body.head, x.dtype)
        positions = self.body.positions(rows, x)
        for block in self.body.blocks[part]:
            mixed = attention(*block.heads(x, positions, adapters))
            if block is self.body.blocks[-1]:
                x, mixed = _predicting(x, rows), _predicting(mixed, rows)
            x = block.finish(x, mixed, adapters)
        return x


def _predicting(x: Tensor, rows: PackedRows) -> Tensor:
    """Returns the tokens with something to predict: the last of each prompt, then all completion tokens."""
    return torch.cat([x.index_select(1, rows.last), x[:, rows.prompt_tokens :]], dim=1)


def _family(model: Any) -> Any:
    def made_by_transformers(family: ModuleType) -> bool:
        return type(model).__name__ in family.CLASSES and type(model).__module__.startswith("transformers.")

    return next((family for family in FAMILIES if made_by_transformers(family)), None)


def _window(config: Any) -> float:
    """Returns the sliding window in tokens, infinity without one, 0 where layers differ in a way unknown here."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if kinds - {"full_attention", "sliding_attention"}:
        return 0
    if window is None or kinds == {"full_attention"}:
        return float("inf")
    return float(window)
