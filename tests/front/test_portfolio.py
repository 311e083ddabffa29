"""Which few policies serve many users."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from moalign.errors import DefinitionError
from moalign.front import portfolio
from tests.front.test_front import make_front

# policy 0 pleases users 0-2, policy 1 user 3, policy 2 everybody a little
TABLE = np.array([[3.0, 3, 3, 0], [0, 0, 0, 2], [1, 1, 1, 1.5]])


def test_the_mean_and_the_worst_choose_differently() -> None:
    """One policy: 0 has mean 2.25, 2 has 1.125 but a minimum of 1. Two: 0 and 1 give 3, 3, 3, 2."""
    assert portfolio(TABLE, 1).chosen == (0,) and portfolio(TABLE, 1, goal="worst").chosen == (2,)
    both = portfolio(TABLE, 2)
    assert both.chosen == (0, 1) and both.utilities.tolist() == [3, 3, 3, 2] and both.assigned.tolist() == [0, 0, 0, 1]
    assert both.mean == 2.75 and both.regret == 0 and both.shares == {0: 0.75, 1: 0.25} and both.exact


def test_floors_protect_groups() -> None:
    """Group b is user 3 alone. A floor of 1 for b excludes policy 0 alone; a floor nobody meets costs least."""
    groups = ["a", "a", "a", "b"]
    found = portfolio(TABLE, 1, groups=groups, floors={"b": 1.0})
    assert found.chosen == (2,) and found.groups == {"a": 1.0, "b": 1.5}
    assert portfolio(TABLE, 1, groups=groups, floors=1.0).chosen == (2,)
    assert portfolio(TABLE, 1, groups=groups, floors={"b": 9.0}).chosen == (1,)
    assert portfolio(TABLE, 1, groups=groups, goal="worst").chosen == (2,)
    assert portfolio(TABLE, 1, user_weights=[0, 0, 0, 1]).chosen == (1,)


def test_large_choices_are_greedy_with_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy takes the all-rounder first, which an exchange then gives back: users (2,2 | 2,2) of two specialists."""
    table = np.array([[2.0, 2, 0, 0], [0, 0, 2, 2], [1.5, 1, 1.5, 1]])
    monkeypatch.setattr("moalign.front.portfolios.MOST_SUBSETS", 1)
    found = portfolio(table, 2)
    assert sorted(found.chosen) == [0, 1] and not found.exact
    generator = np.random.default_rng(0)
    for _ in range(10):
        random = generator.random((12, 30))
        best = max(random[list(s)].max(0).mean() for s in itertools.combinations(range(12), 3))
        lowest = random.mean(1).min()
        found = portfolio(random, 3)
        assert found.mean - lowest >= (1 - 1 / np.e) * (best - lowest)
        assert found.mean <= best + 1e-12
        assert portfolio(random, 3, goal="worst").utilities.min() >= random.min(1).max()


def test_more_policies_never_serve_worse() -> None:
    table = np.random.default_rng(1).random((7, 20))
    means = [portfolio(table, k).mean for k in range(1, 8)]
    assert means == sorted(means) and portfolio(table, 7).regret == pytest.approx(0)


def test_a_front_serves_users_by_their_weights() -> None:
    """Trials 4, 2, 7 lie at (1,3), (2,2), (3,1); the first is outside the limits, so users of either end share two."""
    front = make_front(feasible=(False, True, True, True))
    found = front.portfolio([[1, 0], [0, 1]], 2)
    assert found.chosen == (1, 2) and found.assigned.tolist() == [2, 1]
    with pytest.raises(DefinitionError, match="sums to 2"):
        front.portfolio([[1, 1]], 1)
    with pytest.raises(DefinitionError, match="one weight for each"):
        front.portfolio([[1, 0, 0]], 1)


def test_what_cannot_be_meant_is_refused() -> None:
    for k in (0, 4):
        with pytest.raises(DefinitionError, match="k must be from 1 to the number of policies, 3"):
            portfolio(TABLE, k)
    with pytest.raises(DefinitionError, match="name the group of every user"):
        portfolio(TABLE, 1, floors=1.0)
    with pytest.raises(DefinitionError, match=r"floors name \['c'\]"):
        portfolio(TABLE, 1, groups=list("aabb"), floors={"c": 1.0})
    with pytest.raises(DefinitionError, match="each of the 4 users, got 1"):
        portfolio(TABLE, 1, groups=["a"])
