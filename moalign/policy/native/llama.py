"""Blocks of the Llama family: RMS norms, rotary positions, gated MLP; also with biases, q/k norms or grouped heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moalign.policy.native.functions import rms_norm, rotate, swiglu
from moalign.policy.native.projections import Adapters, Projection, project
from moalign.policy.packing import PackedRows

CLASSES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM")
STATIC_ROPE = ("default", "linear", "llama3", "yarn")  # their tables depend on positions alone
ACTIVATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": swiglu,
    "gelu_pytorch_tanh": lambda gate, up: F.gelu(gate, approximate="tanh") * up,
}


def unsupported(model: Any) -> str | None:
    """Returns what in the model's configuration these blocks do not compute, or None."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in STATIC_ROPE:
        return f"rope type {rope['rope_type']!r}"
    if _activation_name(config) not in ACTIVATIONS:
        return f"activation {_activation_name(config)!r}"
    return None


@final
@dataclass(frozen=True)
class Rotation:
    """Cosine of every token for all heads [1 or policies, tokens, heads * head]; sine of half a head [.., head / 2]."""

    cosine: Tensor
    sine: Tensor
    head: int

    def __call__(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        return rotate(x, self.cosine[..., :width], self.sine, self.head)


@final
class Body:
    """The frozen parts of a loaded model around its blocks."""

    def __init__(self, model: Any) -> None:
        self._body = model.model
        config = model.config
        first = model.model.layers[0].self_attn
        self.head = int(first.head_dim)
        self._heads = int(config.num_attention_heads)
        activation = ACTIVATIONS[_activation_name(config)]
        self.blocks = [Block(f"model.layers.{i}", layer, activation) for i, layer in enumerate(model.model.layers)]
        self.norm = _norm(model.model.norm)

    def embed(self, rows: PackedRows) -> Tensor:
        """Returns token embeddings [1, tokens, width], or [policies, ...] where each has its own tokens."""
        x = self._body.embed_tokens(rows.ids)
        return x.view(-1, *x.shape[-2:])

    def positions(self, rows: PackedRows, like: Tensor) -> Rotation:
        """Returns the model's own rotary tables at the rows' positions."""
        cosine, sine = self._body.rotary_emb(
            like, rows.position.view(-1, rows.position.shape[-1])
        )  # [.., tokens, head]
        return Rotation(cosine.repeat(1, 1, self._heads), sine[..., : self.head // 2].contiguous(), self.head)


@final
class Block:
    """One decoder layer: attention heads before, and output projection and MLP after attention."""

    def __init__(self, name: str, layer: Any, activation: Callable[[Tensor, Tensor], Tensor]) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._heads = [_part(f"{name}.self_attn", attention, p) for p in ("q_proj", "k_proj", "v_proj")]
        self._output = [_part(f"{name}.self_attn", attention, "o_proj")]
        self._gate_up = [_part(f"{name}.mlp", mlp, p) for p in ("gate_proj", "up_proj")]
        self._down = [_part(f"{name}.mlp", mlp, "down_proj")]
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._head_norms = [_norm(n) for n in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))]
        self._activation = activation

    @property
    def projections(self) -> list[Projection]:
        return [*self._heads, *self._output, *self._gate_up, *self._down]

    def heads(self, x: Tensor, rotation: Rotation, adapters: Adapters) -> tuple[Tensor, Tensor, Tensor]:
        """Returns query, key and value [policies or 1, tokens, heads * head]."""
        query, key, value = project(self._before(x), self._heads, adapters)
        query, key = (
            norm(y.view(*y.shape[:-1], -1, rotation.head)).flatten(-2)
            for norm, y in zip(self._head_norms, (query, key), strict=True)
        )
        return rotation(query), rotation(key), value

    def finish(self, x: Tensor, attended: Tensor, adapters: Adapters) -> Tensor:
        """Returns the block's output from its input and the attended values."""
        [x] = project(attended, self._output, adapters, residual=x)
        gate, up = project(self._between(x), self._gate_up, adapters)
        policies = max(len(gate), len(up))
        inner = self._activation(gate.expand(policies, -1, -1), up.expand(policies, -1, -1))
        return project(inner, self._down, adapters, residual=x)[0]


def _part(prefix: str, parent: nn.Module, name: str) -> Projection:
    return Projection.of(f"{prefix}.{name}", getattr(parent, name))


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    """Returns the norm as a function: our own where it is exactly the module's (float32, plain weight)."""
    if module is None:
        return lambda x: x
    plain = type(module).__name__ in ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")

    def norm(x: Tensor) -> Tensor:
        if plain and x.dtype == torch.float32:
            return rms_norm(x, module.weight, module.variance_epsilon)
        if plain and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16):
            return F.rms_norm(
                x, module.weight.shape, module.weight, module.variance_epsilon
            )  # one kernel, sums in float32
        return module(x)  # the modules compute in float32 whatever they are given; so must we

    return norm


def _activation_name(config: Any) -> str:
    name = getattr(config, "hidden_activation", None) or config.hidden_act
    return "silu" if name == "swish" else str(name)
