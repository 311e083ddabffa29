"""Stacked decoding: K policies sample from the same prompts at once, with one key-value cache.

Every token is drawn by inverting the cumulative distribution at a uniform number that depends only on the seed, the
prompt's and the sample's number, and the position. So a sample does not depend on which other rows share its batch
(up to floating-point ties), and all policies see the same random numbers, which makes their differences less noisy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.policy.adapters import AdapterStack
from moalign.policy.decoders import decoder
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


@final
@dataclass(frozen=True)
class Drawn:
    """One response's tokens (the stop token included where it ended by itself) and their log-probs.

    Attributes:
        ids: token ids.
        log_probs: of each token given those before it, in nats, under the policy itself: at temperature 1 and without
            truncation, whatever the sampling was. With temperature 1 and top_p 1 it is also the distribution that the
            token was drawn from, so on-policy methods need no second pass.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


@torch.no_grad()
def generate(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stack: AdapterStack | None,
    seed: int = 0,
    prompt_numbers: Sequence[int] | None = None,
) -> list[list[list[Drawn]]]:
    """Returns what was drawn as [policy][prompt][sample].

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
    device = language_model.device
    uniform = _uniforms(numbers, sampling, seed).to(device)  # [prompts * samples, tokens]
    rows = _Rows(policies, len(uniform), sampling.max_new_tokens, language_model.eos_ids, device)
    check_every = _check_every(device)
    with decoder(language_model, prompts, stack, sampling.samples, sampling.max_new_tokens) as running:
        logits = running.prefill().repeat_interleave(sampling.samples, dim=1)
        for position in range(sampling.max_new_tokens):
            tokens, log_probs = _draw(logits, uniform[rows.alive, position], sampling)
            rows.append(tokens, log_probs)
            if position + 1 == sampling.max_new_tokens:
                break
            if (position + 1) % check_every == 0:
                going = rows.going()
                if not len(going):
                    break
                if len(going) <= len(rows.alive) * 3 // 4:  # copying the cache pays only when enough columns leave
                    rows.keep(going)
                    running.keep(going)
                    tokens = tokens[:, going]
            logits = running.step(tokens)
    return rows.nested(len(prompts))


def _check_every(device: torch.device) -> int:
    """Returns after how many tokens to ask which rows have ended; a device that works ahead waits for the answer."""
    return 1 if device.type == "cpu" else 8


@final
class _Rows:
    """What was drawn so far [policies, columns, tokens]; columns finished in every policy leave the computation.

    Everything stays on the device: only `going` and `nested` wait for it.
    """

    def __init__(self, policies: int, columns: int, tokens: int, stops: Sequence[int], device: torch.device) -> None:
        self._stops = torch.tensor(stops, device=device)
        self._ids = torch.zeros(policies, columns, tokens, dtype=torch.long, device=device)
        self._log_probs = torch.zeros(policies, columns, tokens, device=device)
        self._lengths = torch.zeros(policies, columns, dtype=torch.long, device=device)
        self._done = torch.zeros(policies, columns, dtype=torch.bool, device=device)  # of the columns alive
        self._position = 0
        self.alive = torch.arange(columns, device=device)

    def append(self, tokens: Tensor, log_probs: Tensor) -> None:
        """Records a token and its log-prob for every column alive [policies, columns]."""
        self._ids[:, self.alive, self._position] = tokens
        self._log_probs[:, self.alive, self._position] = log_probs.to(self._log_probs.dtype)
        self._position += 1
        self._lengths[:, self.alive] += ~self._done
        self._done |= torch.isin(tokens, self._stops)

    def going(self) -> Tensor:
        """Returns which of the columns alive go on in some policy."""
        return torch.nonzero(~self._done.all(dim=0)).flatten()

    def keep(self, columns: Tensor) -> None:
        self.alive, self._done = self.alive[columns], self._done[:, columns]

    def nested(self, prompts: int) -> list[list[list[Drawn]]]:
        """Returns [policy][prompt][sample]."""
        ids, log_probs, lengths = (x.tolist() for x in (self._ids, self._log_probs, self._lengths))
        flat = [
            [Drawn(tuple(i[:n]), tuple(p[:n])) for i, p, n in zip(*of_policy, strict=True)]
            for of_policy in zip(ids, log_probs, lengths, strict=True)
        ]
        samples = len(flat[0]) // prompts
        return [[row[p * samples : (p + 1) * samples] for p in range(prompts)] for row in flat]


def _draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Returns tokens and their log-probs [policies, columns].

    Args:
        logits: [policies, columns, vocabulary].
        uniform: numbers in [0, 1) per column.
        sampling: how to draw.
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, _log_probs(logits, tokens)
    probs = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ranked, index = probs.sort(-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p] = 0
        probs = torch.zeros_like(probs).scatter(-1, index, ranked)
    cumulative = probs.cumsum(-1)
    threshold = uniform[:, None] * cumulative[..., -1:]
    # the first token whose cumulative probability exceeds the threshold; tokens of probability 0 are never met
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)
    return tokens, _log_probs(logits, tokens)


def _log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(-1, tokens[..., None]).squeeze(-1) - wide.logsumexp(-1)


def _uniforms(prompt_numbers: Sequence[int], sampling: Sampling, seed: int) -> Tensor:
    rows = [
        np.random.default_rng([seed, number, sample]).random(sampling.max_new_tokens)
        for number in prompt_numbers
        for sample in range(sampling.samples)
    ]
    return torch.from_numpy(np.stack(rows))
