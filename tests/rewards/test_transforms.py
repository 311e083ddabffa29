"""Standardising and clipping rewards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import DefinitionError, RewardError
from moalign.rewards import Clip, Standardize, character_count, standardize

TEXTS = ["a", "aaa", "aaaaa", "aaaaaaa"]
PROMPTS = ["p"] * 4


def test_standardize_fits_mean_and_population_deviation():
    """Lengths 1, 3, 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5; length 4 then scores 0."""
    fitted = standardize(character_count, PROMPTS, TEXTS)
    assert fitted == Standardize(character_count, mean=4.0, scale=math.sqrt(5))
    assert fitted(["p"], ["aaaa"]).tolist() == [0]
    assert fitted(PROMPTS, TEXTS) == pytest.approx(np.array([-3, -1, 1, 3]) / math.sqrt(5))


def test_a_score_does_not_depend_on_the_other_texts_of_the_batch():
    fitted = standardize(character_count, PROMPTS, TEXTS)
    assert fitted(["p"], ["aaa"])[0] == fitted(PROMPTS, TEXTS)[1]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8, unique=True))
def test_standardized_samples_have_mean_zero_deviation_one_and_the_same_order(lengths):
    texts = ["a" * n for n in lengths]
    values = standardize(character_count, texts, texts)(texts, texts)
    assert values.mean() == pytest.approx(0, abs=1e-9) and values.std() == pytest.approx(1)
    assert np.argsort(values).tolist() == np.argsort(lengths).tolist()


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1])
def test_a_constant_reward_has_no_scale(value):
    """Three times 0.1 has a spread of rounding errors only, which must not become the unit."""
    with pytest.raises(RewardError, match=f"is {value:g} for all 3 responses, so it has no scale"):
        standardize(lambda p, r: [value] * len(r), ["p"] * 3, ["a", "b", "c"])


def test_one_response_is_too_few():
    with pytest.raises(DefinitionError, match="at least 2 responses, got 1"):
        standardize(character_count, ["p"], ["a"])


def test_clip_bounds_from_one_side_or_both():
    assert Clip(character_count, 2, 5)(PROMPTS, TEXTS).tolist() == [2, 3, 5, 5]
    assert Clip(character_count, -math.inf, 5)(PROMPTS, TEXTS).tolist() == [1, 3, 5, 5]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (math.nan, 1), (0, math.nan)])
def test_clip_refuses_an_empty_range(low, high):
    with pytest.raises(DefinitionError, match="Clip: low must be < high"):
        Clip(character_count, low, high)


@pytest.mark.parametrize(("mean", "scale", "count"), [(0, 0, 1), (0, -1, 1), (math.nan, math.inf, 2), (0, math.nan, 1)])
def test_standardize_refuses_bad_constants(mean, scale, count):
    with pytest.raises(DefinitionError) as caught:
        Standardize(character_count, mean, scale)
    assert len(caught.value.problems) == count


@pytest.mark.parametrize("build", [lambda r: Standardize(r, 0, 1), lambda r: Clip(r, 0, 1)])
def test_transforms_refuse_what_cannot_be_called(build):
    with pytest.raises(DefinitionError, match="must be callable"):
        build("reward")
