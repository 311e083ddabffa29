"""The scale of a reward in log-odds, and rewards that are measured against a policy's own samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moalign as ma
from moalign.data import PreferencePairs
from moalign.errors import RewardError
from moalign.rewards import (
    Aggregate,
    AllOf,
    LogSigmoid,
    References,
    Standardize,
    WinRate,
    label_scale,
    reference_responses,
    references,
    standardize,
)
from tests.tiny import HELD_OUT, PROMPTS, save_model, shortness, tiny_study, vowels


def number(prompts, responses):
    return [float(response) for response in responses]


def labelled(differences, labels, **columns):
    count = len(differences)
    return PreferencePairs(
        prompts=tuple(f"p{i}" for i in range(count)), chosen=tuple(map(str, differences)), rejected=("0",) * count,
        labels=np.array(labels), **columns,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3).filter(lambda d: abs(d) > 0.01), min_size=2, max_size=8), st.floats(0.05, 4))
def test_labels_that_follow_the_model_give_back_its_scale(differences, scale):
    """With labels sigmoid(s d) the likelihood is greatest at s, whatever the differences."""
    labels = 1 / (1 + np.exp(-scale * np.array(differences)))
    assert label_scale(number, labelled(differences, labels)) == pytest.approx(scale, rel=1e-6)


def test_one_vote_in_four_against_a_difference_of_one_is_log_three():
    """P = 3/4 = sigmoid(log 3); a weight of 3 is the same as three pairs."""
    votes = labelled([1, 1.0, 1.00, 1.000], [1, 1, 1, 0])
    assert label_scale(number, votes) == pytest.approx(np.log(3))
    weighted = labelled([1, 1.0], [1, 0], weight=np.array([3.0, 1.0]))
    assert label_scale(number, weighted) == pytest.approx(np.log(3))
    unit = Standardize(number, mean=5, scale=2)
    assert label_scale(unit, votes) == pytest.approx(2 * np.log(3)), "a larger unit is worth more"


def test_rewards_without_a_scale_are_refused():
    for differences, labels, message in (
        ([1, 2], [0, 0], "higher for the reply that was not preferred.*write negate"),
        ([1, -1], [0.5, 0.5], "scale is not positive"),
        ([1, 2], [1, 1], "explains .nearly. all of 2 labels"),
        ([0, 0.0], [1, 0], "same value for both replies of every pair"),
    ):
        with pytest.raises(RewardError, match=message):
            label_scale(number, labelled(differences, labels))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return ma.Policy(str(save_model(tmp_path_factory.mktemp("model"))))


def test_reference_responses_are_one_prompt_per_response_and_repeat_with_the_seed(policy):
    prompts, responses = reference_responses(policy, [*PROMPTS, PROMPTS[0]], samples=8, max_new_tokens=6)
    assert prompts == [p for p in PROMPTS for _ in range(8)] and len(responses) == len(prompts)
    assert reference_responses(policy, PROMPTS, samples=8, max_new_tokens=6) == (prompts, responses)
    assert reference_responses(policy, PROMPTS, samples=8, max_new_tokens=6, seed=1)[1] != responses
    found = references(vowels, prompts, responses)
    assert isinstance(found, References) and found.fewest == 8
    own = WinRate(vowels, found)(prompts, responses).reshape(len(PROMPTS), 8)
    assert own.mean(axis=1) == pytest.approx([0.5] * len(PROMPTS))


@pytest.mark.slow
def test_a_study_on_transformed_and_combined_rewards_runs_and_knows_their_statistics(policy):
    """The study's own scores are the transform's, and other statistics make another study."""
    everything = reference_responses(policy, [*PROMPTS, *HELD_OUT], samples=8, max_new_tokens=8)
    log_sigmoids = [LogSigmoid(reward, references(reward, *everything)) for reward in (vowels, shortness)]
    both = Aggregate(log_sigmoids, AllOf())
    model = policy.folder()
    study = tiny_study(model, rewards=(both, standardize(vowels, *everything)), steps=2)
    front = ma.run(study)
    assert all(point.values[0] <= 0 for point in front), "log-probabilities"
    other = Aggregate([log_sigmoids[0], LogSigmoid(shortness, references(shortness, *everything), 0.5)], AllOf())
    changed = tiny_study(model, rewards=(other, study.problem.objectives[1].reward), steps=2)
    from moalign.store import describe

    assert describe(study.problem) != describe(changed.problem)
    assert describe(study.problem) == describe(
        tiny_study(model, rewards=(both, changed.problem.objectives[1].reward)).problem
    )
