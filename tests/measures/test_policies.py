"""Measures of policies: KL estimators, win rates, likelihoods, over-optimisation, diversity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moalign import measures
from moalign.errors import DefinitionError
from moalign.measures.states import ches, top_k


def test_kl_estimators_are_unbiased_where_they_claim_to_be() -> None:
    """Policy (.5, .3, .2), reference (.2, .3, .5): KL = .3 log 2.5 = .27489; sums over outcomes, no sampling."""
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    exact = 0.3 * math.log(2.5)
    by_outcome = [measures.kl_estimates([r]) for r in np.log(policy / reference)]
    assert sum(p * e.k1 for p, e in zip(policy, by_outcome, strict=True)) == pytest.approx(exact)
    assert sum(p * e.k3 for p, e in zip(policy, by_outcome, strict=True)) == pytest.approx(exact)
    assert min(e.k3 for e in by_outcome) >= 0 > min(e.k1 for e in by_outcome)
    assert by_outcome[0].k2 == pytest.approx(math.log(2.5) ** 2 / 2)
    assert measures.kl_estimates([[30.0, -1000.0], [0.0, 1.0]]).clamped == 2
    with pytest.raises(DefinitionError):
        measures.kl_estimates([np.nan])


def test_win_rates_count_pairs_of_samples() -> None:
    """(2, 1) against (1, 1): wins 2, ties 2 of 4: .75. (0, 0) against (1, 2): 0."""
    shares = measures.preferences([[2, 1], [0, 0]], [[1, 1], [1, 2]])
    assert shares.tolist() == [0.75, 0.0]
    found = measures.win_rate(shares)
    assert found.value == 0.375 and found.low == 0 and found.high == 1


def length_problem(rows: int, quality: float, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    difference, difficulty = 100 + 200 * draw.standard_normal(rows), draw.standard_normal(rows)
    logits = quality + length * np.tanh(difference / difference.std(ddof=1)) + 0.7 * difficulty
    return 1 / (1 + np.exp(-logits)), difference, difficulty


def test_length_control_recovers_the_generating_model() -> None:
    """Soft labels from the model itself: coefficients come back, and the rate is the one at equal length."""
    wins, difference, difficulty = length_problem(400, quality=-0.2, length=5.0)
    found = measures.length_controlled_win_rate(wins, difference, difficulty, resamples=50)
    assert [found.quality, found.length, found.difficulty] == pytest.approx([-0.2, 5.0, 0.7], abs=1e-6)
    neutral = 1 / (1 + np.exp(-(-0.2 + 0.7 * difficulty)))
    assert found.value.value == pytest.approx(neutral.mean()) and found.raw > found.value.value + 0.1
    assert found.value.low < found.value.value < found.value.high and found.gamed


def test_length_control_mirrors_and_ignores_what_is_not_there() -> None:
    wins, difference, difficulty = length_problem(60, quality=0.4, length=0.8)
    one = measures.length_controlled_win_rate(wins, difference, difficulty, resamples=0)
    other = measures.length_controlled_win_rate(1 - wins, -difference, difficulty, resamples=0)
    assert one.value.value == pytest.approx(1 - other.value.value, abs=1e-9)
    even = measures.length_controlled_win_rate(np.full(60, 0.5), difference, resamples=0)
    assert even.value.value == pytest.approx(0.5, abs=1e-12) and not even.gamed
    equal = measures.length_controlled_win_rate(wins, np.zeros(60), resamples=0)
    assert equal.value.value == pytest.approx(wins.mean(), abs=1e-9)  # nothing to take out
    assert measures.length_controlled_win_rate(np.ones(9), np.arange(9), resamples=0).value.value > 0.999
    with pytest.raises(DefinitionError, match=r"\[0, 1\]"):
        measures.length_controlled_win_rate([0, 2, 1], [1, 2, 3])


def test_ranking_and_its_ideal() -> None:
    """Pairs (-1, -2), (-3, -2), (-4, -4): 2 of 3 ranked right.

    Per token (-1, -3, -2) against (-.5, -2, -1): none.
    """
    chosen, rejected = [-1.0, -3.0, -4.0], [-2.0, -2.0, -4.0]
    assert measures.ranking_accuracy(chosen, rejected) == pytest.approx(2 / 3)
    assert measures.ranking_accuracy(chosen, rejected, chosen_tokens=[1, 1, 2], rejected_tokens=[4, 1, 4]) == 0
    # the second pair starts 1 nat wrong; raters at .9 give log 9 = 2.2 nats / beta: enough up to beta 2.2
    ideal = measures.idealised_ranking(chosen, rejected, [0.9, 0.9, 0.9], betas=(0.1, 1.0, 5.0))
    assert ideal.by_beta == pytest.approx({0.1: 1.0, 1.0: 1.0, 5.0: 2 / 3})
    assert (ideal.low, ideal.median, ideal.high) == pytest.approx((2 / 3, 1.0, 1.0))
    assert measures.idealised_ranking(chosen, rejected, [1.0] * 3, betas=(1.0,)).median == 1


def test_flip_threshold_is_where_the_ranking_turns() -> None:
    """beta .1: c = 5 needs loss .474, c = 30 needs .0486; at c <= 0 log 2 or more suffices."""
    found = measures.flip_threshold([0.0, 0.0, 5.0], [5.0, 30.0, 5.0], 0.1)
    assert found.tolist() == pytest.approx([0.4741, 0.0486, math.log(2)], abs=1e-4)


def test_displacement_is_a_falling_chosen_with_a_growing_margin() -> None:
    found = measures.displacement([-5.0, -1.0], [-9.0, -3.0], [-4.0, -2.0], [-6.0, -3.0])
    assert (found.chosen, found.rejected, found.margin) == pytest.approx((0.0, -1.5, 1.5))
    assert found.displaced == 0.5


def test_ches_of_states_on_paper_with_any_padding() -> None:
    """S+ = (1,0) + (1,2) = (2,2), S- = (3,1): <S+,S-> - |S+|^2 = 8 - 8 = 0; means (1,1), (3,1): 4 - 2 = 2."""
    chosen = torch.tensor([[[1.0, 0], [1, 2], [9, 9]], [[9, 9], [1, 0], [1, 2]]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    rejected = torch.tensor([[[3.0, 1], [7, 7]], [[7, 7], [3, 1]]])
    found = ches(chosen, mask, rejected, torch.tensor([[True, False], [False, True]]))
    assert found.raw.tolist() == [0, 0] and found.normalised.tolist() == [2, 2]
    same = ches(chosen, mask, chosen, mask)
    assert same.raw.tolist() == [0, 0]  # a response is as near to itself as it can be
    with pytest.raises(DefinitionError, match="without tokens"):
        ches(chosen, mask & False, rejected, torch.ones(2, 2, dtype=torch.bool))


def test_top_k_mass_and_entropy() -> None:
    """(.4, .4, .2) with k = 2: mass .8, entropy log 2. Sharper logits have less of it."""
    found = top_k(torch.tensor([0.4, 0.4, 0.2]).log(), 2)
    assert [found.mass.item(), found.entropy.item()] == pytest.approx([0.8, math.log(2)], abs=1e-6)
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert bool((top_k(3 * logits).entropy < top_k(logits).entropy).all())
    assert top_k(logits, 40).mass.tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize(
    ("kind", "peak"), [("best_of_n", (3 / (2 * 0.5)) ** 2), ("trained", math.exp(2 * (3 / 0.5 - 1)))]
)
def test_curves_come_back_with_their_peak(kind: str, peak: float) -> None:
    """a = 3, b = .5: best-of-n peaks at d = 3 with 4.5; training at d = e^5 with b d."""
    kl = np.linspace(0.1, 30, 12)
    d = np.sqrt(kl)
    gain = d * (3 - 0.5 * (d if kind == "best_of_n" else np.log(d)))
    curve = measures.fit_curve(kl, gain, kind)
    assert [curve.a, curve.b] == pytest.approx([3, 0.5])
    assert curve.peak_kl.value == pytest.approx(peak) and curve.peak_kl.low == pytest.approx(peak, rel=1e-3)
    assert curve.gain(kl).tolist() == pytest.approx(gain.tolist())
    assert curve.peak_gain == pytest.approx(4.5 if kind == "best_of_n" else 0.5 * math.exp(5))
    rising = measures.fit_curve(kl, d * (1 + d), "best_of_n")
    assert rising.peak_kl.value == math.inf
    with pytest.raises(DefinitionError, match="at least 3"):
        measures.fit_curve([0.001, 0.002, 4.0], [0, 0, 1], "trained")


def test_choosing_by_the_proxy_costs_what_the_held_out_reward_lost() -> None:
    found = measures.over_optimisation([1, 4, 9], [1, 2, 3], [0.5, 0.9, 0.2])
    assert (found.chosen, found.best, found.turned) == (2, 1, True) and found.loss == pytest.approx(0.7)
    assert not measures.over_optimisation([1, 4], [1, 2], [0, 1]).turned


def test_diversity() -> None:
    """Of a b a b the bigrams are ab, ba, ab: 2 of 3 distinct. Equal samples have self-BLEU 1, disjoint ones 0."""
    assert measures.distinct([["a", "b", "a", "b"]], 2) == pytest.approx(2 / 3)
    assert measures.distinct([["a"], ["a"]], 1) == 0.5 and math.isnan(measures.distinct([["a"]], 2))
    assert measures.distinct([["a"] * 64 + ["b"]], 1) == pytest.approx(1 / 64)  # the 65th token does not count
    five = list("abcde")
    assert measures.self_bleu([five, five, five]) == pytest.approx(1)
    assert measures.self_bleu([five, list("vwxyz")]) == 0 and math.isnan(measures.self_bleu([five]))
    # half the length: precision 1, brevity exp(1 - 2) from one side; 4 of 8 words and so on from the other
    short = measures.self_bleu([list("abcdefgh"), list("abcd")])
    down = (0.5 * (4 / 8) * (3 / 7) * (2 / 6)) ** 0.25
    assert short == pytest.approx((math.exp(-1) + down) / 2)
