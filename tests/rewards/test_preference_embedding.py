"""The general preference model: exact antisymmetry, the 3-cycle that no reward can have, and what it reduces to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moalign.errors import DataError, DataWarning, DefinitionError
from moalign.rewards import Mixture, PreferenceEmbedding, intransitivity
from moalign.rewards.preference_embedding import skew_scores

HANDS = ["rock", "scissors", "paper"]
CYCLE = [{"user": "u", "chosen": HANDS[i], "rejected": HANDS[(i + 1) % 3]} for i in range(3)]
CODE = dict(zip(HANDS, np.eye(3), strict=True))


def embed(texts: list[str]) -> Any:
    return np.stack([CODE[text] for text in texts])


def test_scores_of_three_points_on_a_circle() -> None:
    """v_i at i/3 of a turn: s(0,1) = s(1,2) = s(2,0) = sin 120 degrees; at temperature 0.1, P = 0.999827."""
    turn = 2 * np.pi * torch.arange(3, dtype=torch.float64) / 3
    v = torch.stack([turn.cos(), turn.sin()], -1)
    s = skew_scores(v, v.roll(-1, 0))
    assert s.tolist() == pytest.approx([0.8660254] * 3)
    assert (s / 0.1).sigmoid().tolist() == pytest.approx([0.999827] * 3, abs=1e-6)


def test_scores_are_skew_and_turn_with_their_blocks() -> None:
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(5, 6, generator=draw, dtype=torch.float64)
    s = skew_scores(v[:, None], v[None])
    assert torch.equal(s, -s.T) and (s.diagonal() == 0).all()
    c, d = np.cos(0.7), np.sin(0.7)
    turn = torch.block_diag(*[torch.tensor([[c, -d], [d, c]], dtype=torch.float64)] * 3)
    assert torch.allclose(skew_scores((v @ turn)[:, None], (v @ turn)[None]), s)
    assert torch.allclose(skew_scores(3 * v[:, None], 3 * v[None]), 9 * s)


def test_a_cycle_is_learned_and_no_reward_learns_it() -> None:
    fitted = PreferenceEmbedding(dim=2).fit(CYCLE, embed=embed)
    p = fitted.probabilities("", HANDS)
    assert p[0, 1] > 0.9 and p[1, 2] > 0.9 and p[2, 0] > 0.9
    assert np.array_equal(p + p.T, np.ones((3, 3)))
    assert intransitivity(fitted.margins("", HANDS)) > 0.9
    lottery = fitted.nash("", HANDS)
    assert (lottery > 0.15).all() and (lottery @ fitted.margins("", HANDS) >= -1e-6).all()
    assert np.allclose(fitted.against("", HANDS, HANDS), fitted.margins("", HANDS).mean(axis=1))
    with pytest.warns(DataWarning, match="gives every item the same reward: its users' answers contradict"):
        reward = Mixture(groups=1, lift=0, validation=0.0).fit(CYCLE * 5, embed=embed)
    assert np.abs(np.diff(reward.score([""] * 3, HANDS))).max() < 1e-6  # the best a reward can do: log-loss ln 2


def test_a_reward_is_among_the_models() -> None:
    """Five items in one order: everything is told, also pairs that were not asked about, and nothing is cyclic."""
    order = [{"chosen": str(i), "rejected": str(j)} for i in range(5) for j in range(i + 1, 5) if (i, j) != (0, 4)]
    fitted = PreferenceEmbedding(dim=2, lift=0).fit(order, embed=lambda texts: np.array([[float(t)] for t in texts]))
    p = fitted.probabilities("", [str(i) for i in range(5)])
    assert (p[np.triu_indices(5, 1)] > 0.8).all() and intransitivity(fitted.margins("", ["0", "2", "4"])) < 1e-9


def test_intransitivity_at_its_ends() -> None:
    cycle = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]], dtype=float)
    reward = np.array([3.0, 1.0, -2.0])
    assert intransitivity(cycle) == pytest.approx(1.0)
    assert intransitivity(reward[:, None] - reward) == pytest.approx(0.0, abs=1e-12)
    assert intransitivity(np.zeros((3, 3))) == 0.0


def test_what_is_refused() -> None:
    with pytest.raises(DefinitionError, match="2 problems"):
        PreferenceEmbedding(dim=3, temperature=0.0)
    with pytest.raises(DataError, match="same vector for all"):
        PreferenceEmbedding().fit(CYCLE, embed=lambda texts: np.ones((len(texts), 2)))
    fitted = PreferenceEmbedding(dim=2, steps=1).fit(CYCLE, embed=embed)
    with pytest.raises(DefinitionError, match="one response per prompt"):
        fitted.embeddings([""], HANDS)
