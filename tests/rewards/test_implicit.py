"""The marker of a reward that a study learns from pairs."""

from __future__ import annotations

import math

import pytest

from moalign.errors import DefinitionError, RewardError
from moalign.rewards import ImplicitReward


def test_it_explains_that_it_is_learned():
    with pytest.raises(RewardError, match="learned from the objective's pairs inside a study"):
        ImplicitReward()(["p"], ["r"])


def test_equal_settings_are_equal_values():
    assert ImplicitReward() == ImplicitReward(beta=0.1, learning_rate=1e-3, steps=200, rank=8, batch_size=16)
    assert ImplicitReward(beta=0.2) != ImplicitReward()


@pytest.mark.parametrize(
    "fields",
    [{"beta": 0}, {"beta": math.nan}, {"learning_rate": -1}, {"learning_rate": math.inf}, {"steps": 0}, {"rank": 1.5},
     {"batch_size": True}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(fields):
    with pytest.raises(DefinitionError, match=f"ImplicitReward: {next(iter(fields))} must be"):
        ImplicitReward(**fields)


def test_all_problems_are_listed():
    with pytest.raises(DefinitionError) as caught:
        ImplicitReward(beta=-1, steps=0, rank=0)
    assert len(caught.value.problems) == 3
