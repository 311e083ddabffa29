"""Sampling error: worked clusters, and properties that a wrong unit of resampling would break."""

from __future__ import annotations

import math

import numpy as np
import pytest

from moalign.errors import DefinitionError
from moalign.front import Interval, bootstrap_over_prompts, clustered_mean, hypervolume


def first_value(points: np.ndarray) -> float:
    return float(points[0, 0])


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.6123, 0.5981, 0.6249), "0.612 [0.598, 0.625]"),
        (Interval(812.34, 811.92, 812.81), "812.34 [811.92, 812.81]"),
        (Interval(12345.6, 11000.0, 13000.0), "12346 [11000, 13000]"),
        (Interval(0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        (Interval(6.0), "6.00"),
        (Interval(0.000123), "0.000123"),
    ],
)
def test_interval_shows_two_digits_of_its_half_width(interval: Interval, text: str) -> None:
    assert str(interval) == f"{interval}" == text


def test_interval_takes_a_format() -> None:
    assert f"{Interval(0.6123, 0.5981, 0.6249):.1f}" == "0.6 [0.6, 0.6]"
    assert f"{Interval(0.6123):.2f}" == "0.61"


def test_identical_prompts_leave_no_uncertainty() -> None:
    interval = bootstrap_over_prompts(np.ones((2, 5, 3)), first_value, resamples=50)
    assert interval == Interval(1.0, 1.0, 1.0)


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    """400 standard normal prompts: the 95% interval of the mean is about +- 1.96 / 20 wide."""
    values = np.random.default_rng(0).standard_normal((1, 400, 1))
    interval = bootstrap_over_prompts(values, first_value)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert interval.low < interval.value < interval.high


def test_width_falls_like_one_over_the_root_of_the_prompts() -> None:
    """Sixteen times the prompts, a quarter of the width: slope -1/2 between 100 and 1600."""
    values = np.random.default_rng(1).standard_normal((1, 1600, 1))
    many = bootstrap_over_prompts(values, first_value)
    few = bootstrap_over_prompts(values[:, :100], first_value)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.25)


def test_all_points_see_the_same_prompts() -> None:
    """Two points that differ by 1 on every prompt differ by exactly 1 in every resample."""
    one = np.random.default_rng(2).standard_normal((1, 30, 1))
    interval = bootstrap_over_prompts(np.concatenate([one, one + 1]), lambda points: float(points[1, 0] - points[0, 0]))
    assert interval.low == pytest.approx(1) and interval.high == pytest.approx(1)


def test_no_resample_changes_the_set_of_points() -> None:
    seen = set()
    values = np.random.default_rng(3).standard_normal((7, 10, 2))
    bootstrap_over_prompts(values, lambda points: float(seen.add(points.shape) or 0), resamples=20)
    assert seen == {(7, 2)}


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(4).standard_normal((3, 20, 2)) + 3
    bounds = [bootstrap_over_prompts(values, lambda p: hypervolume(p, [0, 0]), seed=seed) for seed in (0, 0, 1)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_cutting_resamples_into_chunks_keeps_their_number() -> None:
    """4000 points of 500 numbers fill a chunk with one resample; one more call gives the value."""
    calls = []
    values = np.zeros((4000, 2, 500))
    bootstrap_over_prompts(values, lambda points: float(calls.append(1) or 0), resamples=5)
    assert len(calls) == 6


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        (np.ones((2, 3)), {}, "points, prompts, objectives"),
        (np.ones((2, 0, 3)), {}, "at least one prompt"),
        (np.full((2, 3, 1), np.nan), {}, r"points \[0, 1\]"),
        (np.ones((2, 3, 1)), {"resamples": 0}, "resamples"),
        (np.ones((2, 3, 1)), {"level": 1.0}, "level"),
    ],
)
def test_bootstrap_refuses(values: np.ndarray, options: dict, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        bootstrap_over_prompts(values, first_value, **options)


def test_clustered_mean_by_hand() -> None:
    """Prompt means 1 and 5: mean 3, sd sqrt((4+4)/1), standard error sqrt(8)/sqrt(2) = 2."""
    mean, error = clustered_mean(np.array([[0.0, 2.0], [4.0, 6.0]]))
    assert mean == 3 and error == pytest.approx(2)


def test_more_samples_of_the_same_prompts_are_not_more_evidence() -> None:
    values = np.random.default_rng(5).standard_normal((10, 2, 3))
    once, thrice = clustered_mean(values), clustered_mean(np.concatenate([values] * 3, axis=1))
    np.testing.assert_allclose(thrice.mean, once.mean)
    np.testing.assert_allclose(thrice.standard_error, once.standard_error)
    assert once.mean.shape == once.standard_error.shape == (3,)


def test_one_prompt_has_an_unknown_error() -> None:
    result = clustered_mean(np.array([[1.0, 3.0]]))
    assert result.mean == 2 and math.isnan(result.standard_error)


def test_clustered_mean_refuses_what_it_cannot_average() -> None:
    with pytest.raises(DefinitionError, match="at least one prompt"):
        clustered_mean(np.zeros((3, 0)))
    with pytest.raises(DefinitionError, match=r"prompts \[1\]"):
        clustered_mean(np.array([[1.0], [np.nan]]))
