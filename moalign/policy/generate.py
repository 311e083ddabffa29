"""Stacked decoding: K policies sample from the same prompts at once, with one key-value cache.

Every token is drawn by inverting the cumulative distribution at a uniform number that depends only on the seed, the
prompt's and the sample's number, and the position. So a sample does not depend on which other rows share its batch
(up to floating-point ties), and all policies see the same random numbers, which makes their differences less noisy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.policy.adapters import AdapterStack, attached
from moalign.policy.model import LanguageModel


@final
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn.

    Attributes:
        max_new_tokens: longest response in tokens.
        samples: responses per prompt.
        temperature: 0 takes the most likely token; 1 samples the policy itself, which KL estimates need.
        top_p: keeps the smallest set of tokens with at least this probability; 1 keeps all.
    """

    max_new_tokens: int = 64
    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        wrong = []
        if self.max_new_tokens < 1:
            wrong.append(f"max_new_tokens must be >= 1, got {self.max_new_tokens}.")
        if self.samples < 1:
            wrong.append(f"samples must be >= 1, got {self.samples}.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            wrong.append(f"temperature must be >= 0, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            wrong.append(f"top_p must be in (0, 1], got {self.top_p}.")
        if wrong:
            raise DefinitionError(wrong)


@torch.no_grad()
def generate(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stack: AdapterStack | None,
    seed: int = 0,
    prompt_numbers: Sequence[int] | None = None,
) -> list[list[list[tuple[int, ...]]]]:
    """Returns token ids as [policy][prompt][sample]; the stop token is included where a response ended by itself.

    Args:
        language_model: the frozen base.
        prompts: token ids per prompt.
        sampling: how to draw.
        stack: the policies; None for the reference policy (one policy).
        seed: of the random numbers.
        prompt_numbers: the prompts' numbers in the whole data set when only a part is passed (default 0, 1, ...).
    """
    policies = 1 if stack is None else len(stack)
    numbers = list(range(len(prompts))) if prompt_numbers is None else list(prompt_numbers)
    uniform = _uniforms(numbers, sampling, seed).to(language_model.device)  # [prompts * samples, tokens]
    rows = _Rows(language_model, prompts, policies, sampling.samples)
    with attached(language_model.model, stack):
        logits = rows.prefill()
        for position in range(sampling.max_new_tokens):
            tokens = _draw(logits, uniform[rows.alive, position], sampling, policies)
            if not rows.append(tokens) or position + 1 == sampling.max_new_tokens:
                break
            logits = rows.step()
    return rows.nested(len(prompts), sampling.samples)


class _Rows:
    """The growing rows [policies, prompts * samples]; columns finished in every policy leave the computation."""

    def __init__(self, language_model: LanguageModel, prompts: Sequence[Sequence[int]], policies: int, samples: int):
        self.lm, self.policies, self.samples = language_model, policies, samples
        device = language_model.device
        longest = max(map(len, prompts))
        pad = language_model.pad_id
        self.ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        self.stops = torch.tensor(language_model.eos_ids, device=device)
        columns = len(prompts) * samples
        self.alive = torch.arange(columns, device=device)
        self.done = torch.zeros(policies, columns, dtype=torch.bool, device=device)  # of the columns alive
        self.output: list[list[list[int]]] = [[[] for _ in range(columns)] for _ in range(policies)]
        self.cache: Any = None

    def prefill(self) -> Tensor:
        ids, mask = self.ids.repeat(self.policies, 1), self.mask.repeat(self.policies, 1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        needs_mask = None if bool(mask.all()) else mask
        states, self.cache = self.lm.hidden(ids, attention_mask=needs_mask, position_ids=positions, use_cache=True)
        logits = self.lm.logits(states[:, -1])
        self.cache.batch_repeat_interleave(self.samples)
        self.mask = mask.repeat_interleave(self.samples, dim=0)
        self.position = positions[:, -1:].repeat_interleave(self.samples, dim=0)
        return logits.repeat_interleave(self.samples, dim=0)

    def append(self, tokens: Tensor) -> bool:
        """Records the new tokens [policies * columns]; returns whether any row goes on."""
        grid = tokens.view(self.policies, -1)
        columns = self.alive.tolist()
        for policy, (row, finished) in enumerate(zip(grid.tolist(), self.done.tolist(), strict=True)):
            for column, token, stopped in zip(columns, row, finished, strict=True):
                if not stopped:
                    self.output[policy][column].append(token)
        self.done |= torch.isin(grid, self.stops)
        keep = ~self.done.all(dim=0)
        self.tokens = tokens
        if int(keep.sum()) <= len(keep) * 3 // 4:  # copying the cache pays only when enough columns leave
            self._drop(keep)
        return len(self.alive) > 0

    def _drop(self, keep: Tensor) -> None:
        rows = torch.nonzero(keep.repeat(self.policies)).flatten()
        self.alive, self.done = self.alive[keep], self.done[:, keep]
        self.tokens, self.mask, self.position = self.tokens[rows], self.mask[rows], self.position[rows]
        if len(self.alive):
            self.cache.batch_select_indices(rows)

    def step(self) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.position = self.position + 1
        needs_mask = None if bool(self.mask.all()) else self.mask
        states, self.cache = self.lm.hidden(
            self.tokens[:, None],
            attention_mask=needs_mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        )
        return self.lm.logits(states[:, -1])

    def nested(self, prompts: int, samples: int) -> list[list[list[tuple[int, ...]]]]:
        return [
            [[tuple(columns[p * samples + s]) for s in range(samples)] for p in range(prompts)]
            for columns in self.output
        ]


def _draw(logits: Tensor, uniform: Tensor, sampling: Sampling, policies: int) -> Tensor:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ranked, index = probs.sort(-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p] = 0
        probs = torch.zeros_like(probs).scatter(-1, index, ranked)
    cumulative = probs.cumsum(-1)
    threshold = uniform.repeat(policies)[:, None] * cumulative[:, -1:]
    # the first token whose cumulative probability exceeds the threshold; tokens of probability 0 are never met
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)


def _uniforms(prompt_numbers: Sequence[int], sampling: Sampling, seed: int) -> Tensor:
    rows = [
        np.random.default_rng([seed, number, sample]).random(sampling.max_new_tokens)
        for number in prompt_numbers
        for sample in range(sampling.samples)
    ]
    return torch.from_numpy(np.stack(rows))
