"""Simulated annotations follow the distributions they claim; tolerances are four standard errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest

from moalign.data import toy
from moalign.errors import DefinitionError

PROMPTS = toy.split(0).train[:10]
LOG_BASE = np.stack([toy.grammar_log_probs(prompt) for prompt in PROMPTS])
SCALES = np.array([1.2, 6.5, 0.7])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def differences(pairs: toy.ToyPairs | toy.AnnotatorPairs) -> np.ndarray:
    """Returns the standardised reward differences by scoring the texts [pairs, objectives]."""
    table = [
        np.array(reward(pairs.prompts, pairs.chosen)) - np.array(reward(pairs.prompts, pairs.rejected))
        for reward in toy.rewards().values()
    ]
    return np.stack(table, axis=1) / SCALES


def assert_same(a: object, b: object) -> None:
    for field in fields(a):  # type: ignore[arg-type]
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_pairs_are_balanced_and_consistent() -> None:
    pairs = toy.preference_pairs(PROMPTS, 203, log_base=LOG_BASE, scales=SCALES, seed=1)
    assert set(Counter(pairs.prompts).values()) == {20, 21}
    assert pairs.labels.shape == (203, 3)
    assert (pairs.chosen_index != pairs.rejected_index).all()
    for i, p in enumerate(pairs.prompt_index):
        replies = toy.enumerate_responses(PROMPTS[p])
        assert pairs.prompts[i] == PROMPTS[p]
        assert pairs.chosen[i] == replies[pairs.chosen_index[i]]
        assert pairs.rejected[i] == replies[pairs.rejected_index[i]]


def test_pairs_depend_on_the_seed_alone() -> None:
    first, again, other = (
        toy.preference_pairs(PROMPTS, 50, log_base=LOG_BASE + shift, scales=SCALES, seed=seed)
        for seed, shift in ((1, 0.0), (1, 7.0), (2, 0.0))
    )
    assert_same(first, again)
    assert first.chosen != other.chosen


def test_labels_are_shares_of_votes() -> None:
    pairs = toy.preference_pairs(PROMPTS, 500, log_base=LOG_BASE, scales=SCALES, votes=5)
    assert set(np.unique((pairs.labels * 5).round(9))) == {0, 1, 2, 3, 4, 5}
    hard = toy.preference_pairs(PROMPTS, 100, log_base=LOG_BASE, scales=SCALES, votes=1)
    assert set(np.unique(hard.labels)) == {0, 1}


def test_labels_follow_bradley_terry() -> None:
    """Within pairs of equal politeness difference d the mean label is sigma(2 d / .7), up to sqrt(.25 / (5 n))."""
    pairs = toy.preference_pairs(PROMPTS, 20_000, log_base=LOG_BASE, scales=SCALES, votes=5, label_scale=2.0)
    gaps = differences(pairs)
    for d in np.unique(gaps[:, 2]):
        rows = gaps[:, 2] == d
        assert pairs.labels[rows, 2].mean() == pytest.approx(sigmoid(2 * d), abs=4 * np.sqrt(0.05 / rows.sum()))
    error = pairs.labels - sigmoid(2 * gaps)
    assert abs(error.mean(axis=0)).max() < 4 * np.sqrt(0.05 / 20_000)
    assert abs((error * gaps).mean(axis=0)).max() < 4 * np.sqrt(0.05 * (gaps**2).mean() / 20_000) * 1.5


def test_an_unreliable_scale_gives_coin_flips() -> None:
    pairs = toy.preference_pairs(PROMPTS, 20_000, log_base=LOG_BASE, scales=SCALES, votes=1, label_scale=1e-9)
    assert pairs.labels.mean(axis=0) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(20_000))


def test_replies_are_drawn_from_the_base() -> None:
    """Independent draws given that they differ: P(first = i) = p_i (1 - p_i) / (1 - sum p^2).

    With p = (.7, .2, .1): (.21, .16, .09) / .46.
    """
    base = np.full((1, 256), -700.0)
    base[0, [3, 40, 200]] = np.log([0.7, 0.2, 0.1])
    pairs = toy.preference_pairs(PROMPTS[:1], 20_000, log_base=base, scales=SCALES)
    expected = np.array([0.21, 0.16, 0.09]) / 0.46
    for index in (pairs.chosen_index, pairs.rejected_index):
        shares = [(index == i).mean() for i in (3, 40, 200)]
        assert shares == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(20_000))


def test_each_prompt_has_its_own_base() -> None:
    base = np.full((2, 256), -700.0)
    base[0, [0, 1]] = base[1, [254, 255]] = 0.0
    pairs = toy.preference_pairs(PROMPTS[:2], 100, log_base=base, scales=SCALES)
    assert set(pairs.chosen_index[pairs.prompt_index == 0]) == {0, 1}
    assert set(pairs.chosen_index[pairs.prompt_index == 1]) == {254, 255}


def test_all_problems_are_listed() -> None:
    with pytest.raises(DefinitionError) as caught:
        toy.preference_pairs(PROMPTS, 0, log_base=LOG_BASE, scales=[1, 0, 1], votes=0, label_scale=-1.0)
    text = str(caught.value)
    assert all(word in text for word in ("n must", "votes must", "label_scale must", "scales must"))


def test_a_base_that_knows_one_reply_only_is_refused() -> None:
    base = np.full((1, 256), -700.0)
    base[0, 0] = 0.0
    with pytest.raises(DefinitionError, match="nearly all mass on one reply"):
        toy.preference_pairs(PROMPTS[:1], 5, log_base=base, scales=SCALES)
    with pytest.raises(DefinitionError, match="one row of 256"):
        toy.preference_pairs(PROMPTS[:2], 5, log_base=base, scales=SCALES)


def test_66_annotators_in_three_unequal_groups() -> None:
    people = toy.annotators()
    assert Counter(p.group for p in people) == {"thorough": 36, "hurried": 20, "courteous": 10}
    assert len({p.user for p in people}) == 66
    weights = np.array([p.weights for p in people])
    assert (weights >= 0).all() and weights.sum(axis=1) == pytest.approx(np.ones(66))
    favourite = {"thorough": 0, "hurried": 1, "courteous": 2}
    for group, k in favourite.items():
        members = weights[[p.group == group for p in people]]
        assert members.mean(axis=0).argmax() == k
        assert 0 < members.std(axis=0).max() < 0.2  # people of a group are alike, not equal
    assert len({p.group for p in people[:20]}) > 1  # names do not give the group away


@pytest.mark.parametrize("n", [6, 7, 61, 100])
def test_no_group_is_empty(n: int) -> None:
    people = toy.annotators(n, seed=n)
    assert len(people) == n and len({p.group for p in people}) == 3
    assert people == toy.annotators(n, seed=n) != toy.annotators(n, seed=n + 1)


def test_too_few_annotators_are_refused() -> None:
    with pytest.raises(DefinitionError, match="at least 6"):
        toy.annotators(5)


def test_annotator_pairs_carry_who_judged() -> None:
    people = toy.annotators()
    pairs = toy.annotator_pairs(PROMPTS, 200, people=people, log_base=LOG_BASE, scales=SCALES, seed=3)
    assert set(Counter(pairs.user).values()) == {3, 4}
    group = {p.user: p.group for p in people}
    assert [group[user] for user in pairs.user] == list(pairs.group)
    for i, p in enumerate(pairs.prompt_index):
        assert pairs.chosen[i] == toy.enumerate_responses(PROMPTS[p])[pairs.chosen_index[i]] != pairs.rejected[i]
    assert_same(pairs, toy.annotator_pairs(PROMPTS, 200, people=people, log_base=LOG_BASE, scales=SCALES, seed=3))


def test_a_decided_annotator_always_prefers_the_higher_utility() -> None:
    people = toy.annotators(seed=4)
    pairs = toy.annotator_pairs(
        PROMPTS, 2_000, people=people, log_base=LOG_BASE, scales=SCALES, label_scale=1e9, seed=5
    )
    weights = {p.user: np.array(p.weights) for p in people}
    utility = np.array([weights[user] @ gap for user, gap in zip(pairs.user, differences(pairs), strict=True)])
    assert utility.min() > -1e-8


def test_annotators_vote_by_bradley_terry() -> None:
    """Per row, P(chosen is the better reply) = sigma(2 |u|): the summed surprise is within four standard errors."""
    people = toy.annotators(seed=4)
    pairs = toy.annotator_pairs(PROMPTS, 20_000, people=people, log_base=LOG_BASE, scales=SCALES, seed=6)
    weights = {p.user: np.array(p.weights) for p in people}
    utility = np.array([weights[user] @ gap for user, gap in zip(pairs.user, differences(pairs), strict=True)])
    expected = sigmoid(2 * np.abs(utility))
    error = (utility > 0) - expected
    assert abs(error[utility != 0].sum()) < 4 * np.sqrt((expected * (1 - expected)).sum())


def test_nobody_to_ask_is_refused() -> None:
    with pytest.raises(DefinitionError, match="people is empty"):
        toy.annotator_pairs(PROMPTS, 5, people=(), log_base=LOG_BASE, scales=SCALES)
