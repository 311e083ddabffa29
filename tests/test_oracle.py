"""The exact optimum on candidate sets: brute force, derivatives, limits, finite samples, and policies against it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.oracle import attention, gain_share, kl_target, lattice, oracle, policy_values, pooled_log_base, regret
from moalign.oracle.candidates import candidates, checked_weights
from moalign.oracle.tilt import Tilter
from moalign.weights import grid

F64 = torch.float64
OFF = -math.inf


def tensor(values) -> Tensor:
    return torch.tensor(values, dtype=F64)


def problem(seed: int = 0, prompts: int = 4, count: int = 17, objectives: int = 3) -> tuple[Tensor, Tensor]:
    """Random rewards with a common offset, and base probabilities far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(prompts, count, objectives, generator=generator, dtype=F64) + 3
    return rewards, (2 * torch.randn(prompts, count, generator=generator, dtype=F64)).log_softmax(-1)


def optimal(rewards: Tensor, log_base: Tensor, weights: Tensor, beta: Tensor | float) -> Tensor:
    """Log-probabilities of the optimum written out [prompts, weights, candidates]."""
    scores = torch.einsum("wm,pnm->pwn", weights, rewards) / torch.as_tensor(beta, dtype=F64).reshape(-1, 1)
    return (scores + log_base[:, None]).log_softmax(-1)


def kl_to(log_policy: Tensor, log_base: Tensor) -> Tensor:
    policy = log_policy.exp()
    return torch.where(policy > 0, policy * (log_policy - log_base), 0).sum(-1)


# --- exactness -------------------------------------------------------------------------------------------------------


def test_brute_force_with_base_padding_and_one_beta_per_weight():
    """Rewards, KL, value, Jacobian, effective sizes and judge's values agree with written-out probabilities."""
    rewards, log_base = problem()
    mask = torch.ones(4, 17, dtype=torch.bool)
    mask[0, 5:] = False
    mask[2, [0, 3, 8]] = False
    judge = torch.randn(4, 17, 2, generator=torch.Generator().manual_seed(9), dtype=F64)
    weights = torch.as_tensor(grid(3, 4))
    beta = torch.linspace(0.15, 2.0, len(weights), dtype=F64)
    garbage = torch.where(mask[..., None], rewards, torch.nan)
    result = oracle(
        garbage, weights, beta, log_base=log_base, mask=mask, values=judge, want_jacobian=True, want_ess=True
    )

    base = log_base.masked_fill(~mask, OFF).log_softmax(-1)
    log_policy = optimal(rewards, base, weights, beta)
    policy = log_policy.exp()
    expected = policy @ rewards
    apart = rewards[:, None] - expected[:, :, None]
    covariance = torch.einsum("pwn,pwni,pwnj->wij", policy, apart, apart) / 4
    kl = kl_to(log_policy, base[:, None])
    log_z = (torch.einsum("wm,pnm->pwn", weights, rewards) / beta[:, None] + base[:, None]).logsumexp(-1)
    ess = 1 / policy.square().sum(-1)

    exact = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(result.prompt_rewards, expected, **exact)
    torch.testing.assert_close(result.rewards, expected.mean(0), **exact)
    torch.testing.assert_close(result.prompt_kl, kl, **exact)
    torch.testing.assert_close(result.kl, kl.mean(0), **exact)
    torch.testing.assert_close(result.prompt_log_z, log_z, **exact)
    torch.testing.assert_close(result.log_z, log_z.mean(0), **exact)
    torch.testing.assert_close(result.value, beta * log_z.mean(0), **exact)
    torch.testing.assert_close(result.jacobian, covariance / beta[:, None, None], **exact)
    torch.testing.assert_close(result.prompt_values, policy @ judge, **exact)
    torch.testing.assert_close(result.values, (policy @ judge).mean(0), **exact)
    torch.testing.assert_close(result.prompt_ess, ess, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.ess_mean, ess.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.ess_min, ess.amin(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.reference_rewards, (base.exp()[..., None] * rewards).sum(1).mean(0), **exact)


WORKED = [
    # beta, weights, rewards, kl, value
    (0.5, (1, 0), (0.8012, 0.2555), 0.2406, 0.6809),
    (0.5, (0.5, 0.5), (0.5379, 0.5379), 0.0046, 0.5356),
    (0.5, (0.25, 0.75), (0.3852, 0.6850), 0.0727, 0.5737),
    (0.1, (1, 0), (0.9928, 0.0108), 1.0080, 0.8920),
    (0.1, (0.5, 0.5), (0.5576, 0.5576), 0.1233, 0.5453),
    (0.1, (0.25, 0.75), (0.1143, 0.9220), 0.5922, 0.6608),
]
WORKED_REWARDS = [[[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]]]


@pytest.mark.parametrize(("beta", "weights", "rewards", "kl", "value"), WORKED)
def test_worked_example(beta, weights, rewards, kl, value):
    """First row: (e^2, 1, e^1.2)/3 sums to 3.903, so log Z = 1.3618, value .6809 and KL .8012/.5 - 1.3618 = .2406."""
    result = oracle(tensor(WORKED_REWARDS), tensor([weights]), beta)
    assert result.rewards[0].tolist() == pytest.approx(rewards, abs=5.1e-5)
    assert result.kl.item() == pytest.approx(kl, abs=5.1e-5)
    assert result.value.item() == pytest.approx(value, abs=5.1e-5)


def test_worked_jacobian_and_effective_size():
    """Probabilities (.6310, .0854, .2835): Jacobian = covariance / .5; 1/(.3982 + .0073 + .0804) = 2.058 effective."""
    result = oracle(tensor(WORKED_REWARDS), tensor([[1, 0], [0.5, 0.5]]), 0.5, want_jacobian=True, want_ess=True)
    torch.testing.assert_close(result.jacobian[0], tensor([[0.1825, -0.2053], [-0.2053, 0.2444]]), rtol=0, atol=6e-5)
    torch.testing.assert_close(result.jacobian[1], tensor([[0.3151, -0.3057], [-0.3057, 0.3151]]), rtol=0, atol=6e-5)
    assert torch.linalg.eigvalsh(result.jacobian[1]).tolist() == pytest.approx([0.0094, 0.6209], abs=1e-4)
    assert result.ess_mean[0].item() == pytest.approx(2.058, abs=1e-3)


@pytest.mark.parametrize("beta", [0.02, 0.3, 5.0])
def test_value_identities(beta):
    """value = w.R - beta KL = beta log Z, per prompt and in the mean."""
    rewards, log_base = problem(1)
    weights = torch.as_tensor(grid(3, 3))
    result = oracle(rewards, weights, beta, log_base=log_base)
    torch.testing.assert_close(result.value, (weights * result.rewards).sum(-1) - beta * result.kl, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.value, beta * result.log_z, rtol=0, atol=1e-12)
    per_prompt = (weights * result.prompt_rewards).sum(-1) - beta * result.prompt_kl
    torch.testing.assert_close(per_prompt, beta * result.prompt_log_z, rtol=0, atol=1e-12)


def test_jacobian_is_the_derivative_and_the_curvature():
    """Central differences of R with step 1e-5 give J within 1e-8; J is symmetric and has no negative eigenvalue."""
    rewards, log_base = problem(2)
    weights = tensor([[0.2, 0.3, 0.5]])
    jacobian = oracle(rewards, weights, 0.4, log_base=log_base, want_jacobian=True).jacobian[0]
    steps = 1e-5 * torch.eye(3, dtype=F64)
    up, down = (oracle(rewards, weights + s * steps, 0.4, log_base=log_base).rewards for s in (1, -1))
    torch.testing.assert_close((up - down) / 2e-5, jacobian, rtol=0, atol=1e-8)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=0)
    assert torch.linalg.eigvalsh(jacobian).min() >= -1e-14


