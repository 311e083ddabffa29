"""One optimiser step's gradient: K policies on one batch, in chunks of policies and parts of the batch.

Policies do not interact and a mean is a sum of parts, so neither cut changes the gradient; both bound memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import IntArray
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData
from moalign.policy.chunks import Chunks, as_slice, chunk_tokens
from moalign.policy.graphs import MULTIPLE, Capture, Replayed
from moalign.policy.logprobs import sequence_log_probs
from moalign.policy.model import LanguageModel, Rows
from moalign.policy.native import Trunk
from moalign.policy.tensors import to_device

Loss = Callable[[Tensor, Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data: the distinct responses of its pairs, and each pair's place among them.

    Attributes:
        responses: their numbers in the data set, in the order of the rows.
        rows: the token rows [responses in the batch].
        first, second: row of each pair's first and second response [batch].
        columns: pair columns [batch, ...], and response columns as `<name>_first`, `<name>_second` [batch, ...].
        multiple: of tokens, to which packed rows are stretched.
    """

    responses: IntArray
    rows: Rows
    first: Tensor
    second: Tensor
    columns: Mapping[str, Tensor]
    multiple: int = 1


def build_batch(
    language_model: LanguageModel, data: PreferenceData, pairs: IntArray, dtype: torch.dtype, multiple: int = 1
) -> Batch:
    """Returns the batch of the given pair indices, padded to multiples of so many tokens where rows are packed."""
    used, places = np.unique(data.pairs[pairs], return_inverse=True)
    places = places.reshape(-1, 2)
    columns = {name: column[pairs] for name, column in data.pair_columns.items()}
    for name, column in data.response_columns.items():
        columns[f"{name}_first"] = column[data.pairs[pairs, 0]]
        columns[f"{name}_second"] = column[data.pairs[pairs, 1]]
    batch = Batch(
        used,
        language_model.rows(data.responses, used.tolist(), multiple),
        torch.tensor(places[:, 0]),
        torch.tensor(places[:, 1]),
        {name: torch.as_tensor(column).to(dtype) for name, column in columns.items()},
        multiple,
    )
    return to_device(batch, language_model.device)


def chunk_gradient(
    language_model: LanguageModel,
    batch: Batch,
    loss: Loss,
    policies: Mapping[str, Tensor],
    stack: AdapterStack,
    chunk: slice | list[int],
    trunk: Trunk | None,
) -> tuple[Tensor, Tensor]:
    """Returns the losses [chunk, batch, ...] of some policies, and their mean's gradients [chunk, parameters]."""
    own_stack = stack.select(chunk)
    leaves = [tuple(v.detach().requires_grad_() for v in site.views(own_stack.matrix)) for site in stack.sites]
    log_probs = sequence_log_probs(language_model, batch.rows, own_stack, leaves, trunk)  # type: ignore[arg-type]
    own = {name: column[chunk] for name, column in policies.items()}
    losses = loss(log_probs[:, batch.first], log_probs[:, batch.second], batch.columns, own)
    # policies do not interact, so the gradient of the sum holds each policy's own gradient in its own slice
    parts = torch.autograd.grad(losses.mean(dim=1).sum(), [leaf for pair in leaves for leaf in pair])
    return losses.detach(), torch.cat([part.flatten(1) for part in parts], dim=1)


@final
class StepGradient:
    """The gradient of a whole stack on the pairs of one step.

    Args:
        language_model: the frozen base.
        data: pairs with their columns.
        loss, policies: see `moalign.policy.train.train`.
        stack: the adapters, whose matrix is changed in place between calls.
        trunk_of: what all policies share of a batch.
        parts: of the batch, computed one after the other.
        tokens_per_chunk: of all policies of a group; None chooses.
        capture: makes CUDA graphs; None computes without them.

    Attributes:
        gradient: [policies, parameters].
        losses: mean losses [policies]; a policy that is left out keeps its last one.
        each: the losses of the pairs of the last batch [policies, pairs, ...]; 0 for a policy that is left out.
        columns: the columns of these pairs [pairs, ...].
    """

    def __init__(
        self,
        language_model: LanguageModel,
        data: PreferenceData,
        loss: Loss,
        policies: Mapping[str, Tensor],
        stack: AdapterStack,
        losses: Tensor,
        trunk_of: Callable[[Batch, AdapterStack], Trunk | None],
        *,
        parts: int = 1,
        tokens_per_chunk: int | None = None,
        capture: Capture | None = None,
    ) -> None:
        def compute(batch: Batch, trunk: Trunk | None, rows: slice | list[int]) -> tuple[Tensor, Tensor]:
            return chunk_gradient(language_model, batch, loss, policies, stack, rows, trunk)

        self._model, self._data, self._stack, self._trunk_of, self._parts = language_model, data, stack, trunk_of, parts
        self._chunks = Chunks(tokens_per_chunk or chunk_tokens(language_model, stack))
        self._compute = compute if capture is None else Replayed(compute, capture)
        self._multiple = 1 if capture is None else MULTIPLE
        self.gradient = torch.zeros_like(stack.matrix)
        self.losses = losses.clone()
        self.each = losses.new_zeros(len(losses), 0)
        self.columns: Mapping[str, Tensor] = {}

    def prepare(self, pairs: IntArray) -> list[tuple[Batch, float]]:
        """Returns the pairs as batches on the device, each with its share of the mean."""
        parts = np.array_split(pairs, min(self._parts, len(pairs)))
        dtype = self._stack.matrix.dtype
        return [(build_batch(self._model, self._data, p, dtype, self._multiple), len(p) / len(pairs)) for p in parts]

    def compute(self, prepared: Sequence[tuple[Batch, float]], active: Sequence[int]) -> None:
        """Sets `gradient` (zero for the others) and `losses` of the active policies."""
        self.gradient.zero_()
        places = np.cumsum([0, *(len(batch.first) for batch, _ in prepared)]).tolist()
        self.each = self.losses.new_zeros(len(self.losses), places[-1])
        parts = [batch.columns for batch, _ in prepared]
        self.columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        for (batch, share), start in zip(prepared, places, strict=False):
            trunk = self._trunk_of(batch, self._stack)

            def add(
                group: Sequence[int],
                batch: Batch = batch,
                trunk: Trunk | None = trunk,
                share: float = share,
                start: int = start,
            ) -> None:
                rows = as_slice(group)
                losses, gradient = self._compute(batch, trunk, rows)
                if self.each.shape[2:] != losses.shape[2:]:
                    self.each = self.each.new_zeros(*self.each.shape[:2], *losses.shape[2:])
                self.each[rows, start : start + len(batch.first)] = losses.to(self.each.dtype)
                self.gradient[rows] += share * gradient

            self._chunks.over(active, batch.rows.tokens, add)
        of_pairs = self.each.reshape(*self.each.shape[:2], -1).sum(dim=-1)  # of a pair's parts, where it has several
        self.losses[as_slice(active)] = of_pairs[as_slice(active)].mean(dim=1)
