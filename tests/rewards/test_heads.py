"""Heads on fixed vectors: closed forms, optimality, recovery from noisy labels, missing ratings, bad input."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from moalign.errors import DataError, DefinitionError, NumericsWarning
from moalign.losses import bradley_terry
from moalign.rewards import BradleyTerry, Regression
from moalign.rewards.heads import Head, fit_pairs, fit_ratings
from moalign.rewards.recipes import PairRows


def made_pairs(
    n: int = 2000, dim: int = 64, flips: float = 0.0, seed: int = 0, held_out: int = 2000
) -> tuple[np.ndarray, PairRows, np.ndarray]:
    """Returns vectors, training pairs labelled by a linear reward (flipped at a rate), and held-out differences."""
    random = np.random.default_rng(seed)
    vectors, truth = random.normal(size=(2 * n, dim)), random.normal(size=dim)
    better = (vectors[0::2] - vectors[1::2]) @ truth > 0
    labels = np.where(random.random(n) < flips, ~better, better).astype(float)
    pairs = PairRows(chosen=np.arange(n) * 2, rejected=np.arange(n) * 2 + 1, labels=labels)
    fresh = random.normal(size=(held_out, dim))
    return vectors, pairs, fresh * np.sign(fresh @ truth)[:, None]  # differences in favour of the better one


def rated(n: int = 200, dim: int = 6, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(n, dim)) * 3 + 1
    return vectors, vectors @ random.normal(size=(dim, 2)) + 4 + noise * random.normal(size=(n, 2))


@pytest.mark.parametrize(("flips", "least"), [(0.0, 0.97), (0.25, 0.86)])
def test_a_linear_reward_is_recovered_from_pairs(flips: float, least: float) -> None:
    """2,000 pairs, 64 features: above 0.97 on fresh pairs, and above 0.86 with a quarter of the labels flipped."""
    vectors, pairs, better = made_pairs(flips=flips)
    head = fit_pairs(vectors, pairs, BradleyTerry(penalties=(0.1, 10.0, 100.0)), range(len(pairs)))
    assert (better @ head.weights > 0).mean() > least
    assert head(vectors).mean() == pytest.approx(0, abs=1e-6), "the mean reward is zero"


def test_the_bradley_terry_solution_is_stationary() -> None:
    """Gradient of sum of losses + penalty |w|^2 / 2 at the solution, by autograd on the standardised vectors."""
    vectors, pairs, _ = made_pairs(n=100, dim=5, flips=0.2)
    how = BradleyTerry(penalties=(3.0,), label_smoothing=0.1)
    head = fit_pairs(vectors, pairs, how, range(len(pairs)))
    scaled = torch.from_numpy((vectors - vectors.mean(0)) / vectors.std(0))
    weights = torch.from_numpy(head.weights * vectors.std(0)).requires_grad_()
    rewards = scaled @ weights
    total = bradley_terry(
        chosen=rewards[pairs.chosen], rejected=rewards[pairs.rejected], labels=torch.from_numpy(pairs.labels),
        label_smoothing=0.1,
    ).sum() + 1.5 * weights.square().sum()  # fmt: skip
    (gradient,) = torch.autograd.grad(total, weights)
    assert gradient.abs().max() < 1e-3
    assert head.penalty == 3.0


def test_swapping_the_responses_and_their_labels_changes_nothing() -> None:
    vectors, pairs, _ = made_pairs(n=100, dim=5, flips=0.2)
    swapped = PairRows(chosen=pairs.rejected, rejected=pairs.chosen, labels=1 - pairs.labels)
    how = BradleyTerry(penalties=(1.0,))
    first, second = (fit_pairs(vectors, p, how, range(100)) for p in (pairs, swapped))
    assert first.weights == pytest.approx(second.weights, abs=1e-5)


def test_strong_preferences_weigh_more_when_scaled_and_move_further_with_a_margin() -> None:
    """Two kinds of pairs contradict each other; the minority is three times as strong, so scaled BT follows it."""
    vectors = np.array([[1.0], [0.0]])
    labels = np.r_[np.ones(6), np.zeros(4)]
    pairs = PairRows(
        chosen=np.zeros(10, int), rejected=np.ones(10, int), labels=labels, margin=np.where(labels == 1, 1.0, 3.0)
    )
    plain = fit_pairs(vectors, pairs, BradleyTerry(penalties=(1e-6,)), range(10))
    scaled = fit_pairs(vectors, pairs, BradleyTerry(penalties=(1e-6,), scaled=True), range(10))
    assert plain.weights[0] == pytest.approx(np.log(6 / 4), abs=1e-3)  # the log-odds of 6 against 4
    assert scaled.weights[0] == pytest.approx(np.log(6 / 12), abs=1e-3)
    agreed = PairRows(chosen=np.zeros(5, int), rejected=np.ones(5, int), labels=np.ones(5), margin=np.full(5, 2.0))
    close, far = (fit_pairs(vectors, agreed, BradleyTerry(penalties=(1.0,), margin_scale=m), range(5)) for m in (0, 1))
    assert far.weights[0] > close.weights[0] + 0.5


def test_smoothing_shrinks_and_the_correction_stretches() -> None:
    """6 of 10 labels: log-odds log(1.5). With flips at 0.25 known, the true share is (.6 - .25) / .5 = .7."""
    vectors = np.array([[1.0], [0.0]])
    pairs = PairRows(chosen=np.zeros(10, int), rejected=np.ones(10, int), labels=np.r_[np.ones(6), np.zeros(4)])
    fits = {
        name: fit_pairs(vectors, pairs, BradleyTerry(penalties=(1e-6,), **{name: 0.25}), range(10)).weights[0]
        for name in ("label_smoothing", "flip_rate")
    }
    assert fits["flip_rate"] == pytest.approx(np.log(7 / 3), abs=1e-3)
    assert fits["label_smoothing"] == pytest.approx(np.log(0.55 / 0.45), abs=1e-3)  # .75 * .6 + .25 * .4


def test_pairs_start_from_a_regression() -> None:
    """With a huge penalty on the distance the head is the regression's, brought to log-odds; few pairs suffice."""
    vectors, ratings = rated(n=400)
    (rating, _) = fit_ratings(vectors, ratings, "ab", Regression(), range(400))
    pairs = PairRows(
        chosen=np.arange(100), rejected=np.arange(100, 200), labels=(ratings[:100, 0] > ratings[100:200, 0]) * 1.0
    )
    held = fit_pairs(vectors, pairs, BradleyTerry(penalties=(1e9,)), range(100), rating)
    cosine = held.weights @ rating.weights / np.linalg.norm(held.weights) / np.linalg.norm(rating.weights)
    assert cosine == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(held.weights) != pytest.approx(np.linalg.norm(rating.weights), rel=0.1)
    alone = fit_pairs(vectors, pairs, BradleyTerry(penalties=(1e9,)), range(100))
    assert np.abs(alone.weights).max() < 1e-3


