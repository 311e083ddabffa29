"""Three objectives of a customer-support reply that pull in different directions; all are maximised and exact.

    helpful   steps that help minus steps that do not, for the complaint of the prompt   -2 .. 4
    brief     minus the number of words                                                  <= 0
    polite    apology for the customer's item + closing                                  0, 1, 2

The functions read the text, so they score any text a policy writes, not only the grammar's. A sentence counts when it
is complete and literal, up to white space, and counts once however often it is repeated: saying a good step ten times
is not ten times as helpful. A prompt that states no known complaint has no steps, so nothing is helpful for it, and no
item, so an apology is not polite. Raw units have very different spreads; `moments` gives what standardises them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.toy.grammar import CLOSING, NO_STEP, PRESENT, RESPONSES, apology_for, require_stated, stated
from moalign.errors import DefinitionError, RewardError

OBJECTIVES: Final = ("helpful", "brief", "polite")

_SENTENCE_END: Final = re.compile(r"(?<=[.!?]) ")


@final
@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and standard deviation per objective, each float64 [objectives], in raw reward units."""

    mean: FloatArray
    scale: FloatArray


def helpful(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Returns, per reply, the number of different right steps minus that of wrong steps for the stated complaint.

    Raises:
        RewardError: not one response per prompt.
    """
    return [_helpful(prompt, response) for prompt, response in _paired(prompts, responses)]


def brief(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Returns minus the number of words of each reply; words, not tokens, so that no tokenizer changes the reward.

    Raises:
        RewardError: not one response per prompt.
    """
    return [float(-len(response.split())) for _, response in _paired(prompts, responses)]


def polite(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Returns 1 for an apology that names the customer's item, plus 1 for thanking the customer.

    Raises:
        RewardError: not one response per prompt.
    """
    return [_polite(prompt, response) for prompt, response in _paired(prompts, responses)]


def rewards() -> dict[str, Callable[[Sequence[str], Sequence[str]], list[float]]]:
    """Returns the reward function of each objective by name, in the order of `OBJECTIVES`."""
    return {"helpful": helpful, "brief": brief, "polite": polite}


def reward_table(prompts: Sequence[str]) -> FloatArray:
    """Returns the raw rewards of every enumerable reply, float64 [prompts, 256, objectives].

    Equal to calling the three functions on `enumerate_responses`, but computed from which sentences a reply has.

    Raises:
        DefinitionError: a prompt that is not one of the 96.
    """
    if not len(prompts):
        return np.zeros((0, RESPONSES, len(OBJECTIVES)))
    return np.stack([_rewards_of_all(prompt) for prompt in prompts])


def moments(prompts: Sequence[str], log_base: FloatArray) -> Moments:
    """Returns the exact mean and standard deviation of the raw rewards over prompts and replies.

    Prompts count equally; within a prompt replies are drawn from softmax(log_base). Use the training prompts and the
    reference policy's log-probabilities, once per study: moments taken per batch or per policy would move the target.

    Args:
        prompts: of the 96.
        log_base: log-probabilities of the enumerated replies in nats, [prompts, 256]; need not be normalised.

    Raises:
        DefinitionError: no prompts, unknown prompts, or `log_base` of another shape or not finite.
    """
    table = reward_table(prompts)  # [prompts, responses, objectives]
    weights = normalize(log_base, prompts)[:, :, None] / len(prompts)
    mean = (weights * table).sum(axis=(0, 1))
    return Moments(mean=mean, scale=np.sqrt((weights * (table - mean) ** 2).sum(axis=(0, 1))))


def normalize(log_base: FloatArray, prompts: Sequence[str]) -> FloatArray:
    """Returns softmax(log_base) per prompt, [prompts, 256], after checking that it belongs to `prompts`.

    Raises:
        DefinitionError: no prompts, another shape, or a value that is not finite.
    """
    values = np.asarray(log_base, dtype=np.float64)
    if not len(prompts) or values.shape != (len(prompts), RESPONSES):
        raise DefinitionError(
            f"log_base must have one row of {RESPONSES} log-probabilities for each of the {len(prompts)} prompts "
            f"(at least one), got shape {values.shape}. toy.log_probs_table(model, tokenizer, prompts) makes it."
        )
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise DefinitionError(f"log_base is not finite for {len(rows)} prompts, the first {prompts[rows[0]]!r}.")
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _helpful(prompt: str, response: str) -> float:
    found = stated(prompt)
    if found is None:
        return 0.0
    said = _sentences(response)
    return float(sum(1 if step.right else -1 for step in found[1].steps if step.text in said))


def _polite(prompt: str, response: str) -> float:
    found = stated(prompt)
    said = _sentences(response)
    sorry = found is not None and apology_for(found[0]) in said
    return float(sorry + (CLOSING in said))


def _sentences(text: str) -> set[str]:
    return set(_SENTENCE_END.split(" ".join(text.split())))


def _rewards_of_all(prompt: str) -> FloatArray:
    item, complaint = require_stated(prompt)
    steps = PRESENT[:, 2:]
    signs = np.array([1.0 if step.right else -1.0 for step in complaint.steps])
    words = np.array([len(text.split()) for text in (apology_for(item), CLOSING, *(s.text for s in complaint.steps))])
    length = PRESENT @ words + ~steps.any(axis=1) * len(NO_STEP.split())
    return np.stack([steps @ signs, -length.astype(np.float64), PRESENT[:, :2].sum(axis=1)], axis=1)


def _paired(prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[str, str]]:
    if len(prompts) != len(responses):
        raise RewardError(
            f"A toy reward got {len(prompts)} prompts and {len(responses)} responses; it needs one response per prompt."
        )
    return list(zip(prompts, responses, strict=True))
