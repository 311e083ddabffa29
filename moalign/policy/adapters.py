"""K LoRA adapters on one frozen model, stacked along a leading `policies` axis (LoRA: arXiv 2106.09685).

All parameters of all policies are one matrix [policies, parameters]: one optimiser steps it, a policy's gradient norm
is a row norm, a checkpoint is one tensor. For every adapted projection, A [policies, rank, in] and
B [policies, out, rank] are views into that matrix. During a forward pass the rows of the batch are grouped by policy,
and each adapted projection adds scale * B A x to its frozen output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from moalign.errors import DefinitionError, ModelError


@final
@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which projections are adapted, and how.

    Attributes:
        rank: inner dimension of the update, >= 1.
        alpha: the update is scaled by alpha / rank.
        targets: last parts of module names ("q_proj", "v_proj"); None adapts every projection but the output head.
        layers: adapt only this many of the top layers; what lies below them is computed once for all policies. Fewer
            adapted layers are faster and can express less. None adapts all.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise DefinitionError(f"LoRA rank must be >= 1, got {self.rank}.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise DefinitionError(f"LoRA alpha must be positive, got {self.alpha}.")
        if self.layers is not None and self.layers < 1:
            raise DefinitionError(f"LoRA layers must be >= 1 (or None for all), got {self.layers}.")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class Site:
    """One adapted projection: its module name, widths, and where its A and B lie in a row of the parameter matrix."""

    name: str
    inputs: int
    outputs: int
    start: int
    rank: int
    transposed: bool  # weight stored [in, out] (GPT-2's Conv1D)

    @property
    def layer(self) -> int | None:
        """Returns the number of the layer, the first number in the module's name; None outside the layers."""
        return layer_of(self.name)

    @property
    def size(self) -> int:
        return self.rank * (self.inputs + self.outputs)

    def views(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Returns A [policies, rank, in] and B [policies, out, rank] as views of `matrix` [policies, parameters]."""
        border = self.start + self.rank * self.inputs
        a = matrix[:, self.start : border].view(-1, self.rank, self.inputs)
        b = matrix[:, border : self.start + self.size].view(-1, self.outputs, self.rank)
        return a, b


def find_sites(model: Any, lora: LoRA) -> tuple[Site, ...]:
    """Returns the projections of `model` that `lora` adapts, in module order.

    Raises:
        ModelError: no projection matches; lists the names that exist. More layers are wanted than there are.
    """
    head = model.get_output_embeddings()
    lowest = _lowest_layer(model, lora)
    sites, start, seen = [], 0, set()
    for name, module in model.named_modules():
        shape = _projection_shape(module)
        if shape is None or module is head:
            continue
        last = name.rsplit(".", 1)[-1]
        seen.add(last)
        layer = layer_of(name)
        if (lora.targets is not None and last not in lora.targets) or (layer if layer is not None else lowest) < lowest:
            continue
        site = Site(name, shape[0], shape[1], start, lora.rank, not isinstance(module, nn.Linear))
        sites.append(site)
        start += site.size
    missing = set(lora.targets or ()) - seen
    if missing or not sites:
        raise ModelError(
            f"LoRA targets {sorted(missing) or lora.targets} are not in this model; it has {', '.join(sorted(seen))}."
        )
    return tuple(sites)


def layer_of(name: str) -> int | None:
    """Returns the first number in a dotted module name, that of its layer, or None."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def _lowest_layer(model: Any, lora: LoRA) -> int:
    """Returns the lowest adapted layer."""
    if lora.layers is None:
        return 0
    count = 1 + max((layer for name, _ in model.named_modules() if (layer := layer_of(name)) is not None), default=-1)
    if lora.layers > count:
        raise ModelError(f"LoRA layers = {lora.layers}, but this model has {count}; use None to adapt all.")
    return count - lora.layers


@final
@dataclass(frozen=True, eq=False)
class AdapterStack:
    """K trained (or initial) adapters on one base model.

    Attributes:
        lora: rank, scale and targets shared by all.
        sites: the adapted projections.
        matrix: all parameters [policies, parameters], float32 (float64 on a float64 base).
    """

    lora: LoRA
    sites: tuple[Site, ...]
    matrix: Tensor

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def select(self, policies: Sequence[int] | slice) -> AdapterStack:
        """Returns the stack of the given policies, in that order."""
        rows = policies if isinstance(policies, slice) else list(policies)
        return AdapterStack(self.lora, self.sites, self.matrix[rows])

    def to(self, device: Any) -> AdapterStack:
        """Returns the stack on another device."""
        return AdapterStack(self.lora, self.sites, self.matrix.to(device))

    @staticmethod
    def concatenate(stacks: Sequence[AdapterStack]) -> AdapterStack:
        """Returns one stack with the policies of all, in order; they must adapt the same projections alike."""
        first = stacks[0]
        if any(s.lora != first.lora or s.sites != first.sites for s in stacks):
            raise DefinitionError("Adapter stacks differ in rank, scale or adapted projections and cannot be joined.")
        return AdapterStack(first.lora, first.sites, torch.cat([s.matrix for s in stacks]))

    @staticmethod
    def initial(model: Any, lora: LoRA, policies: int, seed: int) -> AdapterStack:
        """Returns `policies` equal adapters at their start: A uniform in +-1/sqrt(in) from `seed`, B zero.

        Equal starts make a stack of K the same as K runs, and let trained adapters be interpolated.
        """
        sites = find_sites(model, lora)
        dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
        row = torch.zeros(1, sites[-1].start + sites[-1].size, dtype=dtype)
        generator = torch.Generator().manual_seed(seed)
        for site in sites:
            a, _ = site.views(row)
            bound = 1 / math.sqrt(site.inputs)
            a.copy_(torch.empty(a.shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator))
        return AdapterStack(lora, sites, row.repeat(policies, 1).to(next(model.parameters()).device))

    def deltas(self, policy: int) -> dict[str, Tensor]:
        """Returns scale * B A [out, in] per module name: what this policy adds to each frozen weight."""
        result = {}
        for site in self.sites:
            a, b = site.views(self.matrix[policy : policy + 1])
            result[site.name] = self.lora.scale * (b[0] @ a[0])
        return result


@contextmanager
def attached(
    model: Any, stack: AdapterStack | None, leaves: Sequence[tuple[Tensor, Tensor]] | None = None
) -> Iterator[None]:
    """Within the context, rows of a batch grouped by policy [policies * rows, ...] pass through their own adapters.

    Args:
        model: the frozen model.
        stack: the adapters; None leaves the model as it is (the reference policy).
        leaves: A and B per site to use instead of the stack's own views (what a training step differentiates).
    """
    if stack is None:
        yield
        return
    pairs = leaves if leaves is not None else [site.views(stack.matrix) for site in stack.sites]
    modules = dict(model.named_modules())
    handles = [
        modules[site.name].register_forward_hook(_adapter_hook(a, b, stack.lora.scale))
        for site, (a, b) in zip(stack.sites, pairs, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adapter_hook(a: Tensor, b: Tensor, scale: float) -> Any:
    policies = a.shape[0]

    def add_update(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        rows = x.reshape(policies, -1, x.shape[-1])  # [policies, rows * tokens, in]
        inner = torch.bmm(rows, a.to(x.dtype).transpose(1, 2))  # [policies, rows * tokens, rank]
        flat = output.reshape(policies, -1, output.shape[-1])
        return torch.baddbmm(flat, inner, b.to(x.dtype).transpose(1, 2), alpha=scale).view(output.shape)

    return add_update


def _projection_shape(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None:
        weight: Any = module.weight
        return int(weight.shape[0]), int(weight.shape[1])
    return None
