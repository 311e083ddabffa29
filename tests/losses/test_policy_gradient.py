"""Policy gradients: unbiased against enumeration, silent at the optimum, clipped where reused; KL estimators."""

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
    TotalVariation,
    clipped_policy_gradient,
    copg,
    dpo_logits,
    f_dpg,
    k1,
    k2,
    k3,
    leave_one_out,
    logistic,
    normaliser,
    online_kl,
    penalised_rewards,
    token_kl,
)

F64 = torch.float64
REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=F64).log()
REWARDS = torch.tensor([0.3, -0.5, 1.0, 0.2], dtype=F64)
BETA = 0.5


def objective(logits: Tensor) -> Tensor:
    policy = logits.log_softmax(0)
    return (policy.exp() * (REWARDS - BETA * (policy - REFERENCE))).sum()


def estimate(logits: Tensor, first: int, second: int) -> Tensor:
    """The loss of a prompt whose two samples were the given responses."""
    drawn = torch.tensor([first, second])
    policy = logits.log_softmax(0)[drawn]
    advantages = leave_one_out(penalised_rewards(REWARDS[drawn], policy.detach(), REFERENCE[drawn], beta=BETA))
    return clipped_policy_gradient(policy, policy.detach(), advantages).mean()


def test_the_gradient_is_that_of_the_penalised_reward_on_average_over_all_samples() -> None:
    """Enumerating both samples with their probabilities gives the exact expectation: no bias, the KL's gradient in."""
    logits = torch.tensor([0.1, 0.7, -0.4, 0.0], dtype=F64, requires_grad=True)
    probs = logits.detach().softmax(0)
    mean = torch.zeros(4, dtype=F64)
    for i in range(4):
        for j in range(4):
            mean += probs[i] * probs[j] * torch.autograd.grad(estimate(logits, i, j), logits)[0]
    exact = torch.autograd.grad(-objective(logits), logits)[0]
    torch.testing.assert_close(mean, exact, rtol=1e-12, atol=1e-12)


def test_at_the_optimum_every_sample_is_silent() -> None:
    best = (REFERENCE + REWARDS / BETA).log_softmax(0).requires_grad_()
    for i in range(4):
        for j in range(4):
            assert torch.autograd.grad(estimate(best, i, j), best)[0].abs().max() < 1e-12


def test_two_samples_give_the_contrastive_policy_gradient() -> None:
    logits = torch.tensor([0.1, 0.7, -0.4, 0.0], dtype=F64, requires_grad=True)
    own = torch.autograd.grad(estimate(logits, 0, 2), logits)[0]
    ratio = logits.log_softmax(0) - REFERENCE
    contrastive = copg(ratio[:1], ratio[2:3], reward_gap=float(REWARDS[0] - REWARDS[2]), beta=BETA).sum()
    torch.testing.assert_close(own, torch.autograd.grad(contrastive, logits)[0] / 2, rtol=1e-10, atol=1e-12)


def test_leave_one_out_baseline() -> None:
    """1 - mean(2, 6) = -3, 2 - mean(1, 6) = -1.5, 6 - mean(1, 2) = 4.5; a constant added to all changes nothing."""
    rewards = torch.tensor([[1.0, 2.0, 6.0]], dtype=F64)
    assert leave_one_out(rewards)[0].tolist() == pytest.approx([-3, -1.5, 4.5])
    torch.testing.assert_close(leave_one_out(rewards + 100), leave_one_out(rewards))
    with pytest.raises(DefinitionError, match="two or more samples"):
        leave_one_out(rewards[:, :1])


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),
    [(1.0, 2.0, -2.0), (1.1, 2.0, -2.2), (1.3, 2.0, 0.0), (0.7, 2.0, -1.4), (0.7, -2.0, 0.0), (1.3, -2.0, 2.6)],
)
def test_clipping_stops_only_where_the_advantage_pushes_on(ratio: float, advantage: float, gradient: float) -> None:
    policy = torch.tensor([math.log(ratio)], dtype=F64, requires_grad=True)
    loss = clipped_policy_gradient(policy, torch.zeros(1, dtype=F64), torch.tensor([advantage], dtype=F64), clip=0.2)
    assert torch.autograd.grad(loss.sum(), policy)[0].item() == pytest.approx(gradient, abs=1e-12)


def test_no_clipping_is_importance_sampling() -> None:
    policy = torch.tensor([1.0], dtype=F64)
    loss = clipped_policy_gradient(policy, 0 * policy, torch.ones_like(policy), clip=math.inf)
    assert loss.item() == pytest.approx(-math.e)


