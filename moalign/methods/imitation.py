"""Fine-tuning one policy to repeat chosen responses to conditioned prompts: what DPA and RiC share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.data.prompt_text import PromptText
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData, Responses
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.train import Training
from moalign.scoring import Scorer


@final
@dataclass(frozen=True, eq=False)
class Example:
    """A response to repeat: its prompt with what is written around it, its own tokens, and how much it counts."""

    prompt: Any
    text: PromptText
    completion: tuple[int, ...]
    weight: float = 1.0


@final
@dataclass(frozen=True, eq=False)
class Candidates:
    """Responses to choose from.

    Attributes:
        prompt_of: number of the prompt of each response.
        completions: token ids per response.
        texts: the responses as text.
        rewards: [responses, objectives].
        finished: which responses ended by themselves.
    """

    prompt_of: np.ndarray
    completions: tuple[tuple[int, ...], ...]
    texts: list[str]
    rewards: FloatArray
    finished: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Returns which responses are whole and not blank; where a prompt has none of them, all of its responses.

        Where most responses were cut at the longest length, as continuations are, a cut one is as good as a whole one.
        """
        whole = self.finished | (self.finished.mean() < 0.5)
        good = whole & np.array([bool(text.strip()) for text in self.texts])
        return good | ~np.isin(self.prompt_of, self.prompt_of[good])

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(c) for c in self.completions])


def fine_tune(
    name: str,
    examples: Sequence[Example],
    training: Training,
    engine: Engine,
    described: Any,
    start: AdapterStack | None = None,
) -> AdapterStack:
    """Returns one adapter trained by token-level cross-entropy on the examples' completions alone.

    The base is fine-tuned, or `start` goes on. The loss of an example is -weight * log-prob over the mean number of
    tokens in its batch; prompts and what is written around them are not scored.
    """
    place: dict[Any, int] = {}
    numbers = [place.setdefault((e.prompt, e.text), len(place)) for e in examples]
    ids = tuple(engine.encode_prompt(text(prompt)) for prompt, text in place)
    longest = [0] * len(ids)
    for number, example in zip(numbers, examples, strict=True):
        longest[number] = max(longest[number], len(example.completion))
    fitted = [
        engine.language_model.fit_prompt(i, n, f"Prompt {str(prompt)[:60]!r} with {text!r}")
        for i, n, (prompt, text) in zip(ids, longest, place, strict=True)
    ]
    responses = Responses(
        prompts=tuple(fitted),
        prompt_of=np.array(numbers, dtype=np.int64),
        completions=tuple(e.completion for e in examples),
    )
    data = PreferenceData(
        responses=responses,
        pairs=np.repeat(np.arange(len(examples))[:, None], 2, axis=1),  # a response is both sides of its "pair"
        pair_columns={
            "weight": np.array([e.weight for e in examples]),
            "tokens": np.array([float(len(e.completion)) for e in examples]),
        },
    )
    return engine.train(name, data, _cross_entropy, {"policy": np.zeros(1)}, training, described, start)


def _cross_entropy(first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
    return -batch["weight"] * first / batch["tokens"].mean()


def sampled_candidates(
    name: str,
    prompts: Sequence[Any],
    texts: Sequence[PromptText] | None,
    sampling: Sampling,
    scorer: Scorer,
    engine: Engine,
    policy: AdapterStack | None = None,
) -> Candidates:
    """Returns `sampling.samples` scored responses per prompt, from the base or a policy (a stack of one).

    Args:
        name: what the samples are called.
        prompts: what rewards see.
        texts: what is written around each prompt for the policy; nothing when None.
        sampling: how to draw.
        scorer: rewards per objective.
        engine: draws, and remembers.
        policy: what to sample; the base when None.
    """
    told = list(prompts) if texts is None else [text(p) for p, text in zip(prompts, texts, strict=True)]
    responses, words = engine.remembered_samples(name, told, sampling, policy)
    rewards = scorer.remembered([prompts[p] for p in responses.prompt_of], words)
    stops = engine.language_model.eos_ids
    finished = np.array([c[-1] in stops for c in responses.completions])
    return Candidates(responses.prompt_of, responses.completions, words, rewards, finished)
