"""Aggregates over seeds and tasks."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from moalign import front
from moalign.errors import DefinitionError


def test_aggregates_on_paper() -> None:
    assert front.iqm([1, 2, 3]) == 2 and front.iqm(np.arange(1, 9).reshape(4, 2)) == 4.5
    assert front.iqm([0, 1, 1, 100]) == 1
    assert front.optimality_gap([0.5, 1.5]) == 0.25
    assert front.performance_profile([0.1, 0.5, 0.5, 0.9], [0.0, 0.5, 0.9]).tolist() == [1, 0.25, 0]
    for module in ("seeds", "archive"):
        assert doctest.testmod(importlib.import_module(f"moalign.front.{module}")).failed == 0


def test_probability_of_improvement_counts_pairs() -> None:
    """Task 1: (2,3) against (1,2): wins 2>1, 3>1, 3>2, tie 2=2: 3.5 of 4. Task 2: all lose. Mean 7/16."""
    ours, theirs = [[2, 0], [3, 0]], [[1, 1], [2, 1]]
    assert front.probability_of_improvement(ours, theirs) == pytest.approx(3.5 / 8)
    assert front.probability_of_improvement(theirs, ours) == pytest.approx(1 - 3.5 / 8)
    assert front.probability_of_improvement(ours, ours) == 0.5


def test_stratified_bootstrap_covers_the_truth_and_keeps_tasks_apart() -> None:
    """Tasks at 0 and 100 with noise 1: pooled resampling would have a standard error near 16, stratified .22."""
    scores = np.random.default_rng(0).standard_normal((10, 2)) + [0, 100]
    found = front.stratified_bootstrap(scores, np.mean, replications=2000)
    assert found.low < 50 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(20), rel=0.3)
    assert found == front.stratified_bootstrap(scores, np.mean, replications=2000)
    opposed = np.array([[k, -k] for k in range(8)])  # whole runs cancel, tasks resampled apart do not
    apart = front.stratified_bootstrap(opposed, np.mean, replications=300)
    assert apart.value == 0 and apart.high > 0.5
    better = front.stratified_bootstrap((scores + 1, scores), front.probability_of_improvement, replications=300)
    assert 0.5 < better.low < better.value < better.high <= 1


def test_pairing_removes_what_seeds_share() -> None:
    shared = 10 * np.random.default_rng(1).standard_normal((12, 1))
    noise = 0.1 * np.random.default_rng(2).standard_normal((2, 12, 3))
    found = front.paired_difference(shared + noise[0] + 0.2, shared + noise[1], replications=1000)
    assert 0 < found.low < 0.2 < found.high < 0.4


def test_bad_scores_are_refused() -> None:
    for bad in ([], [np.nan]):
        with pytest.raises(DefinitionError):
            front.iqm(bad)
    with pytest.raises(DefinitionError, match="same tasks"):
        front.probability_of_improvement([[1, 2]], [[1]])
    with pytest.raises(DefinitionError, match="level"):
        front.stratified_bootstrap([1, 2], level=1.0)
