"""Aggregators and the rewards made with them: what they reach, what they refuse, and how studies recognise them."""

from __future__ import annotations

import math
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from moalign.errors import DefinitionError, ModelError, NumericsWarning, RewardError
from moalign.problem import Objective
from moalign.rewards import (
    Aggregate,
    AllOf,
    AnyOf,
    Chebyshev,
    Clip,
    GeneralisedMean,
    ImplicitReward,
    Linear,
    NashWelfare,
    OrderedMean,
    Reach,
    RewardModel,
    SmoothChebyshev,
    WorstCase,
    character_count,
    negate,
    scalarisation,
    word_count,
)
from moalign.store import describe, fingerprint

TEXTS = ["a b", "aaa", "a b c d"]
PROMPTS = ["p"] * 3
DENT = np.array([[1.0, 0.1], [0.1, 1.0], [0.5, 0.5]])  # the third lies inside the dent of a front
BULGE = np.array([[1.0, 0.1], [0.1, 1.0], [0.7, 0.7]])  # the third is on the hull
WEIGHTS = [(w, 1 - w) for w in np.linspace(0, 1, 101)]


def picks_third(points, build):
    """Whether some weights make the third point the only best one."""
    scores = [build(w)(points) for w in WEIGHTS]
    return any(score[2] > score[:2].max() for score in scores)


@pytest.mark.parametrize(
    ("build", "reach", "dent", "bulge"),
    [
        (Linear, Reach.SUPPORTED, False, True),
        (lambda w: Chebyshev(w, [2, 2]), Reach.WEAKLY_PARETO, True, True),
        (lambda w: Chebyshev(w, [2, 2], augment=0.05), Reach.PROPER, True, True),
        (lambda w: SmoothChebyshev(w, [2, 2], mu=0.01), Reach.NEARLY_ALL, True, True),
        (lambda w: SmoothChebyshev(w, [2, 2], mu=10), Reach.NEARLY_ALL, False, True),
        (lambda w: GeneralisedMean(w, 1), Reach.SUPPORTED, False, True),
        (lambda w: GeneralisedMean(w, 0), Reach.CONCAVE, True, True),
        (lambda w: GeneralisedMean(w, 8), Reach.EXTREMES, False, False),
        (lambda w: NashWelfare(w, 0), Reach.CONCAVE, True, True),
        (lambda w: AnyOf(), Reach.EXTREMES, False, True),
    ],
)
def test_the_reach_is_what_a_sweep_of_weights_finds(build, reach, dent, bulge):
    """Dent: .5 + .5 < 1 + .1, so no linear weight picks (.5, .5), while sqrt(.5 * .5) > sqrt(.1).

    Bulge: .7 + .7 > 1.1, but with p = 8 (.7, .7) scores .7 and the corners (1/2)^(1/8) = .917 at equal weights.
    """
    assert build((0.5, 0.5)).reach is reach
    shift = 3.0 if isinstance(build((0.5, 0.5)), AnyOf) else 0.0  # log-probabilities are below 0
    assert picks_third(DENT - shift, build) is dent
    assert picks_third(BULGE - shift, build) is bulge


def test_a_concave_mean_keeps_every_supported_point():
    """If R is best for linear weights w, it is best for the power p <= 1 with weights w_i R_i^(1 - p) (first order)."""
    rng = np.random.default_rng(0)
    for points, power in product(rng.uniform(0.1, 2, (5, 12, 3)), (-2.0, 0.0, 0.5)):
        w = rng.dirichlet(np.ones(3))
        best = Linear(w)(points).argmax()
        own = w * points[best] ** (1 - power)
        assert GeneralisedMean(own / own.sum(), power)(points).argmax() == best


