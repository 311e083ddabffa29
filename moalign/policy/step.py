"""One optimiser step's gradient: K policies on one batch, in chunks of policies and parts of the batch.

Policies do not interact and a mean is a sum of parts, so neither cut changes the gradient; both bound memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import IntArray
from moalign.errors import ModelError
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData
from moalign.policy.logprobs import sequence_log_probs
from moalign.policy.model import LanguageModel, Rows
from moalign.policy.native import Trunk
from moalign.policy.tensors import to_device

Loss = Callable[[Tensor, Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]

CHUNK_BYTES_CPU = 3 << 25  # activations of one chunk; more of them leave the cache and cost time as well as memory
CHUNK_TOKENS_CPU = (512, 4096)  # fewer make products too small to be fast, more gain nothing
CHUNK_SHARE = 0.5  # of an accelerator's free memory
CHUNK_TOKENS_ACCELERATOR = (2048, 1 << 17)
UNKNOWN_FREE_BYTES = 4 << 30  # of accelerators that do not tell


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data: the distinct responses of its pairs, and each pair's place among them.

    Attributes:
        responses: their numbers in the data set, in the order of the rows.
        rows: the token rows [responses in the batch].
        first, second: row of each pair's first and second response [batch].
        columns: pair columns [batch, ...], and response columns as `<name>_first`, `<name>_second` [batch, ...].
    """

    responses: IntArray
    rows: Rows
    first: Tensor
    second: Tensor
    columns: Mapping[str, Tensor]


def build_batch(language_model: LanguageModel, data: PreferenceData, pairs: IntArray, dtype: torch.dtype) -> Batch:
    """Returns the batch of the given pair indices."""
    used, places = np.unique(data.pairs[pairs], return_inverse=True)
    places = places.reshape(-1, 2)
    columns = {name: column[pairs] for name, column in data.pair_columns.items()}
    for name, column in data.response_columns.items():
        columns[f"{name}_first"] = column[data.pairs[pairs, 0]]
        columns[f"{name}_second"] = column[data.pairs[pairs, 1]]
    batch = Batch(
        used,
        language_model.rows(data.responses, used.tolist()),
        torch.tensor(places[:, 0]),
        torch.tensor(places[:, 1]),
        {name: torch.as_tensor(column).to(dtype) for name, column in columns.items()},
    )
    return to_device(batch, language_model.device)


def add_gradient(
    language_model: LanguageModel,
    batch: Batch,
    loss: Loss,
    policies: Mapping[str, Tensor],
    stack: AdapterStack,
    chunk: Sequence[int],
    trunk: Trunk | None,
    gradient: Tensor,
    share: float = 1.0,
) -> Tensor:
    """Adds `share` times the gradient of the mean losses of the policies in `chunk` to their rows of `gradient`.

    Returns:
        `share` times the mean losses [chunk].
    """
    own_stack = stack.select(as_slice(chunk))
    leaves = [tuple(v.detach().requires_grad_() for v in site.views(own_stack.matrix)) for site in stack.sites]
    log_probs = sequence_log_probs(language_model, batch.rows, own_stack, leaves, trunk)  # type: ignore[arg-type]
    own = {name: column[as_slice(chunk)] for name, column in policies.items()}
    losses = loss(log_probs[:, batch.first], log_probs[:, batch.second], batch.columns, own).mean(dim=1) * share
    # policies do not interact, so the gradient of the sum holds each policy's own gradient in its own slice
    parts = torch.autograd.grad(losses.sum(), [leaf for pair in leaves for leaf in pair])
    gradient[as_slice(chunk)] += torch.cat([part.flatten(1) for part in parts], dim=1)
    return losses.detach()


def chunk_tokens(language_model: LanguageModel, stack: AdapterStack) -> int:
    """Returns how many tokens of all policies together a chunk may hold on this device, by a rough estimate."""
    device, config = language_model.device, language_model.model.config
    lowest = min((site.layer or 0 for site in stack.sites), default=0)
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    kept = 10 * width + 4 * inner  # numbers a block keeps per token for the backward pass, attention's scores left out
    per_token = max(1, int(config.num_hidden_layers) - lowest) * kept * stack.matrix.element_size()
    if device.type == "cpu":
        room, (least, most) = CHUNK_BYTES_CPU, CHUNK_TOKENS_CPU
    else:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else UNKNOWN_FREE_BYTES
        room, (least, most) = int(CHUNK_SHARE * free), CHUNK_TOKENS_ACCELERATOR
    return min(max(room // per_token, least), most)


@final
class Chunks:
    """Cuts policies into groups of about `tokens` tokens, and into smaller ones once memory ran out."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._most = 1 << 30

    def over(self, active: Sequence[int], tokens: int, compute: Callable[[Sequence[int]], None]) -> None:
        """Calls `compute` on consecutive groups of the active policies, which hold `tokens` tokens each.

        Raises:
            ModelError: the device has not enough memory for a single policy.
        """
        waiting = list(self._cut(active, min(self._most, max(1, self._tokens // tokens))))
        while waiting:
            group = waiting.pop(0)
            try:
                compute(group)
            except torch.OutOfMemoryError as error:
                if len(group) == 1:
                    raise ModelError(
                        f"One policy on a batch of {tokens} tokens does not fit the device's memory. Lower "
                        "Training(batch_size=...), raise Training(accumulate=...), or adapt fewer layers."
                    ) from error
                self._most = len(group) // 2
                waiting[:0] = self._cut(group, self._most)

    @staticmethod
    def _cut(policies: Sequence[int], size: int) -> Iterator[Sequence[int]]:
        return (policies[start : start + size] for start in range(0, len(policies), size))


def as_slice(policies: Sequence[int]) -> slice | list[int]:
    """Returns consecutive policies as a slice, whose selection is a view and not a copy."""
    first, last = policies[0], policies[-1]
    return slice(first, last + 1) if last - first + 1 == len(policies) else list(policies)
