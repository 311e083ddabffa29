"""Length rewards and negation, by counting on the fingers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moalign.errors import DefinitionError, RewardError
from moalign.rewards import Negate, character_count, negate, score, token_count, word_count

TEXTS = ["", "  ", "Hello, world!", "don't stop", "naïve café\n\n2.5 €", "日本 😀"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (word_count, [0, 0, 2, 2, 4, 2]),
        (token_count, [0, 0, 4, 4, 6, 2]),  # Hello , world ! | don ' t stop | naïve café 2 . 5 € | 日本 😀
        (character_count, [0, 2, 13, 10, 17, 4]),
    ],
)
def test_lengths(count, expected):
    values = count([""] * len(TEXTS), TEXTS)
    assert values.dtype == np.float64 and values.tolist() == expected


def test_negate_flips_the_sign_of_any_container():
    for values in ([1, -2], np.array([1.0, -2.0]), torch.tensor([1.0, -2.0])):
        assert negate(lambda p, r, v=values: v)(["p", "q"], ["a", "b"]).tolist() == [-1, 2]
    assert negate(negate(word_count))([""], ["one two"]).tolist() == [2]


def test_negations_of_the_same_function_are_equal_values():
    assert negate(word_count) == Negate(word_count) != negate(token_count)
    with pytest.raises(DefinitionError, match="must be callable"):
        negate(-1.0)


def test_a_failure_inside_names_both_rewards():
    def cost(prompts, responses):
        return [float("nan")]

    with pytest.raises(RewardError, match="reward 'safe' failed on 1 text: RewardError: reward 'cost' returned NaN"):
        score(negate(cost), ["p"], ["a"], name="safe")