def test_kl_estimators() -> None:
    """Means over the policy: k1 and k3 are the KL itself, k3 is never negative, k2 has the KL's gradient, k3 not."""
    logits = torch.tensor([0.1, 0.7, -0.4, 0.0], dtype=F64, requires_grad=True)
    policy = logits.log_softmax(0)
    probs, ratio = policy.detach().exp(), policy - REFERENCE
    kl = (probs * ratio).sum().item()
    assert (probs * k1(ratio)).sum().item() == pytest.approx(kl)
    assert (probs * k3(ratio)).sum().item() == pytest.approx(kl)
    assert (k3(ratio) >= 0).all()
    reverse = torch.autograd.grad((policy.exp() * ratio).sum(), logits, retain_graph=True)[0]
    forward = torch.autograd.grad((REFERENCE.exp() * -ratio).sum(), logits, retain_graph=True)[0]
    of_k2 = torch.autograd.grad((probs * k2(ratio)).sum(), logits, retain_graph=True)[0]
    of_k3 = torch.autograd.grad((probs * k3(ratio)).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(of_k2, reverse)
    torch.testing.assert_close(of_k3, forward)
    assert torch.isfinite(k3(torch.tensor([-1e4, 1e4]))).all()
    assert token_kl(logits.detach()[None], REFERENCE[None]).item() == pytest.approx(kl)


def test_online_kl_descends_the_reverse_kl() -> None:
    logits = torch.tensor([0.1, 0.7, -0.4, 0.0], dtype=F64, requires_grad=True)
    policy = logits.log_softmax(0)
    exact = torch.autograd.grad((policy.exp() * (policy - REFERENCE)).sum(), logits, retain_graph=True)[0]
    weighted = (policy.detach().exp() * online_kl(policy, REFERENCE)).sum()
    torch.testing.assert_close(torch.autograd.grad(weighted, logits)[0], exact)


def test_hybrid_preference_optimisation_worked() -> None:
    """Offline DPO .620957 plus .01 times the surrogate (.5 * -7 - .8 * -9) / 2 = 1.85."""
    own, reference = torch.tensor([-7.0, -9.0], dtype=F64), torch.tensor([-7.5, -8.2], dtype=F64)
    assert (own - reference).mean().item() == pytest.approx(-0.15)
    surrogate = online_kl(own, reference).mean()
    assert surrogate.item() == pytest.approx(1.85)
    zero = torch.zeros(1, dtype=F64)
    offline = logistic(
        dpo_logits(
            policy_chosen=zero + 1.5, policy_rejected=zero, reference_chosen=zero, reference_rejected=zero, beta=0.1
        )
    )
    assert (offline + 0.01 * surrogate).item() == pytest.approx(0.639457, abs=5e-7)


POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
TARGET = torch.tensor([1.0, 2.0, 1.0], dtype=F64) / 4


@pytest.mark.parametrize(
    ("divergence", "rewards", "surrogate"),
    [
        (ForwardKL(), (0.5, 1.666667, 1.25), 1.454997),
        (ReverseKL(), (-1.693147, -0.489174, -0.776856), -1.004285),
        (JensenShannon(), (-0.287682, 0.287682, 0.117783), 0.112173),
        (TotalVariation(), (-0.5, 0.5, 0.5), 0.353377),
    ],
)
def test_f_dpg_worked(divergence: Any, rewards: tuple[float, ...], surrogate: float) -> None:
    assert (-divergence.derivative(POLICY.log() - TARGET.log())).tolist() == pytest.approx(rewards, abs=5e-7)
    losses = f_dpg(POLICY.log(), TARGET.log(), divergence=divergence)
    assert losses.mean().item() == pytest.approx(surrogate, abs=5e-7)


@pytest.mark.parametrize(
    "divergence", [ForwardKL(), ReverseKL(), JensenShannon(), TotalVariation(), AlphaDivergence(0.4)]
)
def test_f_dpg_has_the_gradient_of_its_divergence_and_rests_at_the_target(divergence: Any) -> None:
    logits = torch.tensor([0.2, -0.3, 0.5], dtype=F64, requires_grad=True)
    policy = logits.log_softmax(0)
    exact = torch.autograd.grad((TARGET * divergence.value(policy - TARGET.log())).sum(), logits, retain_graph=True)[0]
    sampled = torch.tensor([0.2, 0.2, 0.6], dtype=F64)  # another policy drew the samples: importance ratios
    on_policy = (policy.detach().exp() * f_dpg(policy, TARGET.log(), divergence=divergence, baseline=0.3)).sum()
    off_policy = (sampled * f_dpg(policy, TARGET.log(), divergence=divergence, sampled=sampled.log())).sum()
    for loss in (on_policy, off_policy):
        torch.testing.assert_close(
            torch.autograd.grad(loss, logits, retain_graph=True)[0], exact, rtol=1e-9, atol=1e-12
        )
    at_rest = TARGET.log().requires_grad_()
    own = at_rest.log_softmax(0)
    loss = (TARGET * f_dpg(own, TARGET.log(), divergence=divergence)).sum()
    assert torch.autograd.grad(loss, at_rest)[0].abs().max() < 1e-12


def test_normaliser() -> None:
    """Samples exactly in proportion to the policy: mean of P / q = sum P = 4."""
    drawn = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    log_z = normaliser((4 * TARGET).log()[drawn], POLICY.log()[drawn])
    assert log_z.item() == pytest.approx(math.log(4), abs=1e-6)
