"""The preference-loss family: numbers worked by hand, exact limits, and margins in front of every link.

Worked pair: log policy -12 and -15.5, log reference -13 and -15, so the log-ratios are 1.0 and -0.5; beta 0.1, lengths
8 and 10. All worked numbers are to 6 digits.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses import (
    AlphaDivergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    RunningMean,
    TotalVariation,
    bco,
    bco_pair,
    collective_reward,
    copg,
    density_ratio_weight,
    dno,
    dpo,
    dpo_logits,
    extrapolate,
    f_dpo_logits,
    gpm,
    gpo,
    hinge,
    ipo,
    kto,
    kto_baseline,
    ln_dpo_logits,
    logistic,
    modpo,
    nash_step,
    objective_reward,
    preference_score,
    robust,
    sequence_forward_kl,
    sft_term,
    srpo,
    target_gap,
    tdpo_logits,
    with_margins,
)

F64 = torch.float64


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


PAIR: dict[str, Tensor] = {
    "policy_chosen": vector(-12.0),
    "policy_rejected": vector(-15.5),
    "reference_chosen": vector(-13.0),
    "reference_rejected": vector(-15.0),
}
LENGTHS = {"length_chosen": vector(8.0), "length_rejected": vector(10.0)}
A, B = vector(1.0), vector(-0.5)


def close(value: Tensor, wanted: float) -> None:
    assert value.item() == pytest.approx(wanted, abs=5e-7)


def pair(difference: Tensor) -> dict[str, Tensor]:
    """A pair whose log-ratio difference is given."""
    zero = torch.zeros_like(difference)
    return {"policy_chosen": difference, "policy_rejected": zero, "reference_chosen": zero, "reference_rejected": zero}


# ------------------------------------------------------------------------------------------------- worked numbers


def test_links_of_the_worked_pair() -> None:
    z = dpo_logits(**PAIR, beta=0.1)
    close(z, 0.15)
    close(logistic(z), 0.620957)
    close(logistic(z, label_smoothing=0.2), 0.650957)
    close(hinge(z), 0.85)
    close(robust(z, 0.1), 0.602207)
    close(robust(z, 0.0), 0.620957)
    close(robust(vector(10.0), 0.3), -7.499955)  # unbounded below, as its source says


@pytest.mark.parametrize(
    ("divergence", "wanted"),
    [
        (ReverseKL(), 0.620957),
        (ForwardKL(), 0.631154),
        (JensenShannon(), 0.660652),
        (AlphaDivergence(0.5), 0.627691),
        (AlphaDivergence(0.3), 0.625438),
        (AlphaDivergence(1e-8), 0.620957),
        (AlphaDivergence(1 - 1e-9), 0.631154),
    ],
)
def test_f_dpo(divergence: Any, wanted: float) -> None:
    close(logistic(f_dpo_logits(**PAIR, beta=0.1, divergence=divergence)), wanted)


def test_per_token_forms() -> None:
    close(logistic(ln_dpo_logits(**PAIR, **LENGTHS, beta=2.0)), 0.533382)
    ones = {name: torch.ones_like(value) for name, value in LENGTHS.items()}
    close(logistic(ln_dpo_logits(**PAIR, **ones, beta=0.1)), 0.620957)  # length one is DPO
    close(ipo(A, B, tau=0.1), 12.25)
    close(ipo(A, B, tau=0.1, **LENGTHS), 23.280625)
    plain = logistic(dpo_logits(**PAIR, beta=0.1))
    close(plain + sft_term(PAIR["policy_chosen"], weight=0.005 * 0.1), 0.626957)
    close(plain + sft_term(PAIR["policy_chosen"], weight=1.0, length_chosen=LENGTHS["length_chosen"]), 2.120957)


def test_token_level() -> None:
    kl = {"sequence_kl_chosen": vector(0.6), "sequence_kl_rejected": vector(0.9)}
    close(logistic(tdpo_logits(**PAIR, **kl, alpha=None)), 0.634946)
    close(logistic(tdpo_logits(**PAIR, **kl)), 0.627924)
    close(logistic(tdpo_logits(**PAIR, **kl, alpha=0.0)), 0.620957)


def test_tdpo1_and_tdpo2_with_alpha_one_differ_only_in_the_gradient() -> None:
    kl = vector(0.6).requires_grad_()
    values = []
    for alpha, slope in ((None, 0.1), (1.0, None)):
        z = tdpo_logits(**PAIR, sequence_kl_chosen=kl, sequence_kl_rejected=vector(0.9), alpha=alpha)
        values.append(z.item())
        assert z.requires_grad == (slope is not None)
        if slope is not None:
            assert torch.autograd.grad(z, kl)[0].item() == pytest.approx(slope)
    assert values[0] == values[1]


def test_sequence_forward_kl_and_tokens_of_probability_zero() -> None:
    """Two tokens of which one counts: .5 log(.5 / .25) + .5 log(.5 / .75); a reference zero costs nothing."""
    policy = torch.log(vector(0.25, 0.75)).repeat(2, 1)
    reference = torch.log(vector(0.5, 0.5)).repeat(2, 1)
    mask = torch.tensor([True, False])
    wanted = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert sequence_forward_kl(policy, reference, mask).item() == pytest.approx(wanted)
    certain = torch.tensor([[0.0, -math.inf]], dtype=F64)
    assert sequence_forward_kl(policy[:1], certain, mask[:1]).item() == pytest.approx(math.log(4))


def test_bco_of_single_responses() -> None:
    up = torch.tensor([True, False])
    rewards = vector(0.1, -0.05)
    assert bco(rewards, up, shift=0.02).tolist() == pytest.approx([0.653947, 0.658760], abs=5e-7)
    weight = density_ratio_weight(vector(0.3, 0.3))
    assert bco(rewards, up, shift=0.025, undesirable_weight=weight).tolist() == pytest.approx(
        [0.656350, 0.328175], abs=5e-7
    )
    assert density_ratio_weight(vector(0.3, 0.6, 0.99, 0.1)).tolist() == pytest.approx([0.5, 1.5, 10, 0.5])
    shift = RunningMean().update(rewards)
    assert (shift.value, shift.count) == (pytest.approx(0.025), 2)
    shift = shift.update(vector(0.3, 0.5, -0.2)).update(vector())
    assert (shift.value, shift.count) == (pytest.approx(0.13), 5)


def test_the_classifier_bounds_dpo_from_above() -> None:
    chosen, rejected = torch.randn(2, 200, dtype=F64, generator=torch.Generator().manual_seed(0)) * 5
    assert (bco_pair(chosen, rejected) >= logistic(chosen - rejected)).all()


def test_kto() -> None:
    up = torch.tensor([True, False])
    rewards = vector(0.1, -0.05)  # beta times the log-ratios; baseline beta * 0.4
    assert kto(rewards, up, baseline=0.04).tolist() == pytest.approx([0.485004, 0.477515], abs=5e-7)
    clamped = kto_baseline(vector(-0.05, -0.03))
    assert clamped.item() == 0
    values = kto(rewards, up, baseline=clamped, weight_desirable=1.33)
    assert values.tolist() == pytest.approx([0.631778, 0.487503], abs=5e-7)
    assert kto(vector(0.2, 0.2), up, baseline=0.2).tolist() == [0.5, 0.5]
    assert kto(vector(-1e3, 1e3), up, baseline=0.0).tolist() == [1, 1]  # bounded by its weight


def test_contrastive_policy_gradient() -> None:
    close(copg(A, B, reward_gap=0.6, beta=0.1), -0.7875)
    close(copg(A, B, reward_gap=0.5, beta=0.1), -0.6375)
    close(0.05 * ipo(A, B, tau=0.1) - 0.5**2 / (2 * 0.1), -0.6375)  # IPO up to scale and a constant
    close(copg(A, A, reward_gap=0.7, beta=0.1), 0.0)


def test_games() -> None:
    ratios = {
        "generation_chosen": vector(1.0),
        "generation_rejected": vector(-0.5),
        "chosen_given_rejected": vector(0.8),
        "rejected_given_chosen": vector(-0.3),
        "chosen_given_chosen": vector(0.1),
        "rejected_given_rejected": vector(0.2),
    }
    for mix, wanted in ((0.0, 0.0225), (1.0, 0.065), (0.5, 0.04375)):
        close(srpo(**ratios, beta=0.5, mix=mix), wanted)
    close(dno(A, B, reward_first=vector(0.9), reward_second=vector(0.4)), 0.677588)
    close(dno(A, B, reward_first=vector(100.0), reward_second=vector(0.0)), 0.620957)
    close(gpo(vector(0.5), vector(0.3), beta=0.5), 0.01)


def test_preference_embeddings() -> None:
    first, second = vector(0.6, 0.8)[None], vector(0.8, 0.6)[None]
    close(preference_score(first, second), -0.28)
    close(preference_score(second, first), 0.28)
    close(preference_score(first, first), 0.0)
    close(gpm(preference_score(first, second), tau=0.1), 2.859033)
    four = (vector(0.1, 0.7, 0.5, -0.5)[None], vector(0.3, 0.2, -0.6, 0.4)[None])
    close(preference_score(*four, vector(1.2, 0.8)), -0.308)
    angles = vector(0.0, 2 * math.pi / 3, 4 * math.pi / 3)
    cycle = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert preference_score(cycle, cycle.roll(-1, 0)).tolist() == pytest.approx([0.866025] * 3, abs=5e-7)
    rewards = vector(0.3, -1.2)
    linear = torch.stack([rewards, torch.full((2,), 2.0, dtype=F64)], dim=1)  # (reward, constant): Bradley-Terry
    close(preference_score(linear[:1], linear[1:]), 2.0 * 1.5)


def test_nash_mirror_prox() -> None:
    wins = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]], dtype=F64)
    reference = torch.full((3,), -math.log(3), dtype=F64)
    start = vector(0.6, 0.3, 0.1)

    def step(policy: Tensor, opponent: Tensor) -> Tensor:
        return nash_step(policy.log(), reference, wins @ opponent, beta=0.1, eta=1.0).exp()

    half = step(start, start)
    assert half.tolist() == pytest.approx([0.623708, 0.250568, 0.125723], abs=5e-7)
    assert step(start, half).tolist() == pytest.approx([0.617216, 0.253234, 0.129550], abs=5e-7)
    cyclic = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], dtype=F64)
    policy = start
    for _ in range(300):  # rock, paper, scissors: from any start to uniform
        middle = nash_step(policy.log(), reference, cyclic @ policy, beta=0.1, eta=1.0).exp()
        policy = nash_step(policy.log(), reference, cyclic @ middle, beta=0.1, eta=1.0).exp()
    assert policy.tolist() == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_momentum() -> None:
    new, old = vector(0.5, 0.3, 0.2), vector(0.4, 0.4, 0.2)
    moved = extrapolate(new.log(), old.log(), 0.3).softmax(0)
    assert moved.tolist() == pytest.approx([0.529423, 0.272521, 0.198057], abs=5e-7)
    assert extrapolate(new, new, 0.7).tolist() == pytest.approx(new.tolist())
    assert torch.equal(extrapolate(new, old, 0.0), new)


# ------------------------------------------------------------------------------------------------------- properties


def test_the_robust_loss_averages_to_the_clean_one_over_flips() -> None:
    z, rate = torch.linspace(-30, 30, 61, dtype=F64), 0.2
    mean = (1 - rate) * robust(z, rate) + rate * robust(-z, rate)
    torch.testing.assert_close(mean, logistic(z), rtol=1e-12, atol=1e-12)


def test_label_smoothing_has_its_minimum_at_the_log_odds_of_the_labels() -> None:
    z = vector(math.log(0.8 / 0.2)).requires_grad_()
    assert torch.autograd.grad(logistic(z, label_smoothing=0.2).sum(), z)[0].item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JensenShannon(), AlphaDivergence(0.3)])
def test_f_dpo_finds_the_optimum_of_its_own_penalty(divergence: Any) -> None:
    """Stationarity of E[r] - beta D_f on a categorical: r - beta f'(u) is one constant at a minimum of exact f-DPO.

    With exact Bradley-Terry labels the loss is at rest where every pair's log-odds are the reward difference.
    """
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(4, dtype=F64, generator=generator).log_softmax(0)
    policy = torch.randn(4, dtype=F64, generator=generator).log_softmax(0)
    beta = 0.7
    rewards = beta * divergence.derivative(policy - reference) + 3.0  # makes `policy` the optimum by construction
    first, second = torch.combinations(torch.arange(4)).T
    logits = policy.clone().requires_grad_()
    own = logits.log_softmax(0)
    z = f_dpo_logits(
        policy_chosen=own[first],
        policy_rejected=own[second],
        reference_chosen=reference[first],
        reference_rejected=reference[second],
        beta=beta,
        divergence=divergence,
    )
    torch.testing.assert_close(z, rewards[first] - rewards[second], rtol=1e-9, atol=1e-9)
    loss = logistic(z, torch.sigmoid(rewards[first] - rewards[second])).sum()
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-9

    def objective(values: Tensor) -> Tensor:
        log_policy = values.log_softmax(0)
        penalty = (reference.exp() * divergence.value(log_policy - reference)).sum()
        return (log_policy.exp() * rewards).sum() - beta * penalty

    slope = torch.autograd.grad(objective(logits), logits)[0]
    assert slope.abs().max() < 1e-9  # the same policy is the optimum of the penalised reward


@pytest.mark.parametrize(
    "divergence", [ReverseKL(), ForwardKL(), JensenShannon(), AlphaDivergence(0.4), TotalVariation()]
)
def test_divergences_are_zero_at_equality_and_their_derivatives_are_derivatives(divergence: Any) -> None:
    zero = vector(0.0)
    assert divergence.value(zero).item() == pytest.approx(0, abs=1e-15)
    log_u = vector(-2.0, -0.3, 0.4, 1.5).requires_grad_()
    slope = torch.autograd.grad(divergence.value(log_u).sum(), log_u)[0] / log_u.detach().exp()  # df/dlog u = u f'(u)
    offset = slope - divergence.derivative(log_u.detach())
    assert (offset - offset[0]).abs().max() < 1e-12
    generator = torch.Generator().manual_seed(2)
    p, q = torch.randn(2, 6, dtype=F64, generator=generator).log_softmax(-1)
    assert (q.exp() * divergence.value(p - q)).sum() > 0


LINKS = [logistic, hinge, robust]
BUILDERS: dict[str, Any] = {
    "dpo": lambda b: dpo_logits(**b, beta=0.3),
    "f_dpo": lambda b: f_dpo_logits(**b, beta=0.3, divergence=JensenShannon()),
    "ln_dpo": lambda b: ln_dpo_logits(**b, length_chosen=vector(3, 4, 5), length_rejected=vector(2, 9, 1), beta=0.3),
    "tdpo": lambda b: tdpo_logits(
        **b, sequence_kl_chosen=vector(0.1, 0.2, 0.3), sequence_kl_rejected=vector(0.3, 0.1, 0.4), beta=0.3
    ),
}


def random_pairs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {name: -20 * torch.rand(3, dtype=F64, generator=generator) for name in PAIR}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("link", LINKS)
def test_margins_compose_with_every_loss(name: str, link: Any) -> None:
    """Weight one and no margins is the plain loss; so is a common shift, or scaling weights and beta, too."""
    z = BUILDERS[name](random_pairs())
    margins = torch.randn(2, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(5))
    weights = vector(0.3, 0.2)

    def composed(logits: Tensor, trained: float, w: Tensor, shift: float = 0.0) -> Tensor:
        both = {"margin_chosen": margins[0] + shift, "margin_rejected": margins[1] + shift}
        return link(with_margins(logits, **both, trained_weight=trained, margin_weights=w))

    torch.testing.assert_close(composed(z, 1.0, torch.zeros(2, dtype=F64)), link(z), rtol=0, atol=0)
    torch.testing.assert_close(composed(z, 0.5, weights, shift=7.0), composed(z, 0.5, weights), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(composed(3 * z, 1.5, 3 * weights), composed(z, 0.5, weights), rtol=1e-12, atol=1e-12)
    raised = link(with_margins(z, margin_chosen=margins[0] + 1, margin_rejected=margins[1], trained_weight=0.5,
                               margin_weights=weights))  # fmt: skip
    assert (raised >= composed(z, 0.5, weights)).all()  # the policy is asked for more


def test_modpo_is_dpo_with_margins() -> None:
    batch = random_pairs()
    margins = torch.randn(2, 3, 1, dtype=F64, generator=torch.Generator().manual_seed(6))
    both = {"margin_chosen": margins[0], "margin_rejected": margins[1]}
    weights = {"trained_weight": 0.4, "margin_weights": vector(0.6)}
    parts = logistic(with_margins(dpo_logits(**batch, beta=0.2), **both, **weights))
    assert torch.equal(parts, modpo(**batch, **both, **weights, beta=0.2))
    assert torch.equal(logistic(dpo_logits(**batch, beta=0.2)), dpo(**batch, beta=0.2))


def test_margins_shift_the_target_of_regressions() -> None:
    """Gap .5 of an objective of weight .4 and margins .2 * .7: the log-ratio difference comes to rest at .34 / tau."""
    gap = target_gap(
        0.5,
        margin_chosen=vector(0.7)[:, None],
        margin_rejected=vector(0.0)[:, None],
        trained_weight=0.4,
        margin_weights=vector(0.2),
    )
    assert gap.item() == pytest.approx(0.34)
    difference = vector(0.34 / 0.1).requires_grad_()
    for loss in (
        ipo(difference, vector(0.0), tau=0.1, gap=gap),
        copg(difference, vector(0.0), reward_gap=gap, beta=0.1),
    ):
        assert torch.autograd.grad(loss.sum(), difference)[0].item() == pytest.approx(0, abs=1e-12)


def test_margins_of_single_responses_are_taken_out_of_the_reward() -> None:
    arguments = {"policy": vector(-3.0), "reference": vector(-4.0), "beta": 0.5}
    plain = collective_reward(**arguments)
    out = objective_reward(**arguments, margins=vector(0.8)[:, None], trained_weight=0.5, margin_weights=vector(0.5))
    assert out.item() == pytest.approx((0.5 - 0.4) / 0.5)
    up = torch.tensor([True])
    assert kto(out, up, baseline=0.0).item() > kto(plain, up, baseline=0.0).item()


def test_srpo_has_no_residual_at_the_optimum_of_its_game() -> None:
    """Log-ratios that satisfy p(a > b) = 1/2 + beta (s_ab - s_bb) and the identity of the policy give zero loss."""
    beta, s_rejected, s_chosen = 0.5, 0.2, 0.1
    better, worse = 1.0 / (2 * beta) + s_rejected, -1.0 / (2 * beta) + s_chosen  # certain labels: p = 1 and 0
    gap = 1.0 / beta - (better - worse)
    loss = srpo(
        generation_chosen=vector(gap),
        generation_rejected=vector(0.0),
        chosen_given_rejected=vector(better),
        rejected_given_chosen=vector(worse),
        chosen_given_chosen=vector(s_chosen),
        rejected_given_rejected=vector(s_rejected),
        beta=beta,
    )
    assert loss.item() == pytest.approx(0, abs=1e-15)


ALL: dict[str, Any] = {
    "dpo": lambda d: logistic(dpo_logits(**pair(d), beta=0.1)),
    "cdpo": lambda d: logistic(dpo_logits(**pair(d), beta=0.1), label_smoothing=0.1),
    "hinge": lambda d: hinge(dpo_logits(**pair(d), beta=0.1)),
    "robust": lambda d: robust(dpo_logits(**pair(d), beta=0.1)),
    "forward": lambda d: logistic(f_dpo_logits(**pair(d), beta=0.1, divergence=ForwardKL())),
    "js": lambda d: logistic(f_dpo_logits(**pair(d), beta=0.1, divergence=JensenShannon())),
    "alpha": lambda d: logistic(f_dpo_logits(**pair(d), beta=0.1, divergence=AlphaDivergence(0.5))),
    "ipo": lambda d: ipo(d, torch.zeros_like(d)),
    "copg": lambda d: copg(d, torch.zeros_like(d), reward_gap=0.5),
    "dno": lambda d: dno(d, torch.zeros_like(d), reward_first=torch.ones_like(d), reward_second=torch.zeros_like(d)),
    "bco": lambda d: bco(0.1 * d, torch.ones_like(d, dtype=torch.bool), shift=0.0),
    "kto": lambda d: kto(0.1 * d, torch.ones_like(d, dtype=torch.bool), baseline=0.0),
}
START = {"dpo": math.log(2), "cdpo": math.log(2), "hinge": 1.0, "robust": math.log(2), "forward": math.log(2),
         "js": math.log(2), "alpha": math.log(2), "ipo": 25.0, "copg": 0.0, "dno": math.log(2), "bco": math.log(2),
         "kto": 0.5}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_loss_is_finite_starts_where_it_should_and_pushes_chosen_up(name: str) -> None:
    loss = ALL[name]
    far = torch.tensor([2000.0, -2000.0], requires_grad=True)  # float32
    values = loss(far)
    assert torch.isfinite(values).all() and torch.isfinite(torch.autograd.grad(values.sum(), far)[0]).all()
    assert loss(vector(0.0)).item() == pytest.approx(START[name], abs=1e-12)
    start = vector(0.0).requires_grad_()
    assert torch.autograd.grad(loss(start).sum(), start)[0].item() < 0
    some = torch.randn(20, dtype=F64, generator=torch.Generator().manual_seed(7)) * 3
    torch.testing.assert_close(loss(some.float()).double(), loss(some), rtol=1e-4, atol=1e-5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(loss(some[order]), loss(some)[order], rtol=0, atol=0)


def test_a_stack_of_betas_equals_separate_calls() -> None:
    batch, betas = random_pairs(), vector(0.1, 0.5)
    kl = {"sequence_kl_chosen": vector(0.1, 0.2, 0.3), "sequence_kl_rejected": vector(0.3, 0.1, 0.4)}
    stacked = tdpo_logits(**batch, **kl, beta=betas)
    assert stacked.shape == (2, 3)
    for k in range(2):
        torch.testing.assert_close(stacked[k], tdpo_logits(**batch, **kl, beta=float(betas[k])))
    assert ipo(A, B, tau=betas).shape == (2, 1)


def test_refusals() -> None:
    with pytest.raises(DefinitionError, match=r"flipped labels in \[0, 0\.5\)"):
        robust(A, 0.5)
    with pytest.raises(DefinitionError, match=r"alpha .* lies in \(0, 1\), got 1"):
        AlphaDivergence(1.0)
    with pytest.raises(DefinitionError, match="invertible"):
        f_dpo_logits(**PAIR, beta=0.1, divergence=TotalVariation())
    with pytest.raises(DefinitionError, match="lengths of both"):
        ipo(A, B, length_chosen=A)
    with pytest.raises(DefinitionError, match="beta is -1"):
        ln_dpo_logits(**PAIR, **LENGTHS, beta=-1.0)
