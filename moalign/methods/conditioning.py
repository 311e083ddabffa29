"""What is written around a prompt to tell a policy which weights are wanted: a direction, or scores to reach.

Writers are frozen dataclasses of plain values, so that a stored study can serve without its study file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.prompt_text import PromptText
from moalign.errors import DefinitionError

ScoreMap = Literal["reached", "linf", "l2", "linear"]
Place = Literal["before", "after"]


class Writer(Protocol):
    """What is written around a prompt for some weights."""

    def __call__(self, weights: FloatArray) -> PromptText: ...


@final
@dataclass(frozen=True)
class DirectionText:
    """Writes the direction of preference weights in whole numbers: "weighted rating = helpful*97 + brief*-26".

    Attributes:
        names: of the objectives, in the order of the weights.
        prefix, suffix: what stands before and after; by default like the prompt of the released DPA policy.
        units: a component of one is written as this number. 100 moves an angle by less than 0.6 degrees; fewer make
            shorter numbers with fewer different ones, which small models read more easily.
        words: what stands for 0, 1, ... instead of names and digits, for models that have never read those: words of
            the model's own vocabulary, in the order of the objectives. `units` is then the number of the last.

    Source: arXiv 2402.18571. Only the direction counts: weights are scaled to unit length, then rounded.

    Raises:
        DefinitionError: a negative component where words stand for the numbers.
    """

    names: tuple[str, ...]
    prefix: str = "Maximise weighted rating = "
    suffix: str = ". "
    units: int = 100
    words: tuple[str, ...] = ()

    def __call__(self, weights: FloatArray) -> PromptText:
        units = len(self.words) - 1 if self.words else self.units
        numbers = np.rint(units * unit(weights)).astype(int)
        if self.words:
            if (numbers < 0).any():
                raise DefinitionError(f"Words stand for numbers from 0 on, but the direction is {unit(weights)}.")
            return PromptText(before=f"{self.prefix}{' '.join(self.words[n] for n in numbers)}{self.suffix}")
        terms = " + ".join(f"{name}*{n}" for name, n in zip(self.names, numbers.tolist(), strict=True))
        return PromptText(before=f"{self.prefix}{terms}{self.suffix}")

    def read(self, text: PromptText) -> FloatArray:
        """Returns the unit direction that was written."""
        written = text.before.removeprefix(self.prefix).removesuffix(self.suffix)
        if self.words:
            return unit(np.array([float(self.words.index(word)) for word in written.split()]))
        terms = written.split(" + ")
        return unit(np.array([float(term.rsplit("*", 1)[1]) for term in terms]))


@final
@dataclass(frozen=True)
class ScoreText:
    """Writes wanted scores behind the prompt, or before it: " <helpful> 1.3 <brief> -0.4".

    Attributes:
        names: of the objectives, in the order of the weights.
        low, high: smallest and largest score to ask for, per objective, in standard deviations.
        suffix: what stands behind the scores.
        words: what stands for the scores instead, from the smallest to the largest in equal steps, without names: for
            models that have never read digits.
        mapping: from weights to scores. "linf": the objective that counts most at its top, the others at the share
            min(k w_i, 1) of their range; "l2": at w_i / |w|_2; "linear": at w_i. "reached": the one of `reached` that
            is worth most, max_s w . s.
        reached: scores that responses had, one vector after the other.
        place: of the scores; "before" suits prompts that the response continues in mid-text.

    Source: arXiv 2402.10207 and its code, whose default is "linf" and whose evaluation uses "l2"; "reached" is not
    from there.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    suffix: str = "\n"
    words: tuple[str, ...] = ()
    mapping: ScoreMap = "l2"
    reached: tuple[float, ...] = ()
    place: Place = "after"

    def __call__(self, weights: FloatArray) -> PromptText:
        return self.write(self.wanted(weights))

    def wanted(self, weights: FloatArray) -> FloatArray:
        """Returns the scores to ask for, rounded to tenths."""
        if self.mapping == "reached":
            scores = np.array(self.reached).reshape(-1, len(weights))
            return np.asarray(np.round(scores[(scores @ weights).argmax()], 1))
        low, high = np.array(self.low), np.array(self.high)
        share = weights
        if self.mapping == "l2":
            share = unit(weights)
        if self.mapping == "linf":
            share = np.where(np.arange(len(weights)) == weights.argmax(), 1.0, np.minimum(len(weights) * weights, 1))
        return np.asarray(np.round(share * (high - low) + low, 1))

    def write(self, scores: FloatArray) -> PromptText:
        """Returns the text that states these scores."""
        if self.words:
            low, span = np.array(self.low), np.maximum(np.array(self.high) - self.low, 1e-9)
            level = np.rint(np.clip((scores - low) / span, 0, 1) * (len(self.words) - 1)).astype(int)
            tags = " ".join(self.words[n] for n in level)
        else:
            named = zip(self.names, scores.tolist(), strict=True)
            tags = " ".join(f"<{name}> {score + 0.0:.1f}" for name, score in named)
        if self.place == "before":
            return PromptText(before=f"{tags}{self.suffix}")
        return PromptText(after=f" {tags}{self.suffix}")

    def read(self, text: PromptText) -> FloatArray:
        """Returns the scores that were written, those that the words stand for."""
        words = (text.before if self.place == "before" else text.after).removesuffix(self.suffix).split()
        if self.words:
            level = [self.words.index(word) for word in words]
            span = np.array(self.high) - np.array(self.low)
            return np.asarray(np.array(self.low) + span * np.array(level) / (len(self.words) - 1))
        return np.array([float(word) for word in words[1::2]])


def words_problems(method: str, words: tuple[str, ...]) -> list[str]:
    """Returns why words cannot stand for numbers: one alone, repeated ones, or one with white space in it."""
    if not words or (len(words) > 1 and len(set(words)) == len(words) and all(w.split() == [w] for w in words)):
        return []
    return [f"{method} words must be two or more different words without white space, got {words}."]


def unit(weights: FloatArray) -> FloatArray:
    """Returns the weights at unit (Euclidean) length."""
    return np.asarray(weights / np.linalg.norm(weights))