def test_ridge_is_the_closed_form_and_has_no_gradient() -> None:
    """Without intercept w = (X'X + a I)^-1 X'y; with it, the gradient of the penalised loss vanishes to 1e-6."""
    vectors, ratings = rated()
    heads = fit_ratings(vectors, ratings, "ab", Regression(intercept=False, penalties=(2.5,)), range(200))
    expected = np.linalg.solve(vectors.T @ vectors + 2.5 * np.eye(6), vectors.T @ ratings)
    assert np.stack([h.weights for h in heads], 1) == pytest.approx(expected, abs=1e-9)
    assert [h.bias for h in heads] == [0.0, 0.0]
    head = fit_ratings(vectors, ratings, "ab", Regression(penalties=(2.5,)), range(200))[0]
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    residual = head(vectors) - ratings[:, 0]
    assert np.abs(scaled.T @ residual + 2.5 * head.weights * vectors.std(0)).max() < 1e-6
    assert abs(residual.sum()) < 1e-6


def test_missing_ratings_are_as_if_the_rows_were_not_there() -> None:
    vectors, ratings = rated()
    gaps = ratings.copy()
    gaps[::3, 0] = np.nan
    how = Regression(penalties=(1.0,), intercept=False)
    masked = fit_ratings(vectors, gaps, "ab", how, range(200))
    keep = np.arange(200) % 3 != 0
    alone = fit_ratings(vectors[keep], ratings[keep, :1], "a", how, range(keep.sum()))
    assert masked[0].weights == pytest.approx(alone[0].weights, abs=1e-9)
    assert masked[1].weights == pytest.approx(fit_ratings(vectors, ratings, "ab", how, range(200))[1].weights)


def test_scales_a_million_apart_give_the_same_fit() -> None:
    vectors, ratings = rated()
    one = fit_ratings(vectors, ratings, "ab", Regression(), range(200))
    other = fit_ratings(vectors * [1e6, 1e-6, 1, 1, 1, 1], ratings * [1e6, 1e-6], "ab", Regression(), range(200))
    assert [h.penalty for h in one] == [h.penalty for h in other]
    wide = vectors * [1e6, 1e-6, 1, 1, 1, 1]
    assert other[0](wide) / 1e6 == pytest.approx(one[0](vectors), rel=1e-6)
    assert other[1](wide) * 1e6 == pytest.approx(one[1](vectors), rel=1e-6)


