"""What the reference policy scores per prompt: the fixed yardstick of transforms that compare within a prompt.

A reward model's score is only known up to a constant per prompt, so a transform that is not linear needs a reference
value on the same prompt from the same reward (arXiv 2402.00742). It is measured once and then stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.prompts import Prompt, load_prompts
from moalign.errors import DefinitionError
from moalign.rewards.score import Reward, reward_name, score
from moalign.store.fingerprint import describe, fingerprint

if TYPE_CHECKING:
    from moalign.policy.model import Policy


@final
@dataclass(frozen=True, eq=False, repr=False)
class References:
    """Rewards of reference responses by prompt; two are the same if their `__fingerprint__` is."""

    prompts: tuple[str, ...]  # distinct
    samples: tuple[FloatArray, ...]  # reward units: per prompt [responses], in the order they were given
    reward: str | None = None  # fingerprint of the reward that was measured; None where it cannot be recognised

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(_frozen(values) for values in self.samples))
        problems = []
        if not self.prompts or len(self.prompts) != len(self.samples):
            problems.append(f"one array per prompt is needed, got {len(self.samples)} for {len(self.prompts)} prompts.")
        if len(set(self.prompts)) != len(self.prompts):
            problems.append("prompts must differ from each other.")
        for prompt, values in zip(self.prompts, self.samples, strict=False):
            if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
                problems.append(
                    f"prompt {prompt[:40]!r} needs one or more finite rewards, got {values.tolist()!r:.60}."
                )
        if problems:
            raise DefinitionError(problems[:5], where="References")

    def __repr__(self) -> str:
        few, many = self.fewest, max(map(len, self.samples))
        return (
            f"<References {len(self.prompts):,} prompts, {few if few == many else f'{few} to {many}'} responses each>"
        )

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the numbers and the prompts."""
        content = fingerprint([list(self.prompts), [values.tolist() for values in self.samples]])
        return {"kind": "references", "prompts": len(self.prompts), "sha256": content, "reward": self.reward}

    @property
    def fewest(self) -> int:
        """The smallest number of responses that a prompt has."""
        return min(map(len, self.samples))

    @cached_property
    def by_prompt(self) -> dict[str, FloatArray]:
        """The rewards [responses] of each prompt."""
        return dict(zip(self.prompts, self.samples, strict=True))

    def values(self, quantile: float | None) -> dict[str, float]:
        """Returns per prompt the mean of its rewards, or a quantile in [0, 1] (linear between order statistics)."""
        if quantile is None:
            return {prompt: float(values.mean()) for prompt, values in self.by_prompt.items()}
        return {prompt: float(np.quantile(values, quantile)) for prompt, values in self.by_prompt.items()}


def reference_responses(
    policy: Policy, prompts: object, *, samples: int = 64, max_new_tokens: int = 64, seed: int = 0
) -> tuple[list[Prompt], list[str]]:
    """Returns (prompts, responses) sampled from a policy, one prompt per response: what `references` and fits take.

    Args:
        policy: the reference policy.
        prompts: whatever `load_prompts` reads; repetitions count once.
        samples: responses per prompt.
        max_new_tokens: longest response, tokens.
        seed: of the draw.

    Raises:
        ModelError: a prompt does not fit into the policy's context.
    """
    from moalign.policy.engine import Engine  # torch, which transforms of measured rewards do without
    from moalign.policy.generate import Sampling

    distinct = list(dict.fromkeys(load_prompts(prompts)))
    sampling = Sampling(samples=samples, max_new_tokens=max_new_tokens)
    drawn = Engine(policy, seed=seed).generate(distinct, sampling)[0]
    return [prompt for prompt in distinct for _ in range(samples)], [generation.text for generation in drawn]


def references(reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> References:
    """Returns the rewards of reference responses, grouped by prompt.

    Give samples of the reference policy (`reference_responses` draws them), for every prompt that is to be trained and
    evaluated on. One fixed answer per prompt, such as a refusal, makes a reference as well: use its mean.

    Args:
        reward: what is measured; the transform must get the same one.
        prompts: the prompt of each response, so each occurs several times.
        responses: texts.

    Raises:
        DefinitionError: no responses.
        RewardError: the reward fails.
    """
    if not responses:
        raise DefinitionError("references needs at least one response per prompt, got none.")
    found: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, score(reward, prompts, responses, name=reward_name(reward)), strict=True):
        found.setdefault(str(prompt), []).append(float(value))
    return References(tuple(found), tuple(np.array(values) for values in found.values()), recognised(reward))


def recognised(reward: Reward) -> str | None:
    """Returns the fingerprint of a reward, None for lambdas and others that no process could recognise again."""
    try:
        return fingerprint(describe(reward))
    except DefinitionError:
        return None


def _frozen(values: object) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array