def test_value_and_kl_fall_with_beta_as_they_should():
    """d value / d beta = -KL, by a central difference."""
    rewards, log_base = problem(2)
    weights, h = tensor([[0.2, 0.3, 0.5]]), 1e-5
    low, middle, high = (oracle(rewards, weights, 0.4 + d, log_base=log_base) for d in (-h, 0, h))
    assert ((high.value - low.value) / (2 * h)).item() == pytest.approx(-middle.kl.item(), abs=1e-8)
    assert high.kl < middle.kl < low.kl


# --- numerics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [1e-5, 1e-3, 0.02, 0.05, 0.1, 1.0, 20.0, 100.0, 1e4, 1e7])
def test_no_digits_are_lost_over_twelve_decades_of_beta(dtype, beta):
    """A rounded logit of size s moves R and KL by about eps * s while several candidates compete, and hardly beyond
    s = 1000, where one has won. The value keeps full precision throughout. Both forms of the tilt are in this range.
    """
    rewards, log_base = problem(3)
    rewards, log_base = (rewards - 3).to(dtype), log_base.to(dtype)
    weights = torch.as_tensor(grid(3, 3)).to(dtype)
    result = oracle(rewards, weights, beta, log_base=log_base, want_jacobian=True)
    wide = (rewards.double(), log_base.double().log_softmax(-1), weights.double())
    log_policy = optimal(*wide, beta)
    rounding = 50 * torch.finfo(dtype).eps
    grown = rounding * min(max(1, 1 / beta), 1000)
    expected = log_policy.exp() @ wide[0]
    torch.testing.assert_close(result.prompt_rewards.double(), expected, rtol=0, atol=grown)
    kl = kl_to(log_policy, wide[1][:, None])
    torch.testing.assert_close(result.prompt_kl.double(), kl, rtol=0, atol=grown)
    value = (wide[2] * expected.mean(0)).sum(-1) - beta * kl.mean(0)
    of_reference = 2e-15 * beta  # beta * KL in float64 knows no more
    torch.testing.assert_close(result.value.double(), value, rtol=0, atol=rounding + of_reference)
    assert result.jacobian.isfinite().all() and result.log_z.isfinite().all()


def test_written_out_and_fused_forms_agree_where_both_hold():
    """The same queries, asked alone and beside extreme ones, come back in their order."""
    rewards, log_base = problem(4)
    given = candidates(rewards, log_base=log_base)
    moderate = torch.as_tensor(grid(3, 2)) / 0.3
    mixed = torch.stack([moderate, moderate * 1e-6, moderate * 1e6], 1).flatten(0, 1)
    alone, beside = Tilter(given, covariance=True)(moderate), Tilter(given, covariance=True)(mixed)
    for one, other in zip(alone, beside, strict=True):
        torch.testing.assert_close(other[:, ::3], one, rtol=0, atol=1e-13)
    assert (beside.kl[:, 1::3] < 1e-9).all() and (beside.kl[:, 2::3] > alone.kl).all()


def test_vanishing_beta_gives_the_best_candidate():
    """With equal base probabilities and a unique best candidate the KL is log N, exactly."""
    rewards, _ = problem(5)
    weights = torch.as_tensor(grid(3, 3))
    beta = 1e-6 * float(rewards.max() - rewards.min())
    result = oracle(rewards, weights, beta)
    best = torch.einsum("wm,pnm->pwn", weights, rewards).argmax(-1)  # [prompts, weights]
    expected = rewards[torch.arange(4)[:, None], best]
    torch.testing.assert_close(result.prompt_rewards, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.kl, torch.full_like(result.kl, math.log(17)), rtol=0, atol=1e-12)


