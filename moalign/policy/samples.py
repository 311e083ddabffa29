"""Sampled responses: drawing them pass by pass, and as arrays that can be kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from moalign.policy.adapters import AdapterStack
from moalign.policy.generate import Sampling, generate
from moalign.policy.model import LanguageModel

TOKENS_PER_PASS = 1 << 16  # tokens in the key-value cache, which bounds its memory


@final
@dataclass(frozen=True)
class Generation:
    """One sampled response.

    Attributes:
        prompt, sample: the prompt's number and the sample's.
        ids: tokens, the stop token included.
        text: without the stop token.
        finished: whether it ended by itself.
        log_probs: of each token, in nats, under the policy itself: at temperature 1 and without truncation, whatever
            the sampling was.
    """

    prompt: int
    sample: int
    ids: tuple[int, ...]
    text: str
    finished: bool
    log_probs: tuple[float, ...]

    @property
    def log_prob(self) -> float:
        """Returns the summed log-prob of the response given its prompt, in nats."""
        return math.fsum(self.log_probs)


def draw(
    language_model: LanguageModel,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    stack: AdapterStack | None,
    seed: int,
) -> list[list[Generation]]:
    """Returns the sampled responses per policy (one, the base, without a stack), ordered by prompt, then sample."""
    policies = 1 if stack is None else len(stack)
    result: list[list[Generation]] = [[] for _ in range(policies)]
    longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
    native = language_model.native is not None and longest <= language_model.native.window
    for numbers in _prompt_passes(prompts, sampling, policies, padded=native):
        drawn = generate(language_model, [prompts[n] for n in numbers], sampling, stack, seed, numbers)
        for policy, per_prompt in enumerate(drawn):
            for number, samples in zip(numbers, per_prompt, strict=True):
                for sample, response in enumerate(samples):
                    text = language_model.decode_response(prompts[number], response.ids)
                    finished = response.ids[-1] in language_model.eos_ids
                    result[policy].append(Generation(number, sample, response.ids, text, finished, response.log_probs))
    return [sorted(rows, key=lambda g: (g.prompt, g.sample)) for rows in result]


def samples_key(name: str, seed: int, prompts: Sequence[Any], sampling: Sampling) -> str:
    """Returns the name under which the base policy's samples for these prompts are kept."""
    facts = json.dumps([name, seed, [str(p) for p in prompts], vars(sampling)], sort_keys=True)
    return f"samples-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def as_arrays(drawn: Sequence[Generation]) -> dict[str, np.ndarray]:
    """Returns `tokens` of all samples one after another and the `lengths` [samples]."""
    lengths = np.array([len(g.ids) for g in drawn])
    return {"tokens": np.concatenate([np.array(g.ids, dtype=np.int64) for g in drawn]), "lengths": lengths}


def as_completions(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, ...]]:
    """Returns the token ids of every sample from what `as_arrays` gave."""
    return [tuple(map(int, c)) for c in np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])]


def _prompt_passes(
    ids: Sequence[Sequence[int]], sampling: Sampling, policies: int, padded: bool
) -> Iterator[list[int]]:
    """Yields prompt numbers, similar lengths together; equal lengths only where padding is not trusted.

    Some models' own attention turns rows of padding into NaN, which spread to the tokens beside them.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    part: list[int] = []
    for number in order:
        rows = (len(part) + 1) * policies * sampling.samples
        unlike = bool(part) and not padded and len(ids[part[-1]]) != len(ids[number])
        if part and (unlike or rows * (len(ids[number]) + sampling.max_new_tokens) > TOKENS_PER_PASS):
            yield part
            part = []
        part.append(number)
    if part:
        yield part
