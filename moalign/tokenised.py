"""Preference pairs of texts as tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.pairs import PreferencePairs
from moalign.policy.batches import PreferenceData
from moalign.policy.engine import Engine


def merged_pairs(
    given: Mapping[int, PreferencePairs], objectives: int
) -> tuple[list[Any], list[str], list[str], FloatArray]:
    """Returns prompts, first and second responses, and labels [pairs, objectives] of the union of all pairs."""
    rows: dict[tuple[Any, ...], int] = {}
    prompts: list[Any] = []
    first: list[str] = []
    second: list[str] = []
    labels: list[FloatArray] = []
    for column, pairs in given.items():
        times: Counter[tuple[Any, ...]] = Counter()
        for prompt, a, b, label in zip(pairs.prompts, pairs.chosen, pairs.rejected, pairs.labels, strict=True):
            content = (prompt, *sorted((a, b)))
            times[content] += 1  # repeated votes on one pair stay separate rows
            row = rows.setdefault((*content, times[content]), len(rows))
            if row == len(prompts):
                prompts.append(prompt)
                first.append(a)
                second.append(b)
                labels.append(np.full(objectives, np.nan))
            labels[row][column] = label if first[row] == a else 1.0 - label
    return prompts, first, second, np.array(labels)


def tokenised_pairs(
    engine: Engine, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], labels: FloatArray
) -> PreferenceData:
    """Returns the pairs as tokens, each distinct response once, with the column `labels` [pairs, objectives]."""
    index: dict[tuple[Any, str], int] = {}
    pairs = [
        [index.setdefault((prompt, text), len(index)) for text in (a, b)]
        for prompt, a, b in zip(prompts, first, second, strict=True)
    ]
    responses = engine.encode([p for p, _ in index], [text for _, text in index])
    return PreferenceData(responses=responses, pairs=np.array(pairs, dtype=np.int64), pair_columns={"labels": labels})