def test_vanishing_beta_splits_ties_by_the_base():
    """Two best candidates with base .1 and .3 get 1/4 and 3/4, and the KL is -log .4."""
    rewards = tensor([[[1.0, 0.0], [1.0, 8.0], [0.0, 5.0]]])
    result = oracle(rewards, tensor([[1.0, 0.0]]), 1e-6, log_base=tensor([[0.1, 0.3, 0.6]]).log())
    assert result.rewards[0].tolist() == pytest.approx([1.0, 6.0], abs=1e-12)
    assert result.kl.item() == pytest.approx(-math.log(0.4), abs=1e-12)


def test_huge_beta_gives_the_base_mean_and_the_right_small_gain():
    """R -> base mean + Cov w / beta and KL ~ w.Cov.w / (2 beta^2); value - J_reference ~ w.Cov.w / (2 beta)."""
    rewards, log_base = problem(6)
    weights = tensor([[0.5, 0.25, 0.25]])
    result = oracle(rewards, weights, 1e6, log_base=log_base, want_jacobian=True)
    torch.testing.assert_close(result.rewards[0], result.reference_rewards, rtol=0, atol=1e-5)
    curvature = (weights @ result.jacobian[0] @ weights.T).item() * 1e6
    assert result.kl.item() == pytest.approx(curvature / 2e12, rel=1e-3)
    assert 0 < result.kl.item() < 1e-9
    gain = result.value - weights @ result.reference_rewards
    assert gain.item() == pytest.approx(curvature / 2e6, rel=1e-4)


def test_zero_weights_stay_at_the_base():
    rewards, log_base = problem(6)
    result = oracle(rewards, torch.zeros(1, 3, dtype=F64), 0.1, log_base=log_base)
    torch.testing.assert_close(result.rewards[0], result.reference_rewards, rtol=0, atol=1e-14)
    assert result.kl.item() == 0 and result.value.item() == 0


def test_base_probabilities_too_small_for_their_dtype_still_count():
    """exp(-150) is zero in float32, but a reward of 300 over beta 1 lifts it above everything else."""
    log_base = torch.tensor([[0.0, -150.0]])
    result = oracle(torch.tensor([[[0.0], [300.0]]]), torch.ones(1, 1), 1.0, log_base=log_base)
    assert result.rewards.item() == pytest.approx(300)
    assert result.kl.item() == pytest.approx(150)


def test_a_hopeless_candidate_stays_hopeless_under_a_large_tilt():
    """Base exp(-30000) against a gain of exp(10100) is still nothing, though the fused form reads -30000 as -10000."""
    result = oracle(tensor([[[0.0], [10_100.0]]]), tensor([[1.0]]), 1.0, log_base=tensor([[0.0, -30_000.0]]))
    assert result.rewards.item() == 0 and result.kl.item() == 0


def test_half_precision_rewards_are_computed_in_float32():
    rewards, log_base = problem(7)
    half = rewards.bfloat16()
    result = oracle(half, torch.as_tensor(grid(3, 2)), 0.2, log_base=log_base)
    wide = oracle(half.float(), torch.as_tensor(grid(3, 2)), 0.2, log_base=log_base)
    assert result.rewards.dtype == torch.float32 and torch.equal(result.rewards, wide.rewards)


@pytest.mark.parametrize("per_prompt", [True, False])
def test_pairs_of_bfloat16_numbers_stay_within_a_thousandth(per_prompt):
    """Rewards N(5, 1), beta 0.05: plain bfloat16 is wrong by .03 there, pairs by less than .001, all outputs."""
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(70, 64, 3, generator=generator, dtype=F64) + 5
    log_base = (2 * torch.randn(70, 64, generator=generator, dtype=F64)).log_softmax(-1)
    log_base[:, 5] = OFF
    judge = torch.randn(70, 64, 1, generator=generator, dtype=F64)
    weights = torch.as_tensor(grid(3, 6))
    options = {"per_prompt": per_prompt, "want_jacobian": per_prompt, "want_ess": per_prompt}
    exact = oracle(rewards, weights, 0.05, log_base=log_base, values=judge, **options)
    single = rewards.float()
    half = oracle(single, weights, 0.05, log_base=log_base, values=judge, half=True, **options)
    assert half.rewards.dtype == torch.float32
    names = ("rewards", "kl", "value", "log_z", "values")
    for name in (*names, "prompt_rewards", "prompt_kl", "jacobian", "ess_mean") if per_prompt else names:
        tolerance = 1e-2 if name == "jacobian" else 1e-3  # a covariance over beta
        torch.testing.assert_close(getattr(half, name).double(), getattr(exact, name), rtol=1e-4, atol=tolerance)
    same = oracle(single, weights, 0.05, log_base=log_base, values=judge, **options)
    assert not torch.equal(half.rewards, same.rewards)  # it is another computation


def test_two_bfloat16_numbers_hold_sixteen_bits():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    high, low = attention.twofold(values)
    assert high.dtype == low.dtype == torch.bfloat16
    assert ((high.float() + low.float() - values).abs() <= values.abs() * 2.0**-16).all()


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_chunks_change_nothing(chunk):
    rewards, log_base = problem(8)
    weights, beta = grid(3, 3), torch.linspace(0.01, 1, 10, dtype=F64)
    options = {"log_base": log_base, "want_jacobian": True, "want_ess": True}
    whole, parts = oracle(rewards, weights, beta, **options), oracle(rewards, weights, beta, chunk=chunk, **options)
    for name in ("rewards", "kl", "value", "log_z", "jacobian", "prompt_rewards", "prompt_kl", "prompt_ess"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.003, 0.4, 60.0])
