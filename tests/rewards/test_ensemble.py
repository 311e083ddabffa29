"""Ensembles and best-of-n: formulas by hand, exact limits, the estimator against brute force, and what caution buys."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.data.ratings import Ratings
from moalign.errors import DefinitionError, RewardError
from moalign.rewards import (
    BradleyTerry,
    Embedding,
    LowerConfidenceBound,
    Regression,
    UncertaintyWeighted,
    WorstCase,
    best_of_n,
    character_count,
    ensemble,
    fit_ensemble,
    word_count,
)
from moalign.rewards.best_of_n import best_of_n_weights
from moalign.store import describe
from tests.rewards.test_reward_model import build

TEXTS = ["a", "two words", "these are three", "x y z w"]


def test_formulas_by_hand() -> None:
    """Members 1, 3: mean 2, variance 1 (not 2), deviation 1. Members 5, 5 agree: nothing is subtracted."""
    values = np.array([[1.0, 3.0], [5.0, 5.0]])
    assert UncertaintyWeighted(0.5)(values).tolist() == [1.5, 5.0]
    assert UncertaintyWeighted(0.0)(values).tolist() == [2.0, 5.0]
    assert LowerConfidenceBound(2.0)(values).tolist() == [0.0, 5.0]
    assert WorstCase()(values).tolist() == [1.0, 5.0]
    assert UncertaintyWeighted(0.5)(torch.from_numpy(values)).tolist() == [1.5, 5.0]
    for wrong in (-1.0, np.nan):
        with pytest.raises(DefinitionError, match="UncertaintyWeighted: strength must be finite and >= 0"):
            UncertaintyWeighted(wrong)


def test_members_are_brought_to_one_scale_first() -> None:
    """Letters spread a million times as far as words until both are standardised; without that they win alone."""
    prompts = [""] * 4
    far = ma.rewards.Standardize(character_count, mean=0.0, scale=1e-6)
    fair = ensemble([word_count, far], prompts, TEXTS, by=WorstCase())
    words, letters = np.array([1, 2, 3, 4.0]), np.array([1, 9, 15, 7.0])
    z = [(v - v.mean()) / v.std() for v in (words, letters)]
    assert fair(prompts, TEXTS) == pytest.approx(np.minimum(*z))
    assert ensemble([word_count, far], prompts, TEXTS)(prompts, TEXTS) == pytest.approx((z[0] + z[1]) / 2)
    raw = ensemble([word_count, character_count], prompts, TEXTS, by=WorstCase(), normalise=False)
    assert raw(prompts, TEXTS).tolist() == [1, 2, 3, 4]
    assert fair(["", ""], TEXTS[:2]) == pytest.approx(np.minimum(*z)[:2]), "the constants stay as they are"
    assert ma.Objective("careful", reward=fair).reward is fair
    assert describe(fair) != describe(ensemble([word_count, far], prompts, TEXTS, by=UncertaintyWeighted()))


def test_ensembles_that_cannot_be_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two or more members, got 1"):
        ensemble([word_count], ["", ""], TEXTS[:2])
    with pytest.raises(RewardError, match="is 1 for all 2 responses, so it has no scale"):
        ensemble([word_count, character_count], ["", ""], ["one", "other"])


def test_members_differ_by_the_prompts_they_were_fitted_on(tmp_path: Path) -> None:
    embedding = Embedding(build(tmp_path / "m", "bert"), cache=False)
    random = np.random.default_rng(0)
    texts = tuple("".join(random.choice(list("abcdef"), 5)) for _ in range(80))
    pairs = ma.PreferencePairs(
        prompts=tuple(f"p{i}" for i in range(40)), chosen=texts[:40], rejected=texts[40:],
        labels=np.array([float(a.count("a") > b.count("a")) for a, b in zip(texts[:40], texts[40:], strict=True)]),
    )  # fmt: skip
    how = BradleyTerry(penalties=(1.0,))
    members = fit_ensemble(pairs, embedding, how=how, members=3)
    again = fit_ensemble(pairs, embedding, how=how, members=3)
    assert [m.weights.tolist() for m in members] == [m.weights.tolist() for m in again]
    assert len({m.weights.round(6).tobytes() for m in members}) == 3
    careful = ensemble([m["reward"] for m in members], ["p"] * 80, texts, by=UncertaintyWeighted())
    assert np.isfinite(careful(["p"] * 3, list(texts[:3]))).all()
    table = Ratings(
        prompts=None, responses=texts, attributes=("a",), values=np.array([[float(t.count("a"))] for t in texts])
    )
    rated = fit_ensemble(table, embedding, how=Regression(penalties=(1.0,)), members=2, seed=1)
    assert np.abs(rated[0].weights - rated[1].weights).max() > 1e-3
    with pytest.raises(DefinitionError, match="two or more members, got 1"):
        fit_ensemble(pairs, embedding, members=1)


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, 7)), random.normal(size=(2, 7))
    found = best_of_n(proxy, gold, [1, 2, 3, 7])
    for k, n in enumerate((1, 2, 3, 7)):
        for prompt in range(2):
            best = [gold[prompt, max(rows, key=lambda i: proxy[prompt, i])] for rows in combinations(range(7), n)]
            assert found[prompt, k] == pytest.approx(np.mean(best))
    assert found[:, 0] == pytest.approx(gold.mean(axis=1))
    assert found[:, 3] == pytest.approx(gold[np.arange(2), proxy.argmax(axis=1)])


def test_it_is_the_oracles_best_of_n_for_one_objective() -> None:
    random = np.random.default_rng(1)
    proxy, gold = random.integers(0, 4, (3, 9)) * 1.0, random.normal(size=(3, 9))
    for n in (1, 4, 9):
        theirs = ma.oracle.best_of_n(
            torch.from_numpy(proxy)[..., None], torch.ones(1, 1), n, values=torch.from_numpy(gold)[..., None]
        )
        assert best_of_n(proxy, gold, [n]).mean() == pytest.approx(float(theirs.values[0, 0]), abs=1e-6)


def test_ties_are_broken_at_random() -> None:
    """Proxy 1, 1, 0: of both pairs with a 1 and the 0 the 1 wins; of the two ones either. Gold 4, 2, 9: mean 3."""
    assert best_of_n([[1.0, 1.0, 0.0]], [[4.0, 2.0, 9.0]], [2]).tolist() == [[3.0]]
    assert best_of_n([[0.0, 0.0]], [[1.0, 5.0]], [1, 2]).tolist() == [[3.0, 3.0]]


def test_the_weights_of_large_samples_do_not_overflow() -> None:
    weights = best_of_n_weights(12_600, 12_500)
    assert weights.sum() == pytest.approx(1, abs=1e-12) and np.isfinite(weights).all()
    assert weights[-1] == pytest.approx(12_500 / 12_600, rel=1e-6)
    assert (weights[:12_499] == 0).all() and (np.diff(weights[12_499:]) > 0).all()


def test_bad_questions_are_refused() -> None:
    for n in (0, 4, 1.5):
        with pytest.raises(DefinitionError, match="whole number in 1..3"):
            best_of_n([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], [n])  # type: ignore[list-item]
    with pytest.raises(DefinitionError, match="same responses, got"):
        best_of_n([[1.0, 2.0]], [[1.0, 2.0, 3.0]], [1])
    with pytest.raises(DefinitionError, match="proxy has NaN or infinite values in rows 0"):
        best_of_n([[np.nan, 2.0]], [[1.0, 2.0]], [1])


def test_caution_holds_where_the_mean_over_optimises() -> None:
    """Half of the responses carry noise that each member sees differently: the mean is fooled at large n.

    Gold is g. Ordinary responses score g in each member; odd ones (gold -1) get a different error of spread 6 per
    member, so that the mean of five errs with spread 2.7 while their variance of about 36 gives them away.
    """
    random = np.random.default_rng(0)
    odd = random.random((50, 1000)) < 0.5
    gold = np.where(odd, -1.0, random.normal(size=(50, 1000)))
    members = gold[..., None] + np.where(odd[..., None], 6 * random.normal(size=(50, 1000, 5)), 0.0)
    mean, careful, worst = (
        best_of_n(proxy, gold, [64, 512]).mean(axis=0)
        for proxy in (members.mean(-1), UncertaintyWeighted()(members), WorstCase()(members))
    )
    assert mean[1] < mean[0] < 2.0, "the mean over-optimises"
    assert (careful > mean + 0.5).all() and (worst > mean + 0.5).all()
