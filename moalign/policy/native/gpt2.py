"""Blocks of GPT-2: layer norms, learned positions, one projection for query, key and value, weights [in, out]."""

from __future__ import annotations

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from moalign.policy.native.projections import Adapters, Projection, project
from moalign.policy.packing import PackedRows

CLASSES = ("GPT2LMHeadModel",)
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")


def unsupported(model: Any) -> str | None:
    """Returns what in the model's configuration these blocks do not compute, or None."""
    config = model.config
    if config.activation_function not in ACTIVATIONS:
        return f"activation {config.activation_function!r}"
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn:
        return "a different scale of the attention scores"
    return "cross-attention" if config.add_cross_attention else None


@final
class Body:
    """The frozen parts of a loaded model around its blocks."""

    def __init__(self, model: Any) -> None:
        self._body = model.transformer
        self.head = int(model.config.n_embd // model.config.n_head)
        self.blocks = [Block(f"transformer.h.{i}", layer) for i, layer in enumerate(model.transformer.h)]
        self.norm = model.transformer.ln_f

    def embed(self, rows: PackedRows) -> Tensor:
        """Returns token plus position embeddings [1, tokens, width]; [policies, ...] where each has its own tokens."""
        x = self._body.wte(rows.ids) + self._body.wpe(rows.position)
        return x.view(-1, *x.shape[-2:])

    def positions(self, rows: PackedRows, like: Tensor) -> None:
        return None  # they are in the embeddings


@final
class Block:
    """One decoder layer: attention heads before, and output projection and MLP after attention."""

    def __init__(self, name: str, layer: Any) -> None:
        self._heads = [Projection.of(f"{name}.attn.c_attn", layer.attn.c_attn)]
        self._output = [Projection.of(f"{name}.attn.c_proj", layer.attn.c_proj)]
        self._up = [Projection.of(f"{name}.mlp.c_fc", layer.mlp.c_fc)]
        self._down = [Projection.of(f"{name}.mlp.c_proj", layer.mlp.c_proj)]
        self._before, self._between = layer.ln_1, layer.ln_2

    @property
    def projections(self) -> list[Projection]:
        return [*self._heads, *self._output, *self._up, *self._down]

    def heads(self, x: Tensor, positions: None, adapters: Adapters) -> tuple[Tensor, Tensor, Tensor]:
        """Returns query, key and value [policies or 1, tokens, width]."""
        query, key, value = project(self._before(x), self._heads, adapters)[0].chunk(3, dim=-1)
        return query, key, value

    def finish(self, x: Tensor, attended: Tensor, adapters: Adapters) -> Tensor:
        """Returns the block's output from its input and the attended values."""
        [x] = project(attended, self._output, adapters, residual=x)
        [up] = project(self._between(x), self._up, adapters)
        return project(F.gelu(up, approximate="tanh"), self._down, adapters, residual=x)[0]
