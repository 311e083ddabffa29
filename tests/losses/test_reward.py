"""Losses of reward models: worked numbers, gradients, the identities between variants, and masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses import bradley_terry, centring, rating_regression

F64 = torch.float64
finite = st.floats(-30, 30)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def loss(difference: float, **extra: Any) -> float:
    columns = {name: vector(v) if name in ("labels", "margin", "strength") else v for name, v in extra.items()}
    return float(bradley_terry(chosen=vector(difference + 3), rejected=vector(3.0), **columns)[0])


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, 0.313262),  # log(1 + e^-1)
        ({"margin": 2.0}, 1.313262),  # D - m = -1: log(1 + e)
        ({"strength": 3.0}, 0.939785),  # three times the first
        ({"label_smoothing": 0.1}, 0.413262),  # .9 * .313262 + .1 * 1.313262
        ({"labels": 0.25}, 1.063262),  # .25 * .313262 + .75 * 1.313262
        ({"flip_rate": 0.25}, -0.186738),  # (.75 * .313262 - .25 * 1.313262) / .5
        ({"labels": 0.0}, 1.313262),
        ({"labels": 0.0, "margin": 0.5}, 1.701413),  # the other side should win by .5: log(1 + e^1.5)
    ],
)
def test_worked_numbers_at_a_difference_of_one(extra: dict[str, float], expected: float) -> None:
    assert loss(1.0, **extra) == pytest.approx(expected, abs=1e-6)


@given(finite, st.floats(0, 0.49))
@settings(max_examples=50, deadline=None)
def test_all_variants_are_softplus_plus_a_line(difference: float, rate: float) -> None:
    """Smoothing adds e D; the correction takes e / (1 - 2e) D away; soft labels add (1 - p) D."""
    plain = math.log1p(math.exp(-abs(difference))) + max(-difference, 0)
    assert loss(difference) == pytest.approx(plain, abs=1e-9)
    assert loss(difference, label_smoothing=rate) == pytest.approx(plain + rate * difference, abs=1e-9)
    assert loss(difference, flip_rate=rate) == pytest.approx(plain - rate / (1 - 2 * rate) * difference, abs=1e-7)
    assert loss(difference, labels=1 - rate) == pytest.approx(plain + rate * difference, abs=1e-9)


@given(finite, st.floats(0, 0.45))
@settings(max_examples=50, deadline=None)
def test_the_correction_is_unbiased_over_flips(difference: float, rate: float) -> None:
    """(1 - e) * loss of the true label + e * loss of the flipped label = the loss without noise."""
    kept, flipped = (loss(difference, labels=label, flip_rate=rate) for label in (1.0, 0.0))
    assert (1 - rate) * kept + rate * flipped == pytest.approx(loss(difference), abs=1e-7)


def test_gradients() -> None:
    """d/dD: plain -sigmoid(-D), margin -sigmoid(m - D), scaled m times plain; adding c to both rewards: none."""
    for difference in (-2.0, 0.0, 1.5):
        chosen, rejected = vector(difference).requires_grad_(), vector(0.0).requires_grad_()

        def slope(chosen: Tensor = chosen, rejected: Tensor = rejected, **extra: Tensor) -> float:
            total = bradley_terry(chosen=chosen, rejected=rejected, **extra).sum()
            up, down = torch.autograd.grad(total, [chosen, rejected])
            assert float(up + down) == pytest.approx(0, abs=1e-12)
            return float(up)

        assert slope() == pytest.approx(-1 / (1 + math.exp(difference)))
        assert slope(margin=vector(2.0)) == pytest.approx(-1 / (1 + math.exp(difference - 2)))
        assert slope(strength=vector(3.0)) == pytest.approx(-3 / (1 + math.exp(difference)))


def test_strength_repeats_a_pair_and_stacks_broadcast() -> None:
    chosen, rejected = vector(0.3, -1.0), vector(0.0, 0.5)
    scaled = bradley_terry(chosen=chosen, rejected=rejected, strength=vector(2.0, 1.0)).sum()
    repeated = bradley_terry(chosen=chosen[[0, 0, 1]], rejected=rejected[[0, 0, 1]]).sum()
    assert float(scaled) == pytest.approx(float(repeated))
    stack = bradley_terry(chosen=torch.stack([chosen, 2 * chosen]), rejected=rejected)
    assert stack.shape == (2, 2)
    assert stack[1].tolist() == bradley_terry(chosen=2 * chosen, rejected=rejected).tolist()


def test_extreme_differences_stay_finite() -> None:
    assert loss(1000.0) == 0.0 and loss(-1000.0) == 1000.0
    assert loss(1000.0, label_smoothing=0.1) == pytest.approx(100.0)


def test_centring_is_zero_for_opposite_rewards_only() -> None:
    assert centring(chosen=vector(2.0, 1.0), rejected=vector(-2.0, 0.5)).tolist() == [0.0, 2.25]


def test_regression_by_hand_with_missing_ratings() -> None:
    """Row 0: errors 1 and 2, (1 + 4) / 2. Row 1: only the second is rated, error -1. Row 2: nothing is."""
    nan = math.nan
    predictions = torch.tensor([[2.0, 5.0], [9.0, 1.0], [4.0, 4.0]], dtype=F64).requires_grad_()
    ratings = torch.tensor([[1.0, 3.0], [nan, 2.0], [nan, nan]], dtype=F64)
    losses = rating_regression(predictions=predictions, ratings=ratings)
    assert losses.tolist() == [2.5, 1.0, 0.0]
    (gradient,) = torch.autograd.grad(losses.sum(), predictions)
    assert gradient.tolist() == [[1.0, 2.0], [0.0, -2.0], [0.0, 0.0]]
    scaled = rating_regression(predictions=predictions, ratings=ratings, scale=vector(1.0, 2.0))
    assert scaled.tolist() == [1.0, 0.25, 0.0]


def test_the_smallest_regression_loss_is_at_the_mean_of_the_rated() -> None:
    ratings = torch.from_numpy(np.array([[1.0], [4.0], [np.nan]]))
    low, middle, high = (
        float(rating_regression(predictions=torch.full((3, 1), value, dtype=F64), ratings=ratings).sum())
        for value in (2.0, 2.5, 3.0)
    )
    assert middle < min(low, high)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"label_smoothing": 0.5}, "label_smoothing must be in \\[0, 0.5\\), got 0.5"),
        ({"flip_rate": -0.1}, "flip_rate must be in"),
        ({"flip_rate": math.nan}, "flip_rate must be in"),
        ({"flip_rate": 0.1, "label_smoothing": 0.1}, "contradict each other"),
    ],
)
def test_rates_that_cannot_be_meant_are_refused(extra: dict[str, float], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        loss(1.0, **extra)
