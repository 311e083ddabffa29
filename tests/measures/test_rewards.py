"""Proxy against held-out fronts, and distances between rewards."""

from __future__ import annotations

import numpy as np
import pytest

from moalign.errors import DefinitionError
from moalign.measures import objective_mismatch, starc
from moalign.weights import grid


def test_starc_ignores_what_no_policy_can_change() -> None:
    """Scale and per-prompt offsets are nothing, the sign is everything; a constant is at distance 1."""
    draw = np.random.default_rng(0)
    reward, other = draw.standard_normal((2, 30, 8))
    offset = 50 * draw.standard_normal((30, 1))
    distances = starc(np.stack([reward, 3 * reward + offset, -reward, np.ones_like(reward) + offset, other], axis=-1))
    assert distances[0].tolist()[:4] == pytest.approx([0, 0, 2, 1], abs=1e-7)
    assert distances[3, 3] == 0 and distances[3, 4] == pytest.approx(1)
    correlation = np.corrcoef(*((r - r.mean(1, keepdims=True)).ravel() for r in (reward, other)))[0, 1]
    assert distances[0, 4] == pytest.approx(np.sqrt(2 * (1 - correlation)))
    assert (distances == distances.T).all()
    for i in range(5):
        assert (distances <= distances[:, [i]] + distances[[i]] + 1e-9).all()
    with pytest.raises(DefinitionError, match="samples >= 2"):
        starc(np.zeros((3, 1, 2)))


def test_the_same_rewards_have_no_mismatch() -> None:
    points = np.random.default_rng(0).random((12, 2))
    found = objective_mismatch(points, points, grid(2, 4), [0, 0])
    assert found.correlation.tolist() == pytest.approx([1.0] * 5) and found.regret.tolist() == [0] * 5
    assert (found.agreement, found.false_pareto, found.hypervolume_ratio, found.few_policies) == (1, 0, 1, False)


def test_a_proxy_that_prefers_the_wrong_policy() -> None:
    """Proxy front {A = (3,1), B = (1,3)}; held out B falls to (0,0) and is dominated by C = (2,2) and A = (3,1).

    Chosen at (0,1): B, which has 0 where C has 2. Held-out volumes: A alone 3, A and C 5.
    """
    proxy = [[3, 1], [1, 3], [0.5, 0.5]]
    held_out = [[3, 1], [0, 0], [2, 2]]
    found = objective_mismatch(proxy, held_out, [[0, 1], [1, 0]], [0, 0])
    assert found.regret.tolist() == [2, 0] and found.false_pareto == 0.5
    assert found.agreement == pytest.approx(1 / 3) and found.hypervolume_ratio == pytest.approx(3 / 5)
    assert found.few_policies and found.correlation[0] < 0
    with pytest.raises(DefinitionError, match="same policies"):
        objective_mismatch(proxy, held_out[:2], [[0, 1]], [0, 0])
