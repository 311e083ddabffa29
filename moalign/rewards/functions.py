"""Rewards that need no model: lengths of the response, and the negation of any reward.

They depend on the text alone, not on a tokenizer, so their numbers stay the same when the policy's base model changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.rewards.score import Reward, check_inside, check_wrapped, reward_name, score

_TOKEN = re.compile(r"\w+|[^\w\s]")


def word_count(prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
    """Returns the number of words of each response: what white space separates."""
    return np.array([len(response.split()) for response in responses], dtype=np.float64)


def token_count(prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
    """Returns the number of words and punctuation marks of each response.

    A token is a run of letters, digits and underscores, or one other visible character. No tokenizer is asked, so
    the count differs from the length in a model's own tokens but is the same for every model.
    """
    return np.array([len(_TOKEN.findall(response)) for response in responses], dtype=np.float64)


def character_count(prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
    """Returns the number of characters (Unicode code points) of each response."""
    return np.array([len(response) for response in responses], dtype=np.float64)


@final
@dataclass(frozen=True)
class Negate:
    """The negative of a reward: turns a cost, of which less is better, into a reward.

    Example:
        >>> Negate(word_count)(["Hello"], ["Good morning"]).tolist()
        [-2.0]
    """

    reward: Reward

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "Negate")

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns -reward, float64 [n]."""
        return -score(self.reward, prompts, responses, name=reward_name(self.reward))


def negate(reward: Reward) -> Negate:
    """Returns the reward that is higher where the given one is lower; objectives are always maximised."""
    return Negate(reward)
