"""How much the samples of a policy repeat each other: distinct n-grams and self-BLEU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from moalign.errors import DefinitionError

FIRST_TOKENS = 64  # distinct-n falls with length, so only this many tokens of each sample count
LONGEST = 4  # n-grams of BLEU

Tokens = Sequence[Hashable]


def distinct(samples: Iterable[Tokens], n: int = 2, *, first: int = FIRST_TOKENS) -> float:
    """Returns unique n-grams over all n-grams of the samples' first tokens; NaN when there is none.

    Pass the samples of one prompt to see mode collapse, or those of all prompts for a corpus.

    Args:
        samples: token ids or words of each sample.
        n: length of the n-grams.
        first: tokens of each sample that count.
    """
    if n < 1:
        raise DefinitionError(f"n must be at least 1, got {n}.")
    found = [gram for sample in samples for gram in _grams(sample[:first], n)]
    return len(set(found)) / len(found) if found else math.nan


def self_bleu(samples: Sequence[Tokens]) -> float:
    """Returns the mean BLEU-4 of each sample against the others of its prompt; 1 when all are equal, NaN for one.

    Uniform weights, add-one smoothing above unigrams, brevity penalty to the closest length (the shorter one of two).
    """
    if len(samples) < 2:
        return math.nan
    counts = [[Counter(_grams(sample, n)) for n in range(1, LONGEST + 1)] for sample in samples]
    scores = []
    for i, sample in enumerate(samples):
        others = [j for j in range(len(samples)) if j != i]
        closest = min((len(samples[j]) for j in others), key=lambda length: (abs(length - len(sample)), length))
        scores.append(_bleu(counts[i], [counts[j] for j in others], len(sample), closest))
    return float(np.mean(scores))


def _bleu(own: list[Counter[Tokens]], others: list[list[Counter[Tokens]]], length: int, closest: int) -> float:
    if not length:
        return float(closest == 0)
    logs = []
    for n in range(LONGEST):
        total = sum(own[n].values())
        matched = sum(min(count, max(other[n][gram] for other in others)) for gram, count in own[n].items())
        if n:
            matched, total = matched + 1, total + 1
        if not matched:
            return 0.0
        logs.append(math.log(matched / total))
    brevity = 1.0 if length >= closest else math.exp(1 - closest / length)
    return brevity * math.exp(sum(logs) / LONGEST)


def _grams(sample: Tokens, n: int) -> list[Tokens]:
    return [tuple(sample[i : i + n]) for i in range(len(sample) - n + 1)]