def test_means_alone_agree_with_means_of_prompts(beta):
    """More prompts than are handled at once, with padding, judges' values, and tilts of all sizes."""
    rewards, log_base = problem(4, prompts=300, count=9)
    mask = torch.ones(300, 9, dtype=torch.bool)
    mask[::3, 5:] = False
    arguments = {"log_base": log_base, "mask": mask, "values": rewards.square()}
    weights = torch.as_tensor(grid(3, 4))
    means = oracle(rewards, weights, beta, per_prompt=False, **arguments)
    full = oracle(rewards, weights, beta, **arguments)
    for name in ("rewards", "kl", "value", "log_z", "values"):
        torch.testing.assert_close(getattr(means, name), getattr(full, name), rtol=1e-12, atol=1e-12)


def test_without_the_fused_kernel_the_numbers_are_the_same(monkeypatch):
    """Builds without it take the written-out form, here in pieces of two queries."""
    rewards, log_base = problem(5, prompts=6, count=11)
    weights = torch.as_tensor(grid(3, 3))
    fused = oracle(rewards, weights, 0.2, log_base=log_base, want_jacobian=True)
    monkeypatch.setattr(attention, "_kernel", lambda device, dtype: None)
    monkeypatch.setattr(attention, "SCORES_ON_CPU", 2 * 6 * 11)
    plain = oracle(rewards, weights, 0.2, log_base=log_base, want_jacobian=True)
    for name in ("rewards", "kl", "value", "jacobian", "prompt_log_z"):
        torch.testing.assert_close(getattr(plain, name), getattr(fused, name), rtol=0, atol=1e-12)


def test_a_kernel_of_another_meaning_is_not_used(monkeypatch):
    """An operator of the same name that divides scores by two is found out by the probe."""

    class Halving:
        def _scaled_dot_product_flash_attention_for_cpu(self, queries, keys, content, *rest, scale):
            averages, log_z = attention.written_out(queries[0, 0] / 2, keys[:, 0], content[:, 0])
            return averages[:, None], log_z

    monkeypatch.setattr(torch.ops, "aten", Halving())
    attention._kernel.cache_clear()
    assert attention._kernel(torch.device("cpu"), torch.float32) is None
    monkeypatch.undo()
    attention._kernel.cache_clear()
    assert attention._kernel(torch.device("cpu"), torch.float32) is not None


def test_products_are_not_rounded_to_tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with attention._full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_fine_lattice_has_a_form_of_its_own(dtype, monkeypatch):
    """101 x 102 / 2 weights in shuffled order, impossible candidates, judges: equal to attention to the last digits."""
    monkeypatch.setattr(lattice, "FEWEST_WEIGHTS", 1000)
    rewards, log_base = problem(6, prompts=20, count=12)
    log_base[3, :5] = OFF
    weights = torch.as_tensor(grid(3, 100))[torch.randperm(5151, generator=torch.Generator().manual_seed(0))]
    given = {"log_base": log_base.to(dtype), "values": rewards.to(dtype).square(), "per_prompt": False}
    assert lattice.lattice_of(weights.to(dtype)).g == 100
    quick = oracle(rewards.to(dtype), weights.to(dtype), 0.1, **given)
    slow = oracle(rewards.to(dtype), weights.to(dtype), 0.1, chunk=700, **given)  # a stated chunk asks for attention
    tolerance = 1e-11 if dtype is F64 else 3e-5
    for name in ("rewards", "kl", "value", "values"):
        torch.testing.assert_close(getattr(quick, name), getattr(slow, name), rtol=tolerance, atol=tolerance)
    assert not torch.equal(quick.kl, slow.kl)  # two ways of computing, not one


def test_what_is_no_whole_lattice_is_not_taken_for_one(monkeypatch):
    monkeypatch.setattr(lattice, "FEWEST_WEIGHTS", 10)
    weights = torch.as_tensor(grid(3, 20))
    assert lattice.lattice_of(weights) is not None
    assert lattice.lattice_of(weights[1:]) is None
    repeated, moved = weights.clone(), weights.clone()
    repeated[0], moved[0] = weights[1], weights[0] + torch.tensor([-1e-9, 1e-9, 0.0])
    assert lattice.lattice_of(repeated) is None and lattice.lattice_of(moved) is None
    steep = candidates(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64))
    assert lattice.lattice_means(steep, lattice.lattice_of(weights), 1e-6) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_gives_the_same_numbers():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(64, 64, 3, generator=generator)
    weights = torch.as_tensor(grid(3, 40)).float()
    near = oracle(rewards, weights, 0.1, want_jacobian=True)
    far = oracle(rewards.cuda(), weights.cuda(), 0.1, want_jacobian=True)
    for name in ("rewards", "kl", "value", "jacobian"):
        torch.testing.assert_close(getattr(far, name).cpu(), getattr(near, name), rtol=1e-5, atol=2e-5)
    assert all(attention._kernel(far.rewards.device, dtype) is not None for dtype in (torch.float32, F64))
    half = oracle(rewards.cuda(), weights.cuda(), 0.1, half=True)
    for name in ("rewards", "kl", "value"):
        torch.testing.assert_close(getattr(half, name).cpu(), getattr(near, name), rtol=1e-4, atol=1e-3)


