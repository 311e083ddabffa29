"""Votes over groups: the textbook profiles, the axioms, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from moalign.errors import DefinitionError, RewardError
from moalign.rewards import MajorityVote, references
from moalign.rewards.voting import borda, lottery_of_margins, majority, maximal_lottery, pairwise_margins

CYCLE = [[3, 2, 1], [1, 3, 2], [2, 1, 3]]  # a > b > c, b > c > a, c > a > b
PROFILES = st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=1, max_size=6)


def test_borda_and_majority_disagree_on_the_textbook_profile():
    """60 % rank a > b > c, 40 % b > c > a. Borda points 1.2, 1.4, 0.4 of 2 elect b; a beats both by majority."""
    utilities, shares = [[3, 2, 1], [1, 3, 2]], [0.6, 0.4]
    assert borda(utilities, shares) == pytest.approx([0.6, 0.7, 0.2])
    assert majority(utilities, shares).tolist() == [1, 0.5, 0]
    assert maximal_lottery(utilities, shares) == pytest.approx([1, 0, 0])
    margins = [[0, 0.2, 0.2], [-0.2, 0, 1], [-0.2, -1, 0]]
    assert pairwise_margins(utilities, shares).tolist() == [pytest.approx(row) for row in margins]


def test_a_cycle_has_no_winner_and_an_even_lottery():
    assert majority(CYCLE).tolist() == [0.5] * 3 and borda(CYCLE) == pytest.approx([0.5] * 3)
    assert maximal_lottery(CYCLE) == pytest.approx([1 / 3] * 3)


def test_an_uneven_cycle_is_played_like_the_game_it_is():
    """Margins a beats b by x, b beats c by y, c beats a by z: p is proportional to (y, z, x)."""
    x, y, z = 0.2, 0.4, 0.6
    lottery = lottery_of_margins([[0, x, -z], [-x, 0, y], [z, -y, 0]])
    assert lottery == pytest.approx(np.array([y, z, x]) / 1.2)


def test_only_the_order_of_utilities_counts():
    assert maximal_lottery([[1e9, 1, 0], [0, 1, 0.5], [0, 1, 0.5]]).tolist() == pytest.approx([0, 1, 0])


@settings(max_examples=50, deadline=None)
@given(PROFILES)
def test_no_alternative_beats_the_lottery_and_a_linear_programme_finds_no_better(profile):
    """The value of the symmetric game is 0: max v with p M >= v has the optimum 0, which the lottery reaches."""
    margins = pairwise_margins(profile)
    lottery = maximal_lottery(profile)
    assert lottery.sum() == pytest.approx(1) and (lottery >= 0).all()
    assert (lottery @ margins).min() >= -1e-9
    game = linprog(
        [0, 0, 0, 0, -1], A_ub=np.hstack([-margins.T, np.ones((4, 1))]), b_ub=np.zeros(4),
        A_eq=[[1, 1, 1, 1, 0]], b_eq=[1], bounds=[(0, None)] * 4 + [(None, None)],
    )  # fmt: skip
    assert game.x[4] == pytest.approx(0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(PROFILES, st.permutations(range(4)))
def test_no_rule_cares_about_the_order_of_alternatives(profile, order):
    profile = np.array(profile)
    for rule in (borda, majority, maximal_lottery):
        assert rule(profile[:, order]) == pytest.approx(rule(profile)[list(order)], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(PROFILES)
def test_a_condorcet_winner_wins_and_copies_of_people_change_nothing(profile):
    scores, lottery = majority(profile), maximal_lottery(profile)
    if scores.max() == 1:
        assert lottery[scores.argmax()] == pytest.approx(1)
    doubled = np.repeat(profile, 2, axis=0)
    assert borda(doubled) == pytest.approx(borda(profile)) and majority(doubled).tolist() == scores.tolist()


def test_leading_axes_are_free_and_one_alternative_is_elected():
    utilities = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    assert borda(utilities).shape == majority(utilities).shape == (2, 5, 4)
    assert borda(utilities)[1, 2] == pytest.approx(borda(utilities[1, 2]))
    assert borda([[7.0]]).tolist() == [0.5] and maximal_lottery([[7.0]]).tolist() == [1]


def test_thirds_that_cancel_are_ties():
    """1/3 + 1/3 - 2/3 in floats need not be 0."""
    assert majority([[1, 0], [1, 0], [0, 1]], [1 / 3, 1 / 6, 0.5]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("utilities", "shares", "message"),
    [
        (np.zeros((0, 3)), None, "got shape \\(0, 3\\)"),
        (np.zeros((2, 0)), None, "got shape \\(2, 0\\)"),
        ([1, 2], None, "must be \\[..., groups, alternatives\\]"),
        ([[1, math.nan]], None, "must be finite. Leave out groups"),
        ([[1, 2]], [0.5, 0.5], "one number per group \\(1\\)"),
        ([[1, 2], [2, 1]], [0.5, 0.6], "shares = \\(0.5, 0.6\\) sums to 1.1"),
        ([[1, 2], [2, 1]], [1.5, -0.5], "negative entry"),
    ],
)
def test_votes_that_cannot_be_counted_are_refused(utilities, shares, message):
    for rule in (borda, majority, maximal_lottery):
        with pytest.raises(DefinitionError, match=message):
            rule(utilities, shares)


def test_margins_must_be_those_of_a_vote():
    for margins, message in (([[0, 1]], "square"), ([[0, 1], [1, 0]], "skew-symmetric"), ([[math.nan]], "finite")):
        with pytest.raises(DefinitionError, match=message):
            lottery_of_margins(margins)


def test_a_majority_vote_is_a_reward():
    """Of the references 1, 2, 3 group A (60 %) wants large, group B small numbers: 2.5 wins 2 of 3, ties none."""
    prompts, texts = ["x"] * 3, ["1", "2", "3"]
    voted = MajorityVote([large, small], [references(r, prompts, texts) for r in (large, small)], [0.6, 0.4])
    assert voted(["x"] * 4, ["2.5", "2", "0", "9"]) == pytest.approx([2 / 3, 0.5, 0, 1])
    even = MajorityVote([large, small], voted.references)
    assert even(["x"] * 2, ["0", "9"]).tolist() == [0.5, 0.5]
    with pytest.raises(RewardError, match="no reference responses for 1 prompts"):
        voted(["y"], ["1"])


def test_a_majority_vote_needs_the_same_responses_for_all_groups():
    one, other = references(large, ["x"], ["1"]), references(small, ["x", "x"], ["1", "2"])
    with pytest.raises(DefinitionError, match="differ in prompts or in the number of responses"):
        MajorityVote([large, small], [one, other])
    with pytest.raises(DefinitionError, match="got 0 rewards and 0 references"):
        MajorityVote([], [])
    with pytest.raises(DefinitionError, match="measured with another reward"):
        MajorityVote([small], [one])


def large(prompts, responses):
    return [float(response) for response in responses]


def small(prompts, responses):
    return [-float(response) for response in responses]
