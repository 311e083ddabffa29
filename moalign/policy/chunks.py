"""Policies in groups that fit the device: how large a group may be, and what happens when memory runs out anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch

from moalign.errors import ModelError
from moalign.policy.adapters import AdapterStack
from moalign.policy.model import LanguageModel

CHUNK_BYTES_CPU = 3 << 25  # activations of one chunk; more of them leave the cache and cost time as well as memory
CHUNK_TOKENS_CPU = (512, 4096)  # fewer make products too small to be fast, more gain nothing
CHUNK_SHARE = 0.5  # of an accelerator's free memory
CHUNK_TOKENS_ACCELERATOR = (2048, 1 << 17)
UNKNOWN_FREE_BYTES = 4 << 30  # of accelerators that do not tell


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