def test_per_prompt_fields_can_be_left_out():
    rewards, log_base = problem(8)
    result = oracle(rewards, grid(3, 3), 0.3, log_base=log_base, want_ess=True, per_prompt=False)
    assert result.prompt_rewards is None and result.prompt_kl is None and result.prompt_ess is None
    full = oracle(rewards, grid(3, 3), 0.3, log_base=log_base, want_ess=True)
    assert torch.equal(result.rewards, full.rewards) and torch.equal(result.ess_min, full.ess_min)


def test_nothing_is_recorded_for_backward():
    rewards, _ = problem(8)
    assert not oracle(rewards.requires_grad_(), grid(3, 2), 0.3).rewards.requires_grad


# --- structure -------------------------------------------------------------------------------------------------------


def test_prompt_constants_shift_rewards_and_nothing_else():
    rewards, log_base = problem(9)
    shift = 100 * torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    plain = oracle(rewards, grid(3, 3), 0.3, log_base=log_base)
    moved = oracle(rewards + shift, grid(3, 3), 0.3, log_base=log_base)
    torch.testing.assert_close(moved.prompt_rewards, plain.prompt_rewards + shift, rtol=0, atol=1e-11)
    torch.testing.assert_close(moved.prompt_kl, plain.prompt_kl, rtol=0, atol=1e-11)


def test_order_of_candidates_and_scale_of_base_do_not_matter():
    rewards, log_base = problem(9)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(2))
    plain = oracle(rewards, grid(3, 3), 0.3, log_base=log_base)
    other = oracle(rewards[:, order], grid(3, 3), 0.3, log_base=log_base[:, order] - 40)
    torch.testing.assert_close(other.rewards, plain.rewards, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.value, plain.value, rtol=0, atol=1e-12)


def test_equal_candidates_merge_with_their_summed_base():
    rewards, log_base = problem(9)
    rewards[:, 1] = rewards[:, 0]
    merged = log_base.clone()
    merged[:, 0] = torch.logaddexp(log_base[:, 0], log_base[:, 1])
    merged[:, 1] = OFF  # -inf is as good as absent
    plain = oracle(rewards, grid(3, 3), 0.3, log_base=log_base, want_jacobian=True)
    for other in (
        oracle(rewards, grid(3, 3), 0.3, log_base=merged, want_jacobian=True),
        oracle(
            rewards[:, [0, *range(2, 17)]],
            grid(3, 3),
            0.3,
            log_base=merged[:, [0, *range(2, 17)]],
            want_jacobian=True,
        ),
    ):
        for name in ("rewards", "kl", "value", "jacobian"):
            torch.testing.assert_close(getattr(other, name), getattr(plain, name), rtol=0, atol=1e-12)


def test_only_the_ratio_of_weights_and_beta_counts():
    rewards, log_base = problem(9)
    weights = torch.as_tensor(grid(3, 3))
    plain, scaled = (oracle(rewards, c * weights, c * 0.3, log_base=log_base) for c in (1, 7))
    torch.testing.assert_close(scaled.rewards, plain.rewards, rtol=0, atol=1e-12)
    torch.testing.assert_close(scaled.kl, plain.kl, rtol=0, atol=1e-12)
    torch.testing.assert_close(scaled.value, 7 * plain.value, rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.02, 10), t=st.floats(0, 1))
def test_rewards_are_monotone_and_the_value_is_convex_in_the_weights(seed, beta, t):
    """(w - w').(R - R') >= 0, and the value on a segment lies below its chord and above its tangent."""
    rewards, log_base = problem(seed, prompts=2, count=6)
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(2, 3, generator=generator, dtype=F64)
    points = torch.stack([ends[0], ends[1], t * ends[0] + (1 - t) * ends[1]])
    result = oracle(rewards, points, beta, log_base=log_base)
    assert (ends[0] - ends[1]) @ (result.rewards[0] - result.rewards[1]) >= -1e-12
    assert result.value[2] <= t * result.value[0] + (1 - t) * result.value[1] + 1e-12
    assert result.value[1] >= result.value[0] + result.rewards[0] @ (ends[1] - ends[0]) - 1e-12


def test_gaussian_rewards_follow_the_closed_form():
    """If rewards are N(m, S) then R = m + S w / beta, KL = w.S.w / (2 beta^2), J = S / beta; 40000 samples, small tilt.

    Standard errors are about sqrt(S / 40000) = .005 for R and .0015 for the KL of .11.
    """
    generator = torch.Generator().manual_seed(0)
    mean, factor = tensor([1.0, -2.0]), tensor([[1.0, 0.0], [-0.5, 0.8]])
    rewards = mean + torch.randn(1, 40_000, 2, generator=generator, dtype=F64) @ factor.T
    covariance, weights, beta = factor @ factor.T, tensor([[0.6, 0.4]]), 1.5
    result = oracle(rewards, weights, beta, want_jacobian=True)
    shift = (covariance @ weights[0]) / beta
    torch.testing.assert_close(result.rewards[0], mean + shift, rtol=0, atol=0.03)
    assert result.kl.item() == pytest.approx((weights[0] @ shift / (2 * beta)).item(), abs=0.008)
    torch.testing.assert_close(result.jacobian[0], covariance / beta, rtol=0, atol=0.03)