@pytest.mark.parametrize("reach", Reach)
def test_each_reach_is_a_sentence_that_the_documentation_repeats(reach):
    assert reach.value.endswith(".") and len(reach.value) < 120
    assert reach.value in (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def test_fair_means_have_one_point_and_others_go_to_extremes():
    assert OrderedMean([0.5, 0.3, 0.2]).reach is WorstCase().reach is Reach.ONE_POINT
    assert OrderedMean([0.2, 0.8]).reach is Reach.EXTREMES
    assert GeneralisedMean([0.5, 0.5], -math.inf).reach is Reach.ONE_POINT
    assert AllOf().reach is Reach.CONCAVE


def test_named_ordered_means():
    values = np.array([3.0, 1.0, 4.0, 2.0])
    assert OrderedMean.cvar(4, 0.375)(values) == pytest.approx(4 / 3)
    assert OrderedMean.leximin(2, resolution=1, spread=5)([[1, 5], [2, 2]]).argmax() == 1, "2 at worst beats 1"
    assert OrderedMean.leximin(2, resolution=1, spread=5)([[1, 5], [1, 4]]).argmax() == 0, "then the second counts"
    with pytest.raises(DefinitionError, match="too many for double precision"):
        OrderedMean.leximin(9, resolution=1e-3, spread=10)
    for wrong in (0, 1.5, math.nan):
        with pytest.raises(DefinitionError, match=r"level must be in \(0, 1\]"):
            OrderedMean.cvar(3, wrong)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear([0.5, 0.4]), r"Linear: weights = \(0.5, 0.4\) sums to 0.9; .* Use moalign.normalize"),
        (lambda: Linear([]), "one number per objective"),
        (lambda: Linear([1.5, -0.5]), "has a negative entry"),
        (lambda: Chebyshev([0.5, 0.5], [1]), "ideal has 1 values for 2 weights"),
        (lambda: Chebyshev([0.5, 0.5], [1, math.inf]), "ideal must be finite"),
        (lambda: Chebyshev([0.5, 0.5], [1, 1], augment=-1), "augment must be finite and >= 0"),
        (lambda: SmoothChebyshev([0.5, 0.5], [1, 1], mu=0), "mu must be finite and > 0, got 0"),
        (lambda: GeneralisedMean([1.0], math.nan), "power must be a number"),
        (lambda: WorstCase(-1), "temperature must be finite and >= 0"),
        (lambda: NashWelfare([0.5, 0.5], [0, math.nan]), "disagreement must be finite, got 0, nan"),
        (lambda: AllOf([1, -1]), "exponents must be finite, >= 0"),
        (lambda: OrderedMean.leximin(2, resolution=2, spread=1), "spread must be finite and >= resolution"),
        (lambda: Aggregate([], Linear([1])), "needs one or more rewards"),
        (lambda: Aggregate([word_count], Linear), "by must be an aggregator such as Linear"),
        (lambda: Aggregate([word_count, "x"], WorstCase()), "must be callable"),
        (lambda: Aggregate([ImplicitReward()], WorstCase()), "Aggregate: an ImplicitReward is learned inside a study"),
        (lambda: Aggregate([word_count], Linear([0.5, 0.5])), "does not fit the rewards word_count: 2 numbers are"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(build, message):
    with pytest.raises(DefinitionError, match=message):
        build()


def test_an_ideal_that_is_exceeded_is_warned_about():
    with pytest.warns(NumericsWarning, match="objective 1 reaches 3, better than its ideal 2"):
        Chebyshev([0.5, 0.5], [2, 2])([[0.0, 3.0], [1.0, 1.0]])
    with pytest.warns(NumericsWarning, match="objective 0 reaches 5"):
        SmoothChebyshev([0.5, 0.5], [2, 2])(torch.tensor([5.0, 1.0]))


def test_nan_rewards_are_refused_with_their_place():
    with pytest.raises(DefinitionError, match=r"NaN rewards for 2 of 6 values \(objectives \[0, 1\]"):
        Linear([0.5, 0.5])([[math.nan, 1], [0, math.nan], [1, 1]])
    with pytest.raises(DefinitionError, match="NaN rewards for 1 of 2"):
        WorstCase()(torch.tensor([1.0, math.nan]))
    broken = Aggregate({"ok": word_count, "bad": lambda p, r: [math.nan] * len(r)}, WorstCase())
    with pytest.raises(RewardError, match="reward 'bad' returned NaN for 3 of 3 texts"):
        broken(PROMPTS, TEXTS)


def test_an_aggregate_is_a_reward_of_an_objective():
    """Words 2, 1, 4 and characters 3, 3, 7; the mean with weights (.5, .5) is 2.5, 2, 5.5 and the worst 2, 1, 4."""
    both = [word_count, character_count]
    assert Aggregate(both, Linear([0.5, 0.5]))(PROMPTS, TEXTS).tolist() == [2.5, 2, 5.5]
    assert Aggregate(both, WorstCase())(PROMPTS, TEXTS).tolist() == [2, 1, 4]
    nested = Objective("fair", reward=Clip(Aggregate([negate(word_count), character_count], WorstCase()), -3, 0))
    assert nested.reward(PROMPTS, TEXTS).tolist() == [-2, -1, -3]
    one = Aggregate({"words": word_count}, Linear([1.0]))
    assert one(PROMPTS, TEXTS).tolist() == word_count(PROMPTS, TEXTS).tolist() and one.names == ("words",)
    assert Aggregate([word_count, word_count], WorstCase()).names == ("word_count 0", "word_count 1")


def test_the_fingerprint_knows_rewards_rule_and_numbers():
    both = [word_count, character_count]
    made = [
        Aggregate(both, Linear([0.5, 0.5])),
        Aggregate(both, Linear(np.array([0.4, 0.6]))),
        Aggregate(both[::-1], Linear([0.5, 0.5])),
        Aggregate(both, OrderedMean([0.5, 0.5])),
        Aggregate(both, Chebyshev([0.5, 0.5], [1, 1])),
        Aggregate(both, Chebyshev([0.5, 0.5], [1, 2])),
    ]
    assert len({fingerprint(describe(aggregate)) for aggregate in made}) == len(made)
    assert describe(Aggregate(both, Linear((0.5, 0.5)))) == describe(made[0])


def test_rewards_on_scales_a_million_apart_are_warned_about_and_constant_ones_are_not():
    huge = Clip(Aggregate([character_count], GeneralisedMean([1.0], 1)), 0, 1e9)
    with pytest.warns(NumericsWarning, match=r"reward 'huge' spreads about 10\^6 times as far as 'words'"):
        Aggregate({"huge": _millions, "words": word_count}, Linear([0.5, 0.5]))(PROMPTS, TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Aggregate([huge, word_count, _constant], Linear([0.5, 0.25, 0.25]))(PROMPTS, TEXTS)
        Aggregate({"huge": _millions, "words": word_count}, Linear([0.5, 0.5]))(["p"], ["one text has no spread"])


def test_a_broken_reward_inside_is_found_before_training(tmp_path):
    aggregate = Aggregate([Clip(RewardModel(tmp_path / "absent"), 0, 1), word_count], WorstCase())
    with pytest.raises(ModelError, match="absent"):
        aggregate.check()


def test_the_public_module_of_formulas_is_reachable():
    assert scalarisation.worst([2.0, 1.0]) == 1


@pytest.mark.parametrize("seed", range(6))
def test_at_the_same_kl_the_log_and_raises_the_worst_prompts_and_joint_success(seed):
    """Exact tilts of 60 prompts x 64 candidates, two conflicting objectives on prompt-dependent scales, 2 nats of KL.

    Success is beating the prompt's 0.85 quantile on both objectives, the tail the 10th percentile over prompts of the
    expected worse objective. At 0.5 nats the gain in joint success vanishes; that of the tail stays.
    """
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(60, 64, 2)) * rng.lognormal(0, 0.6, (60, 1, 2)) * 1.5
    rewards[..., 1] -= 0.5 * rewards[..., 0]
    above = rewards - np.quantile(rewards, 0.85, axis=1, keepdims=True)
    log_and = AllOf()(scalarisation.log_sigmoid(above))
    joint, tail = {}, {}
    for name, utility in (("sum", rewards.sum(-1)), ("and", log_and)):
        policy = tilted(utility, kl=2.0)
        joint[name] = (policy * np.exp(log_and)).sum(1).mean()
        tail[name] = np.quantile((policy * above.min(-1)).sum(1), 0.1)
    assert joint["and"] > joint["sum"] and tail["and"] > tail["sum"] + 0.5


def tilted(utility, kl):
    """The optimum softmax(u / beta) over each prompt's candidates, beta such that the mean KL to uniform is `kl`."""

    def policy(log_beta):
        logits = (utility - utility.max(1, keepdims=True)) / math.exp(log_beta)
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def excess(log_beta):
        p = policy(log_beta)
        return (p * np.log(np.maximum(p, 1e-300) * p.shape[1])).sum(1).mean() - kl

    return policy(brentq(excess, -6, 6))


def _millions(prompts, responses):
    return [1e6 * (i + 1) for i in range(len(responses))]


def _constant(prompts, responses):
    return [1e-9] * len(responses)
