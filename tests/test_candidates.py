"""Candidates are drawn and scored once, kept by content, and asked any number of times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import moalign as ma
from moalign.errors import DefinitionError
from tests.tiny import PROMPTS, save_model, shortness, vowels

calls = {"spaces": 0}


def spaces(prompts: list[str], responses: list[str]) -> list[float]:
    """Returns how many spaces each response has."""
    calls["spaces"] += len(responses)
    return [float(r.count(" ")) for r in responses]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("candidates") / "model")


def problem(model: Path) -> ma.Problem:
    objectives = (ma.Objective("vowels", reward=vowels), ma.Objective("spaces", reward=spaces))
    return ma.Problem(policy=ma.Policy(str(model)), objectives=objectives, prompts=PROMPTS[:2])


def test_candidates_are_scored_texts_that_the_oracle_takes(model: Path) -> None:
    found = problem(model).candidates(samples=12, max_new_tokens=6, judges={"short": shortness})
    assert found.rewards.shape == (2, 12, 2) and found.judged.shape == (2, 12, 1)
    for p in range(2):
        assert found.rewards[p, :, 0].tolist() == vowels([], found.responses[p])
        assert found.judged[p, :, 0].tolist() == [-float(len(r)) for r in found.responses[p]]
    best = found.oracle(ma.grid(2, 2), 0.5)
    assert best.values is not None and best.values.shape == (3, 1) and best.candidate_limited is not None
    plain = found.oracle(ma.grid(2, 2), 0.5, corrected=False)
    assert float(plain.rewards[0, 0]) > found.rewards[..., 0].mean()  # the optimum for vowels has more of them
    assert repr(found) == "<CandidateSet 2 prompts x 12 responses, vowels, spaces, judged by short>"


def test_the_store_keeps_samples_and_rewards(model: Path, tmp_path: Path) -> None:
    first = problem(model).candidates(samples=4, max_new_tokens=5, store=tmp_path)
    before = calls["spaces"]
    again = problem(model).candidates(samples=4, max_new_tokens=5, store=tmp_path)
    assert calls["spaces"] == before and again.responses == first.responses
    np.testing.assert_array_equal(again.rewards, first.rewards)
    other = problem(model).candidates(samples=4, max_new_tokens=5, store=tmp_path, seed=1)
    assert other.responses != first.responses and calls["spaces"] == before + 8


def test_what_cannot_be_meant_is_refused(model: Path) -> None:
    with pytest.raises(DefinitionError, match="name of an objective"):
        problem(model).candidates(judges={"vowels": shortness})
    bare = ma.Problem(policy=ma.Policy(str(model)), objectives=(ma.Objective("vowels", reward=vowels),))
    with pytest.raises(DefinitionError, match="need prompts"):
        bare.candidates()