# --- candidates as samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tilt", "count", "reward", "corrected", "ess", "log_z"),
    [
        (1, 8, 0.752, 0.849, 4.7, None),
        (1, 32, 0.927, 0.978, 15.0, None),
        (2, 32, 1.536, 1.627, 5.9, 1.737),
        (2, 128, 1.778, 1.848, 13.5, 1.903),
        (3, 128, 2.207, 2.285, 5.7, 3.932),
    ],
)
def test_few_samples_understate_and_the_correction_gives_part_of_it_back(tilt, count, reward, corrected, ess, log_z):
    """Rewards N(0, 1): the true reward is the tilt t and log Z is t^2/2; the recorded averages show the saturation.

    2500 sets of samples; the tolerance is four standard errors plus the last recorded digit.
    """
    generator = torch.Generator().manual_seed(count)
    rewards = torch.randn(2500, count, 1, generator=generator, dtype=F64)
    plain = oracle(rewards, torch.ones(1, 1, dtype=F64), 1 / tilt, want_ess=True)
    better = oracle(rewards, torch.ones(1, 1, dtype=F64), 1 / tilt, corrected=True)

    def close(per_prompt: Tensor, expected: float, digit: float) -> bool:
        error = 4 * (per_prompt.std() / math.sqrt(2500)).item() * math.sqrt(1.5) + digit
        return abs(per_prompt.mean().item() - expected) <= error

    assert close(plain.prompt_rewards.flatten(), reward, 0.001)
    assert close(better.prompt_rewards.flatten(), corrected, 0.001)
    assert close(plain.prompt_ess.flatten(), ess, 0.05)
    assert reward < better.rewards.item() < tilt
    if log_z is not None:
        assert close(plain.prompt_log_z.flatten(), log_z, 0.001)
        assert plain.log_z < better.log_z < tilt**2 / 2


def test_bias_correction_is_the_written_formula():
    """R + sum pi^2 (r - R), and log Z + (sum pi^2 - sum p0^2) / 2; KL and value follow from them."""
    rewards, log_base = problem(10)
    judge = rewards.flip(-1) ** 2
    weights, beta = torch.as_tensor(grid(3, 2)), 0.5
    plain = oracle(rewards, weights, beta, log_base=log_base, values=judge)
    better = oracle(rewards, weights, beta, log_base=log_base, values=judge, corrected=True)
    squares = (2 * optimal(rewards, log_base, weights, beta)).exp()  # [prompts, weights, candidates]
    for name, given_values in (("prompt_rewards", rewards), ("prompt_values", judge)):
        before = getattr(plain, name)
        shift = squares @ given_values - squares.sum(-1, keepdim=True) * before
        torch.testing.assert_close(getattr(better, name), before + shift, rtol=0, atol=1e-11)
    jensen = (squares.sum(-1) - (2 * log_base).exp().sum(-1, keepdim=True)) / 2
    torch.testing.assert_close(better.prompt_log_z, plain.prompt_log_z + jensen, rtol=0, atol=1e-12)
    torch.testing.assert_close(better.value, beta * better.log_z, rtol=0, atol=1e-12)
    torch.testing.assert_close(better.value, (weights * better.rewards).sum(-1) - beta * better.kl, rtol=0, atol=1e-12)


def test_trust_rule():
    """Of 16 samples: constant rewards keep KL 0 and 16 effective ones; a saturated tilt rests on one. Of 8 samples at
    most 8 are effective, always fewer than 10."""
    rewards = torch.zeros(2, 16, 1, dtype=F64)
    rewards[1, 0] = 1.0
    result = oracle(rewards, torch.ones(2, 1, dtype=F64), tensor([1e3, 1e-3]), want_ess=True)
    assert result.candidate_limited.tolist() == [0.0, 0.5]
    assert result.ess_min.tolist() == pytest.approx([16.0, 1.0], abs=1e-3)
    eight = oracle(rewards[:, :8], torch.ones(1, 1, dtype=F64), 1e3, want_ess=True)
    assert eight.candidate_limited.tolist() == [1.0]


def test_trust_rule_counts_kl_under_an_uneven_base():
    """Twenty of 40 candidates hold exp(-3) of the base and win: 20 effective ones, but KL 3 > log 40 - 2 = 1.69."""
    good = torch.arange(40) < 20
    share = torch.where(good, math.exp(-3) / 20, (1 - math.exp(-3)) / 20).double()
    rewards = good.double()[None, :, None]
    result = oracle(rewards, torch.ones(1, 1, dtype=F64), 1e-3, log_base=share.log()[None], want_ess=True)
    assert result.ess_min.item() == pytest.approx(20) and result.kl.item() == pytest.approx(3)
    assert result.candidate_limited.tolist() == [1.0]


def test_padding_does_not_count_as_samples():
    """Eight real candidates in a row of twenty are eight."""
    mask = torch.arange(20)[None] < 8
    result = oracle(torch.zeros(1, 20, 1, dtype=F64), torch.ones(1, 1, dtype=F64), 1.0, mask=mask, want_ess=True)
    assert result.ess_mean.item() == pytest.approx(8, abs=1e-12)
    assert result.candidate_limited.tolist() == [1.0]


# --- a wanted KL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kl_target_is_met(dtype):
    rewards, log_base = problem(11)
    weights = grid(3, 3)
    target = torch.linspace(0.001, 1.2, len(weights), dtype=dtype)
    beta = kl_target(rewards.to(dtype), weights, target, log_base=log_base.to(dtype))
    kl = oracle(rewards.to(dtype), weights, beta, log_base=log_base.to(dtype)).kl
    torch.testing.assert_close(kl, target, rtol=0, atol=1e-12 if dtype == F64 else 2e-6)


def test_kl_target_returns_the_worked_beta():
    """Weights (1, 0) have KL .2406 at beta .5 and 1.0080 at beta .1."""
    rewards, weights = tensor(WORKED_REWARDS), tensor([[1.0, 0.0], [1.0, 0.0]])
    beta = kl_target(rewards, weights, oracle(rewards, weights, tensor([0.5, 0.1])).kl, chunk=1)
    assert beta.tolist() == pytest.approx([0.5, 0.1], rel=1e-12)


