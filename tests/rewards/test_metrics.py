"""Metrics of rewards, by hand and against scipy and scikit-like formulas; intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr

from moalign.errors import DefinitionError
from moalign.rewards.metrics import (
    calibration,
    calibration_error,
    correlations,
    fit_temperature,
    pairwise_accuracy,
    r_squared,
)


def test_accuracy_by_hand() -> None:
    """Right, wrong, tie, right (label 0): 2.5 of 4; RewardBench counts the tie as wrong; a 0.5 label is left out."""
    differences, labels = [1.0, -2.0, 0.0, -1.0, 5.0], [1.0, 0.8, 1.0, 0.0, 0.5]
    assert pairwise_accuracy(differences, labels).value == 2.5 / 4
    assert pairwise_accuracy(differences, labels, ties=0.0).value == 2 / 4
    assert pairwise_accuracy([1.0, -1.0], strength=[3.0, 1.0]).value == 3 / 4
    with pytest.raises(DefinitionError, match="all labels are 0.5"):
        pairwise_accuracy([1.0, 2.0], [0.5, 0.5])


def test_the_interval_covers_the_truth_and_widens_with_clusters() -> None:
    """80 studies of 200 pairs at accuracy 0.7: about 95 % of the intervals hold 0.7."""
    random = np.random.default_rng(0)
    hit = 0
    for seed in range(80):
        found = pairwise_accuracy(np.where(random.random(200) < 0.7, 1.0, -1.0), seed=seed)
        hit += found.low <= 0.7 <= found.high
    assert 71 <= hit <= 80
    prompts = np.repeat(np.arange(40), 5)
    alike = np.where(random.random(40) < 0.7, 1.0, -1.0)[prompts]
    single, clustered = pairwise_accuracy(alike), pairwise_accuracy(alike, clusters=prompts)
    assert clustered.value == single.value
    assert clustered.high - clustered.low > 1.8 * (single.high - single.low)  # sqrt(5) = 2.2


def test_r_squared_by_hand() -> None:
    """Ratings 1, 2, 3 (and one missing): the mean has squared error 2; predictions 1, 2, 2 have 1."""
    assert r_squared([1.0, 2.0, 2.0, 9.0], [1.0, 2.0, 3.0, np.nan]).value == 0.5
    assert r_squared([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]).value == 0.0
    with pytest.raises(DefinitionError, match="ratings that differ"):
        r_squared([1.0, 2.0], [3.0, 3.0])


def test_calibration_by_hand() -> None:
    """Differences log(4) predict .8 / .2 in both orders. Three of four come true: |.8 - .75| in both bins."""
    found = calibration([np.log(4)] * 4, [1.0, 1.0, 1.0, 0.0])
    assert found.error == pytest.approx(0.05)
    assert [(round(b.confidence, 3), b.share, b.pairs) for b in found.bins] == [(0.2, 0.25, 2.0), (0.8, 0.75, 2.0)]
    assert found.log_loss == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)
    assert found.brier == pytest.approx((3 * 0.04 + 0.64) / 4)
    certain = calibration([1e4, 1e4], [1.0, 1.0])
    assert certain.error == 0 and len(certain.bins) == 2, "a probability of 1 belongs to the last bin"


def test_the_fitted_temperature_calibrates() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=4000) * 2
    labels = (random.random(4000) < expit(logits)).astype(float)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)
    over, right = calibration(3 * logits, labels), calibration(3 * logits, labels, temperature=3.0)
    assert right.error < 0.02 < 0.1 < over.error and right.log_loss < over.log_loss


def test_the_interval_of_the_calibration_error_holds_what_is_true() -> None:
    """Log-odds twice too large: the error of the population is E|p(2 z) - p(z)|. Calibrated ones: it reaches to 0."""
    random = np.random.default_rng(3)
    z, many = random.normal(size=1000), random.normal(size=200_000)
    labels = (random.random(1000) < expit(z)).astype(float)
    found, right = calibration_error(2 * z, labels), calibration_error(z, labels)
    assert found.value == pytest.approx(calibration(2 * z, labels).error)
    truth = np.abs(expit(2 * many) - expit(many)).mean()
    assert 0 < found.low < truth < found.high < found.value + 0.05
    assert right.low == 0.0 < right.value < right.high < truth
    copies = calibration_error(np.repeat(2 * z, 9), np.repeat(labels, 9), clusters=np.repeat(range(1000), 9).tolist())
    assert (copies.low, copies.high) == pytest.approx((found.low, found.high)), "copies of a prompt tell nothing new"


def test_correlations_pooled_and_within_prompts() -> None:
    """Prompt difficulty makes the objectives agree; within a prompt they are opposed."""
    random = np.random.default_rng(2)
    prompts = np.repeat(np.arange(50), 4)
    level, own = 3 * random.normal(size=50)[prompts], random.normal(size=200)
    rewards = np.stack([level + own, level - own + 0.1 * random.normal(size=200)], axis=1)
    pooled, within = correlations(rewards), correlations(rewards, prompts=prompts)
    assert pooled.matrix[0, 1] == pytest.approx(pearsonr(*rewards.T)[0])
    assert pooled.matrix[0, 1] > 0.5 and within.matrix[0, 1] < -0.9
    assert correlations(rewards, ranks=True).matrix[0, 1] == pytest.approx(spearmanr(*rewards.T)[0])


def test_the_effective_number_of_objectives() -> None:
    """Three copies are one objective; a constant one correlates with nothing; orthogonal ones all count."""
    column = np.arange(8.0)
    assert correlations(np.stack([column] * 3, axis=1)).effective == pytest.approx(1)
    still = correlations(np.stack([column, np.full(8, 0.1)], axis=1))
    assert still.matrix.tolist() == [[1, 0], [0, 1]] and still.effective == pytest.approx(2)
    far = correlations(np.stack([column * 1e6, -column * 1e-6], axis=1))
    assert far.matrix[0, 1] == pytest.approx(-1)
    with pytest.raises(DefinitionError, match="NaN or infinite values in rows 1"):
        correlations([[1.0, 2.0], [np.nan, 1.0]])