def test_the_penalty_follows_the_noise_and_prompts_are_not_parted() -> None:
    """40 features, 80 ratings: clean ratings want a small penalty. Copies of a noisy row in other folds would, too."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(80, 40))
    clean = vectors @ random.normal(size=(40, 1))
    noise = random.normal(size=(80, 1)) * 10
    small = fit_ratings(vectors, clean, "a", Regression(), range(80))[0].penalty
    large = fit_ratings(vectors, noise, "a", Regression(), range(80))[0].penalty
    assert small <= 1 and large >= 100
    twice, labels = np.concatenate([vectors] * 2), np.concatenate([noise] * 2)
    parted = fit_ratings(twice, labels, "a", Regression(), range(160))[0].penalty
    whole = fit_ratings(twice, labels, "a", Regression(), [*range(80)] * 2)[0].penalty
    assert parted < whole


def bad(fit: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        fit()


def test_bad_input_is_named() -> None:
    vectors, ratings = rated(20)
    pairs = PairRows(chosen=np.arange(10), rejected=np.arange(10, 20), labels=np.ones(10))
    broken = vectors.copy()
    broken[3, 1] = np.nan
    bad(lambda: fit_pairs(broken, pairs, BradleyTerry(), range(10)), DataError, "1 of 20 texts hold NaN .* row 3")
    bad(lambda: fit_ratings(broken, ratings, "ab", Regression(), range(20)), DataError, "row 3. Remove these texts")
    same = np.ones((20, 3))
    bad(lambda: fit_pairs(same, pairs, BradleyTerry(), range(10)), DataError, "all 20 texts have the same vector")
    ratings[:, 1] = np.nan
    bad(lambda: fit_ratings(vectors, ratings, "ab", Regression(), range(20)), DataError, "'b' is never rated. Drop it")
    ratings[:, 1] = np.inf
    bad(lambda: fit_ratings(vectors, ratings, "ab", Regression(), range(20)), DataError, "'b' has infinite ratings")
    none = pairs.select(np.zeros(0, int))
    bad(lambda: fit_pairs(vectors, none, BradleyTerry(), []), DataError, "'reward' has no pairs to learn from")


def test_data_that_say_little_are_warned_of() -> None:
    vectors, ratings = rated(20)
    ratings[:, 1] = 3.0
    with pytest.warns(NumericsWarning, match="all 20 ratings of 'b' are 3: its reward is constant"):
        heads = fit_ratings(vectors, ratings, "ab", Regression(), range(20))
    assert np.abs(heads[1].weights).max() < 1e-12 and heads[1].bias == pytest.approx(3.0)
    one = PairRows(chosen=np.array([0]), rejected=np.array([1]), labels=np.ones(1))
    with pytest.warns(NumericsWarning, match="come from 1 prompts, too few to choose a penalty; it is 100"):
        head = fit_pairs(vectors, one, BradleyTerry(), [0])
    assert head(vectors)[0] > head(vectors)[1]
    ties = PairRows(chosen=np.arange(10), rejected=np.arange(10, 20), labels=np.full(10, 0.5))
    with pytest.warns(NumericsWarning, match="all 10 labels of 'reward' are 0.5: its reward is constant"):
        head = fit_pairs(vectors, ties, BradleyTerry(penalties=(1.0,)), range(10))
    assert np.ptp(head(vectors)) < 1e-5


def test_a_feature_that_does_not_vary_takes_no_part() -> None:
    vectors, ratings = rated()
    padded = np.concatenate([vectors, np.full((200, 1), 7.0)], axis=1)
    head = fit_ratings(padded, ratings, "ab", Regression(), range(200))[0]
    assert head.weights[-1] == 0 and np.isfinite(head.weights).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalties": ()}, "penalties must be one or more"),
        ({"penalties": (-1.0,)}, "penalties must be one or more"),
        ({"margin_scale": -1.0}, "margin_scale must be finite and >= 0"),
        ({"label_smoothing": 0.5}, "label_smoothing must be in"),
        ({"label_smoothing": 0.1, "flip_rate": 0.1}, "contradict each other"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        BradleyTerry(**settings)


def test_a_head_is_a_line() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Head(np.array([2.0, -1.0]), 0.5, 1.0)(np.array([[1, 1], [0, 2]], np.float32)).tolist() == [1.5, -1.5]