def test_kl_target_close_to_its_limit_is_met():
    """One best candidate of three: the KL stays below log 3."""
    target = math.log(3) - 1e-6
    beta = kl_target(tensor(WORKED_REWARDS), tensor([[1.0, 0.0]]), target)
    assert oracle(tensor(WORKED_REWARDS), tensor([[1.0, 0.0]]), beta).kl.item() == pytest.approx(target, abs=1e-11)


def test_kl_target_out_of_reach_is_refused_with_the_limit():
    """Weights (1, 0) end at log 3 = 1.0986; under (0, 0) all candidates are equally good and nothing is attainable."""
    with pytest.raises(DefinitionError) as error:
        kl_target(tensor(WORKED_REWARDS), tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]), tensor([1.1, 0.1, 0.01]))
    text = str(error.value)
    assert len(error.value.problems) == 2
    assert "1.1 for weights[0]" in text and "1.09861 nats" in text and "weights[2]" in text and "of 0 nats" in text


def test_candidates_that_tie_up_to_rounding_leave_nothing_to_attain():
    """Objectives a and 1 - a weighted equally: every candidate scores one half, give or take the last bit."""
    a = torch.linspace(0.01, 0.97, 30, dtype=F64)
    with pytest.raises(DefinitionError, match="out of reach.*KL of 0 nats"):
        kl_target(torch.stack([a, 1 - a], -1)[None], tensor([[0.5, 0.5]]), 0.1)


# --- policies against the optimum ------------------------------------------------------------------------------------


def test_the_optimum_has_gain_share_one_and_the_reference_zero():
    rewards, log_base = problem(12)
    weights, beta = torch.as_tensor(grid(3, 3)), 0.3
    result = oracle(rewards, weights, beta, log_base=log_base)
    own = policy_values(optimal(rewards, log_base, weights, beta).transpose(0, 1), rewards, log_base=log_base)
    torch.testing.assert_close(own.rewards, result.rewards, rtol=0, atol=1e-12)
    torch.testing.assert_close(own.kl, result.kl, rtol=0, atol=1e-12)
    one = gain_share(result, rewards=own.rewards, kl=own.kl)
    torch.testing.assert_close(one, torch.ones(10, dtype=F64), rtol=0, atol=1e-12)
    same = policy_values(log_base.expand(10, -1, -1), rewards, log_base=log_base)
    assert same.kl.abs().max() < 1e-14
    nothing = gain_share(result, rewards=same.rewards, kl=same.kl)
    torch.testing.assert_close(nothing, torch.zeros(10, dtype=F64), rtol=0, atol=1e-12)
    explicit = gain_share(result, rewards=own.rewards, kl=own.kl, reference_rewards=same.rewards[0])
    torch.testing.assert_close(explicit, one, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.05, 5))
def test_no_policy_exceeds_the_value_and_regret_is_the_kl_to_the_optimum(seed, beta):
    """value - J = beta * mean KL(policy || optimum), for any policy on the candidates."""
    rewards, log_base = problem(seed, prompts=3, count=8)
    weights = torch.as_tensor(grid(3, 1))
    generator = torch.Generator().manual_seed(seed)
    log_policy = (3 * torch.randn(3, 3, 8, generator=generator, dtype=F64)).log_softmax(-1)  # [policies, prompts, ...]
    result = oracle(rewards, weights, beta, log_base=log_base)
    values = policy_values(log_policy, rewards, log_base=log_base)
    loss = regret(result, rewards=values.rewards, kl=values.kl)
    distance = kl_to(log_policy, optimal(rewards, log_base, weights, beta).transpose(0, 1)).mean(-1)
    torch.testing.assert_close(loss, beta * distance, rtol=0, atol=1e-11)
    assert (loss >= -1e-12).all()
    assert (gain_share(result, rewards=values.rewards, kl=values.kl) <= 1 + 1e-12).all()


def test_gain_share_is_undefined_where_nothing_can_be_gained():
    rewards = torch.ones(2, 3, 2, dtype=F64)
    result = oracle(rewards, grid(2, 1), 0.1)
    share = gain_share(result, rewards=result.rewards, kl=result.kl)
    assert share.isnan().all()


def test_policy_mass_is_reported_and_taken_out():
    """Masses .9 and .5 over two prompts; what is left is renormalised, so rewards do not depend on it."""
    log_base = tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    rewards = tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    policy = tensor([[0.6, 0.3], [0.25, 0.25]])
    values = policy_values(policy.log(), rewards, log_base=log_base)
    assert values.mass_mean.item() == pytest.approx(0.7) and values.mass_min.item() == pytest.approx(0.5)
    assert values.prompt_rewards.flatten().tolist() == pytest.approx([2 / 3, 0.5])
    kl = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert values.prompt_kl.tolist() == pytest.approx([kl, 0.0], abs=1e-15)
    assert values.rewards.shape == (1,) and values.kl.shape == ()


def test_samples_of_the_reference_carry_importance_weights():
    """Reference (.5, .25, .25) drawn as samples (0, 0, 1, 2): given log policy - log reference - log 4, the policy
    (.2, .4, .4) is recovered with mass 1."""
    reference, policy = tensor([0.5, 0.25, 0.25]), tensor([0.2, 0.4, 0.4])
    drawn = torch.tensor([0, 0, 1, 2])
    log_ratio = (policy / reference).log()[drawn][None] - math.log(4)
    rewards = tensor([1.0, 2.0, 5.0])[drawn][None, :, None]
    values = policy_values(log_ratio, rewards)
    assert values.mass_mean.item() == pytest.approx(1.0)
    assert values.rewards.item() == pytest.approx(0.2 + 0.8 + 2.0)
    assert values.kl.item() == pytest.approx((policy * (policy / reference).log()).sum().item())


