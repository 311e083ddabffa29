"""Transforms that compare with the reference policy, and the fits, penalties and ranks beside them."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import PreferencePairs
from moalign.errors import DefinitionError, NumericsWarning, RewardError
from moalign.problem import Objective
from moalign.rewards import (
    Aggregate,
    AllOf,
    Centre,
    Clip,
    ImplicitReward,
    LengthPenalty,
    Linear,
    LogSigmoid,
    Quantile,
    References,
    Standardize,
    WinRate,
    character_count,
    quantiles,
    references,
    standardize,
    word_count,
)
from moalign.store import describe, fingerprint

EIGHT = [-1.2, -0.4, 0.1, 0.3, 0.9, 1.6, 2.0, 2.4]  # the worked example of the specification


def number(prompts, responses):
    """A reward that is written in the response."""
    return [float(response) for response in responses]


@dataclass(frozen=True)
class Shifted:
    by: float

    def __call__(self, prompts, responses):
        return [float(response) + self.by for response in responses]


def measured(reward=number, samples=EIGHT, prompts=("x",)):
    return references(reward, [p for p in prompts for _ in samples], [str(v) for _ in prompts for v in samples])


def few(build):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        return build()


@pytest.mark.parametrize(
    ("quantile", "reference", "expected"),
    [(0.5, 0.60, (-1.9530, -0.5544, -0.1530)), (0.85, 1.98, (-3.2207, -1.3724, -0.5050))],
)
def test_the_worked_example(quantile, reference, expected):
    transform = LogSigmoid(number, measured(), quantile)
    assert transform.references.values(quantile) == pytest.approx({"x": reference})
    assert transform(["x"] * 3, ["-1.2", "0.9", "2.4"]) == pytest.approx(expected, abs=5e-5)


def test_the_mean_and_a_fixed_answer_are_references_too():
    """Mean of the eight: 5.7 / 8 = 0.7125. One canned answer per prompt has the mean of itself, without a warning."""
    assert Centre(number, measured())(["x"], ["1"]) == pytest.approx([1 - 0.7125])
    canned = references(number, ["x", "y"], ["2", "-1"])
    assert repr(canned) == "<References 2 prompts, 1 responses each>"
    assert LogSigmoid(number, canned, quantile=None)(["y", "x"], ["-1", "2"]) == pytest.approx([-math.log(2)] * 2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=8, max_size=12), st.integers(-50, 50), st.floats(0, 1))
def test_a_constant_added_to_a_prompt_changes_nothing_and_the_order_is_kept(values, shift, quantile):
    """Bradley-Terry scores are known up to a constant per prompt; the reference takes it out."""
    texts = [str(v) for v in values]
    plain = LogSigmoid(number, measured(samples=values), quantile)(["x"] * len(texts), texts)
    moved = LogSigmoid(Shifted(shift), measured(Shifted(shift), values), quantile)(["x"] * len(texts), texts)
    assert moved == pytest.approx(plain, abs=1e-9)
    assert (np.argsort(values, kind="stable") == np.argsort(plain, kind="stable")).all()


def test_limits_far_above_and_far_below_the_reference():
    """Below: u -> scale * z, the plain reward. Above: u -> 0, no more to gain."""
    transform = LogSigmoid(number, measured(samples=[0] * 8), scale=2)
    assert transform(["x"] * 3, ["-400", "400", "0"]) == pytest.approx([-800, 0, -math.log(2)])


def test_the_sum_of_log_sigmoids_prefers_the_balanced_response():
    """Rewards (3, -3) and (0, 0) have the same sum; log AND is -3.0972 against -1.3863."""
    flat = References(("x",), (np.zeros(8),))
    both = Aggregate([LogSigmoid(number, flat), LogSigmoid(_negated, flat)], AllOf())
    assert both(["x", "x"], ["3", "0"]) == pytest.approx([-3.0972, -1.3863], abs=5e-5)


def test_a_win_rate_is_half_on_average_over_the_reference_responses():
    """Of 1, 2, 2, 5: 2 beats one and ties with two (itself included), (1 + 2 / 2) / 4 = 1/2; 9 beats all, 0 none."""
    transform = WinRate(number, measured(samples=[1, 2, 2, 5]))
    assert transform(["x"] * 4, ["2", "9", "0", "3"]).tolist() == [0.5, 1, 0, 0.75]
    assert transform(["x"] * 4, ["1", "2", "2", "5"]).mean() == 0.5
    borda = Aggregate([transform, WinRate(_negated, measured(_negated, [1, 2, 2, 5]))], Linear([0.5, 0.5]))
    assert borda(["x"] * 2, ["9", "2"]).tolist() == [0.5, 0.5], "two groups that want opposite things"


def test_prompts_without_references_are_refused_or_fall_back():
    transform = Centre(number, measured(prompts=("x", "y")))
    with pytest.raises(
        RewardError, match="no reference responses for 2 prompts, the first being 'z'.*or give fallback="
    ):
        transform(["x", "z", "q", "z"], ["1"] * 4)
    assert Centre(number, measured(), fallback=1.0)(["x", "z"], ["1", "1"]) == pytest.approx([0.2875, 0])
    with pytest.raises(RewardError, match="no reference responses for 1 prompts, the first being 'z'"):
        WinRate(number, measured())(["z"], ["1"])


def test_references_of_another_reward_are_refused():
    """A silent bias otherwise: the same class with another constant is another reward."""
    found = measured(Shifted(0))
    LogSigmoid(Shifted(0), found)
    for build in (LogSigmoid, Centre, WinRate):
        with pytest.raises(DefinitionError, match="measured with another reward"):
            build(Shifted(1), found)
    unknown = measured(lambda p, r: [float(v) for v in r])
    assert unknown.reward is None
    LogSigmoid(number, unknown)


def test_the_quantile_of_few_samples_is_warned_about():
    one = measured(samples=[2])
    with pytest.warns(NumericsWarning, match="the 0.85 quantile of 1 reference responses is mostly chance"):
        transform = LogSigmoid(number, one)
    assert transform(["x"], ["2"]) == pytest.approx([-math.log(2)]), "the quantile of one sample is that sample"


def test_statistics_are_in_the_fingerprint_and_batches_are_not():
    made = [
        LogSigmoid(number, measured()),
        LogSigmoid(number, measured(), 0.5),
        LogSigmoid(number, measured(), None),
        LogSigmoid(number, measured(samples=[*EIGHT[:7], 2.5])),
        LogSigmoid(number, measured(prompts=("y",))),
        Centre(number, measured()),
        Quantile(number, np.array(EIGHT)),
        Quantile(number, np.array(EIGHT) + 1),
        LengthPenalty(number),
        LengthPenalty(number, free=99),
    ]
    descriptions = [json.dumps(describe(transform), sort_keys=True) for transform in made]
    assert len(set(descriptions)) == len(made)
    before = fingerprint(describe(made[0]))
    made[0](["x"] * 2, ["1", "5"])
    assert fingerprint(describe(LogSigmoid(number, measured()))) == before == fingerprint(describe(made[0]))
    assert made[0](["x", "x"], ["1", "5"])[0] == made[0](["x"], ["1"])[0]
    assert len(max(descriptions, key=len)) < 1200, "numbers and prompts are hashed, not listed"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: References((), ()), "one array per prompt is needed, got 0 for 0"),
        (lambda: References(("a", "a"), (np.ones(1), np.ones(1))), "must differ"),
        (lambda: References(("a",), (np.array([math.nan]),)), "'a' needs one or more finite rewards, got .nan."),
        (lambda: References(("a",), (np.zeros(0),)), "needs one or more finite rewards"),
        (lambda: references(number, [], []), "at least one response per prompt"),
        (lambda: LogSigmoid(number, {"x": 1.0}), "references must be References, got dict"),
        (lambda: LogSigmoid(number, measured(), 1.2), r"quantile must be in \[0, 1\], got 1.2"),
        (lambda: LogSigmoid(number, measured(), scale=0), "scale must be finite and > 0, got 0"),
        (lambda: Centre(number, measured(), fallback=math.inf), "fallback must be finite"),
        (lambda: Quantile(number, [1.0]), "at least 2 different finite rewards, got 1"),
        (lambda: Quantile(number, [2.0, 2.0]), "at least 2 different finite rewards, got 2"),
        (lambda: Quantile(number, [1.0, math.nan]), "finite rewards"),
        (lambda: LengthPenalty(number, per_unit=-1), "per_unit must be finite and > 0, got -1"),
        (lambda: LengthPenalty(number, free=math.nan), "free must be finite and >= 0"),
        (lambda: LengthPenalty(ImplicitReward()), "LengthPenalty: an ImplicitReward is learned inside a study"),
        (lambda: quantiles(number, ["x"], ["1"]), "quantiles needs at least 2 responses, got 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(build, message):
    with pytest.raises(DefinitionError, match=message):
        few(build)


def test_a_constant_reward_has_no_quantiles():
    with pytest.raises(RewardError, match="is 1 for all 2 responses, so it has no scale"):
        quantiles(number, ["x", "x"], ["1", "1"])


def test_quantiles_of_a_fixed_sample():
    """Sample 1, 2, 2, 4: below 2 lies one and two are equal, (1 + 2 / 2) / 4 = 1/2; 3 has three below."""
    transform = quantiles(number, ["x"] * 4, ["4", "2", "1", "2"])
    assert transform(["x"] * 5, ["2", "3", "0", "4", "9"]).tolist() == [0.5, 0.75, 0, 0.875, 1]


def test_the_length_penalty_begins_after_the_free_length():
    """Three words over the two that are free cost 0.5 each."""
    transform = LengthPenalty(character_count, per_unit=0.5, free=2, length=word_count)
    assert transform(["p"] * 2, ["a b", "a b c d e"]).tolist() == [3, 9 - 1.5]


def test_a_transformed_objective_is_an_objective():
    plain = Objective("n", reward=number)
    assert plain.transformed(lambda r: Clip(r, 0, 1)).reward(["x"], ["7"]).tolist() == [1]
    pairs = PreferencePairs(prompts=("p", "q"), chosen=("1", "2"), rejected=("0", "1"), labels=np.ones(2))
    given = Objective("n", reward=number, pairs=pairs, label_scale=0.5)
    scaled = given.transformed(lambda r: standardize(r, ["x"] * 2, ["0", "8"]))
    assert isinstance(scaled.reward, Standardize) and scaled.pairs is pairs
    assert scaled.label_scale == 0.5 * 4, "one unit of the standardised reward is four of the old ones"
    assert given.transformed(lambda r: Centre(r, measured())).label_scale == 0.5
    with pytest.raises(
        DefinitionError, match="objective 'n' has preference pairs.*Measure them with moalign.rewards.label_scale"
    ):
        given.transformed(lambda r: LogSigmoid(r, measured()))
    assert given.transformed(lambda r: LogSigmoid(r, measured()), label_scale=2).label_scale == 2
    with pytest.raises(DefinitionError, match="ImplicitReward is learned inside a study"):
        Objective("n", pairs=pairs).transformed(lambda r: Clip(r, 0, 1))


def _negated(prompts, responses):
    return [-float(response) for response in responses]