def test_pooled_candidates_stand_for_their_share_of_the_reference():
    """Support of five; half of 40,000 candidates from the reference, half from the optimum itself at beta .1.

    There exp(KL) is near 20, so 100 samples of the reference alone fall short where 100 pooled ones do not.
    """
    reference, rewards = tensor([0.5, 0.3, 0.15, 0.045, 0.005]), tensor([0.0, 0.1, 0.2, 0.5, 1.0])
    exact = oracle(rewards[None, :, None], torch.ones(1, 1), 0.1, log_base=reference.log()[None])
    optimum = (reference.log() + rewards / 0.1).softmax(-1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat(
        [p.multinomial(50 * 400, True, generator=generator).view(400, 50) for p in (reference, optimum)], 1
    )
    log_reference, log_optimum = reference.log()[drawn], optimum.log()[drawn]
    base = pooled_log_base(torch.stack([log_reference, log_optimum]), log_reference, torch.tensor([50.0, 50.0]))
    pooled = oracle(rewards[drawn][..., None], torch.ones(1, 1), 0.1, log_base=base)
    alone = reference.multinomial(100 * 400, True, generator=generator).view(400, 100)
    plain = oracle(rewards[alone][..., None], torch.ones(1, 1), 0.1)
    assert pooled.value.item() == pytest.approx(exact.value.item(), abs=0.01)
    assert plain.value.item() < exact.value.item() - 0.02
    alike = pooled_log_base(log_reference[None], log_reference)
    torch.testing.assert_close(alike, torch.full_like(alike, -math.log(100)), rtol=0, atol=1e-12)
    with pytest.raises(DefinitionError, match=r"counts \[members\] > 0"):
        pooled_log_base(log_reference[None], log_reference, torch.zeros(1))


def test_impossible_candidates_of_a_policy_are_fine():
    values = policy_values(tensor([[0.0, OFF]]), tensor([[[1.0], [0.0]]]))
    assert values.rewards.item() == 1 and values.kl.item() == pytest.approx(math.log(2))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_every_shape_problem_is_listed():
    """Checked without the shape annotations, as in production."""
    with pytest.raises(DefinitionError) as error:
        candidates(torch.zeros(2, 3, 1), log_base=torch.zeros(3, 2), mask=torch.ones(2, 4), values=torch.zeros(2, 5, 1))
    text = str(error.value)
    assert len(error.value.problems) == 4
    assert "log_base must have shape [prompts, candidates] = (2, 3), got (3, 2)" in text
    assert "mask must be boolean" in text and "values must have shape" in text


@pytest.mark.parametrize("rewards", [torch.zeros(2, 3), torch.zeros(2, 3, 1, dtype=torch.int64), torch.zeros(0, 3, 1)])
def test_rewards_that_are_no_table_of_numbers_are_refused(rewards):
    with pytest.raises(DefinitionError, match="floating-point numbers"):
        candidates(rewards)


def test_every_bad_prompt_is_named():
    rewards = torch.zeros(4, 3, 1)
    rewards[1, 2], rewards[3, 0] = math.nan, math.inf
    log_base = torch.zeros(4, 3)
    log_base[2, 1] = math.nan
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[0] = False
    with pytest.raises(DefinitionError) as error:
        oracle(rewards, torch.ones(1, 1), 0.1, log_base=log_base, mask=mask)
    text = str(error.value)
    assert "rewards are not finite for prompts 1, 3" in text
    assert "log_base is NaN or +inf for prompts 2" in text
    assert "prompts 0 have no candidate" in text


def test_weights_and_beta_are_checked():
    given_candidates = candidates(torch.zeros(2, 3, 2))
    for weights in (torch.ones(2), torch.ones(4, 3), torch.ones(0, 2)):
        with pytest.raises(DefinitionError, match="objectives = 2"):
            checked_weights(given_candidates, weights, beta=0.1)
    with pytest.raises(DefinitionError) as error:
        checked_weights(given_candidates, tensor([[1.0, math.nan], [1.0, 0.0]]), beta=tensor([0.1, -1.0, 0.1]))
    text = str(error.value)
    assert "one per weight vector" in text and "beta must be finite and > 0" in text and "rows 0" in text


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_beta_must_be_positive(beta):
    with pytest.raises(DefinitionError, match="beta must be finite and > 0"):
        oracle(torch.zeros(1, 2, 1), torch.ones(1, 1), beta)


def test_chunk_must_be_positive():
    with pytest.raises(DefinitionError, match="chunk"):
        oracle(torch.zeros(1, 2, 1), torch.ones(1, 1), 0.1, chunk=0)


def test_policies_that_do_not_fit_are_refused():
    rewards = torch.zeros(2, 3, 1)
    log_policy = torch.zeros(4, 2, 3)
    log_policy[1, 0] = OFF
    log_policy[3, 1, 0] = math.nan
    with pytest.raises(DefinitionError, match=r"\[\[1, 0\], \[3, 1\]\]"):
        policy_values(log_policy, rewards)


def test_read_only_weights_are_taken_without_a_warning() -> None:
    weights = grid(2, 2)
    weights.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert oracle(torch.rand(1, 3, 2), weights, 1.0).rewards.shape == (3, 2)
