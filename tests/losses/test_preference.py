"""DPO and MODPO: worked numbers, exact limits, gradients, the closed-form optimum, and stacks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses import collective_reward, dpo, modpo, modpo_hinge, modpo_logits, objective_reward

F64 = torch.float64


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def worked_pair() -> dict[str, Tensor]:
    """Log-ratios: chosen -12 + 13 = 1, rejected -15.5 + 15 = -0.5, so their difference is 1.5."""
    return {
        "policy_chosen": vector(-12.0),
        "policy_rejected": vector(-15.5),
        "reference_chosen": vector(-13.0),
        "reference_rejected": vector(-15.0),
    }


def worked_margins(chosen: list[float], rejected: list[float], weights: list[float]) -> dict[str, Tensor]:
    return {
        "margin_chosen": vector(*chosen)[None],
        "margin_rejected": vector(*rejected)[None],
        "margin_weights": vector(*weights),
    }


WORKED = [
    # weights, chosen margins, rejected margins, reward of chosen, of rejected, loss
    ((0.5, 0.5), [0.1], [-0.3], 0.1, 0.2, 0.744397),
    ((1.0, 0.0), [0.1], [-0.3], 0.1, -0.05, 0.620957),
    ((0.1, 0.9), [0.1], [-0.3], 0.1, 2.2, 2.215520),
    ((0.5, 0.3, 0.2), [0.1, -0.2], [-0.3, 0.1], 0.22, 0.04, 0.607192),
    ((1.0, 0.1), [-8.0], [-10.0], 0.9, 0.95, 0.718460),
]


@pytest.mark.parametrize(("weights", "chosen", "rejected", "reward_chosen", "reward_rejected", "loss"), WORKED)
def test_worked_examples(weights, chosen, rejected, reward_chosen, reward_rejected, loss):
    """First row: rho = (.1 - .05)/.5 = .1 and (-.05 + .15)/.5 = .2, so z = -.1 and log(1 + e^.1) = .744397."""
    pair, margins = worked_pair(), worked_margins(chosen, rejected, list(weights[1:]))
    common = {"trained_weight": weights[0], "margin_weights": margins["margin_weights"], "beta": 0.1}
    for side, expected in (("chosen", reward_chosen), ("rejected", reward_rejected)):
        reward = objective_reward(
            policy=pair[f"policy_{side}"],
            reference=pair[f"reference_{side}"],
            margins=margins[f"margin_{side}"],
            **common,
        )
        assert reward.item() == pytest.approx(expected, abs=1e-12)
    arguments = {**pair, **margins, "trained_weight": weights[0], "beta": 0.1}
    assert modpo_logits(**arguments).item() == pytest.approx(reward_chosen - reward_rejected, abs=1e-12)
    assert modpo(**arguments).item() == pytest.approx(loss, abs=5e-7)


def test_worked_smoothing_hinge_and_collective_reward():
    """z = -.1. Smoothed .9 log(1 + e^.1) + .1 log(1 + e^-.1) = .744397 - .1 * .1; hinge 1 + .1; collective .1 * 1."""
    pair, margins = worked_pair(), worked_margins([0.1], [-0.3], [0.5])
    arguments = {**pair, **margins, "trained_weight": 0.5, "beta": 0.1}
    assert modpo(**arguments, label_smoothing=0.1).item() == pytest.approx(0.734397, abs=5e-7)
    assert modpo_hinge(**arguments).item() == pytest.approx(1.1, abs=1e-12)
    collective = collective_reward(policy=pair["policy_chosen"], reference=pair["reference_chosen"], beta=0.1)
    assert collective.item() == pytest.approx(0.1, abs=1e-12)


def test_worked_dpo_and_its_smoothed_form():
    """log(1 + e^-.15) = .620957; smoothing by .2 adds .2 * .15."""
    assert dpo(**worked_pair(), beta=0.1).item() == pytest.approx(0.620957, abs=5e-7)
    assert dpo(**worked_pair(), beta=0.1, label_smoothing=0.2).item() == pytest.approx(0.650957, abs=5e-7)


def test_hinge_is_zero_beyond_the_margin():
    """beta 1 and no margins: z = 1.5 >= 1, nothing left to learn."""
    margins = worked_margins([0.0], [0.0], [0.0])
    assert modpo_hinge(**worked_pair(), **margins, trained_weight=1.0, beta=1.0).item() == 0


def random_batch(batch: int = 6, margins: int = 2, seed: int = 0, stack: tuple[int, ...] = ()) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("policy_chosen", "policy_rejected")
    values = {n: -30 * torch.rand(*stack, batch, generator=generator, dtype=F64) for n in names}
    for side in ("chosen", "rejected"):
        values[f"reference_{side}"] = -30 * torch.rand(batch, generator=generator, dtype=F64)
        values[f"margin_{side}"] = torch.randn(batch, margins, generator=generator, dtype=F64)
    return values


def without_margins(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if not name.startswith("margin")}


def gradients(loss: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), [batch["policy_chosen"], batch["policy_rejected"]])


def test_all_weight_on_the_trained_objective_is_dpo_with_its_gradients():
    batch = random_batch()
    for name in ("policy_chosen", "policy_rejected"):
        batch[name].requires_grad_()
    ours = modpo(**batch, trained_weight=1.0, margin_weights=vector(0.0, 0.0), beta=0.3)
    plain = dpo(**without_margins(batch), beta=0.3)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-14)
    for mine, theirs in zip(gradients(ours, batch), gradients(plain, batch), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-14)


def test_equal_margins_leave_dpo_at_the_larger_temperature():
    """Without a margin difference only beta / weight of the trained objective is left: .3 / .25 = 1.2."""
    batch = random_batch()
    batch["margin_rejected"] = batch["margin_chosen"]
    ours = modpo(**batch, trained_weight=0.25, margin_weights=vector(0.5, 0.25), beta=0.3)
    torch.testing.assert_close(ours, dpo(**without_margins(batch), beta=1.2), rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-100, 100), scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_invariances(shift, scale, seed):
    """A shift of both margins, a common scale of weights and beta, and the order of margins change nothing."""
    batch = random_batch(seed=seed)
    weights, trained, beta = vector(0.3, 0.2), 0.5, 0.1
    z = modpo_logits(**batch, trained_weight=trained, margin_weights=weights, beta=beta)
    shifted = {**batch, **{n: batch[n] + shift for n in ("margin_chosen", "margin_rejected")}}
    flipped = {**batch, **{n: batch[n].flip(-1) for n in ("margin_chosen", "margin_rejected")}}
    others = [
        modpo_logits(**shifted, trained_weight=trained, margin_weights=weights, beta=beta),
        modpo_logits(**batch, trained_weight=trained * scale, margin_weights=weights * scale, beta=beta * scale),
        modpo_logits(**flipped, trained_weight=trained, margin_weights=weights.flip(-1), beta=beta),
    ]
    for other in others:
        torch.testing.assert_close(other, z, rtol=1e-9, atol=1e-9)


def test_two_identical_margins_act_as_one_with_the_summed_weight():
    batch = random_batch(margins=1)
    doubled = {**batch, **{n: batch[n].expand(-1, 2) for n in ("margin_chosen", "margin_rejected")}}
    three = modpo(**doubled, trained_weight=0.5, margin_weights=vector(0.3, 0.2), beta=0.1)
    two = modpo(**batch, trained_weight=0.5, margin_weights=vector(0.5), beta=0.1)
    torch.testing.assert_close(three, two, rtol=1e-12, atol=1e-12)


def test_no_other_objectives_is_dpo():
    batch = random_batch(margins=0)
    ours = modpo(**batch, trained_weight=1.0, margin_weights=vector(), beta=0.1)
    torch.testing.assert_close(ours, dpo(**without_margins(batch), beta=0.1), rtol=0, atol=1e-14)


def test_start_value_is_log_two():
    batch = random_batch()
    start = {
        **batch,
        "reference_chosen": batch["policy_chosen"],
        "reference_rejected": batch["policy_rejected"],
        "margin_rejected": batch["margin_chosen"],
    }
    loss = modpo(**start, trained_weight=0.2, margin_weights=vector(0.4, 0.4), beta=0.1)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)), rtol=0, atol=1e-15)


def test_a_larger_margin_difference_raises_the_loss():
    """It asks the policy for a larger log-ratio difference than it has. A flipped sign would lower the loss."""
    pair = worked_pair()
    losses = [
        modpo(**pair, **worked_margins([m], [0.0], [0.5]), trained_weight=0.5, beta=0.1).item() for m in (-1, 0, 1)
    ]
    assert losses == sorted(losses) and losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize(("weight", "gradient"), [(1.0, 0.0463), (0.5, 0.1050), (0.1, 0.8909), (0.01, 10.0)])
def test_gradient_of_the_worked_pair_grows_as_the_trained_weight_falls(weight, gradient):
    """dL/dlog pi(chosen) = -(beta/w) sigmoid(-z), and the opposite for rejected; at w = 1: .1 sigmoid(-.15) = .0463."""
    pair = worked_pair()
    for name in ("policy_chosen", "policy_rejected"):
        pair[name].requires_grad_()
    margins = worked_margins([0.1], [-0.3], [1 - weight])
    loss = modpo(**pair, **margins, trained_weight=weight, beta=0.1)
    up, down = gradients(loss, pair)
    z = modpo_logits(**pair, **margins, trained_weight=weight, beta=0.1)
    assert up.item() == pytest.approx(-(0.1 / weight) * torch.sigmoid(-z).item(), rel=1e-12)
    assert up.item() == pytest.approx(-gradient, abs=5e-5)
    assert down.item() == -up.item()


def test_vanishing_trained_weight_leaves_an_unnormalised_hinge():
    """w L -> max(0, -(beta * 1.5 - (1 - w) * .4)) = .25 as w -> 0; at w = .01 the loss is already 24.6."""
    margins = worked_margins([0.1], [-0.3], [0.99])
    assert modpo(**worked_pair(), **margins, trained_weight=0.01, beta=0.1).item() == pytest.approx(24.6, abs=0.01)
    margins = worked_margins([0.1], [-0.3], [1.0])
    loss = modpo(**worked_pair(), **margins, trained_weight=1e-6, beta=0.1)
    assert 1e-6 * loss.item() == pytest.approx(0.25, abs=1e-9)


def test_minimiser_is_the_tilted_reference_on_a_categorical():
    """Exact Bradley-Terry labels of objective 0 on all pairs of 5 responses: the minimum is pi_ref exp(w.r / beta).

    Log-ratio differences are linear in the logits, so the loss is convex and Newton's method finds its minimum.
    """
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randn(5, 3, generator=generator, dtype=F64)
    reference = torch.randn(5, generator=generator, dtype=F64).log_softmax(0)
    weights, beta = vector(0.5, 0.3, 0.2), 0.4
    chosen, rejected = torch.combinations(torch.arange(5)).T
    labels = torch.sigmoid(rewards[chosen, 0] - rewards[rejected, 0])

    def total(logits: Tensor) -> Tensor:
        policy = logits.log_softmax(0)
        losses = modpo(
            policy_chosen=policy[chosen],
            policy_rejected=policy[rejected],
            reference_chosen=reference[chosen],
            reference_rejected=reference[rejected],
            margin_chosen=rewards[chosen, 1:],
            margin_rejected=rewards[rejected, 1:],
            trained_weight=weights[0],
            margin_weights=weights[1:],
            beta=beta,
            labels=labels,
        )
        return losses.sum()

    logits = reference.clone()
    for _ in range(40):
        gradient = torch.autograd.functional.jacobian(total, logits)
        hessian = torch.autograd.functional.hessian(total, logits)
        logits = logits - torch.linalg.pinv(hessian, hermitian=True, rtol=1e-10) @ gradient
    tilted = (reference + rewards @ weights / beta).softmax(0)
    torch.testing.assert_close(logits.softmax(0), tilted, rtol=0, atol=1e-9)


def test_soft_labels_mix_the_two_orders():
    """A label of .7 is .7 times the loss of the pair plus .3 times the loss of the pair turned round."""
    batch = random_batch()
    turned = {
        name.replace("chosen", "X").replace("rejected", "chosen").replace("X", "rejected"): value
        for name, value in batch.items()
    }
    common = {"trained_weight": 0.5, "margin_weights": vector(0.3, 0.2), "beta": 0.1}
    soft = modpo(**batch, **common, labels=torch.full((6,), 0.7, dtype=F64))
    mixture = 0.7 * modpo(**batch, **common) + 0.3 * modpo(**turned, **common)
    torch.testing.assert_close(soft, mixture, rtol=1e-12, atol=1e-12)


def test_soft_label_is_matched_exactly_at_its_own_log_odds():
    """The gradient in z is sigmoid(z) - label, so a pair whose z is logit(.7) is at rest under the label .7."""
    z = math.log(0.7 / 0.3)
    policy = vector(z).requires_grad_()
    loss = dpo(
        policy_chosen=policy,
        policy_rejected=vector(0.0),
        reference_chosen=vector(0.0),
        reference_rejected=vector(0.0),
        beta=1.0,
        labels=vector(0.7),
    )
    assert torch.autograd.grad(loss.sum(), policy)[0].item() == pytest.approx(0, abs=1e-15)


def test_smoothing_acts_on_soft_labels():
    """p' = (1 - eps) p + eps (1 - p): .9 * .8 + .1 * .2 = .74."""
    batch = without_margins(random_batch())
    smoothed = dpo(**batch, beta=0.1, labels=torch.full((6,), 0.8, dtype=F64), label_smoothing=0.1)
    direct = dpo(**batch, beta=0.1, labels=torch.full((6,), 0.74, dtype=F64))
    torch.testing.assert_close(smoothed, direct, rtol=1e-12, atol=1e-12)


def test_no_labels_and_no_smoothing_is_the_plain_loss_bit_for_bit():
    batch = {name: value.float() for name, value in random_batch(64).items()}
    common = {"trained_weight": 0.3, "margin_weights": vector(0.3, 0.4).float(), "beta": 0.1}
    plain = -torch.nn.functional.logsigmoid(modpo_logits(**batch, **common))
    assert torch.equal(modpo(**batch, **common), plain)
    torch.testing.assert_close(modpo(**batch, **common, labels=torch.ones(64)), plain)


@pytest.mark.parametrize("difference", [2000.0, -2000.0])
@pytest.mark.parametrize("labels", [None, torch.tensor([1.0]), torch.tensor([0.25])])
def test_far_log_ratios_stay_finite(difference, labels):
    policy = torch.tensor([difference], requires_grad=True)
    zero = torch.zeros(1)
    loss = dpo(
        policy_chosen=policy,
        policy_rejected=zero,
        reference_chosen=zero,
        reference_rejected=zero,
        beta=1.0,
        labels=labels,
    )
    certain = 1.0 if labels is None else labels.item()
    expected = 2000 * (1 - certain if difference > 0 else certain)
    assert loss.item() == pytest.approx(expected)
    assert torch.isfinite(torch.autograd.grad(loss.sum(), policy)[0]).all()


@pytest.mark.parametrize("loss", [modpo, modpo_hinge, modpo_logits])
def test_a_stack_equals_separate_calls(loss):
    """Weights, beta and policies differ along the stack; reference and margins are shared."""
    batch = random_batch(stack=(3,))
    trained, others, beta = vector(0.5, 0.2, 1.0), torch.rand(3, 2, dtype=F64), vector(0.1, 0.4, 0.2)
    stacked = loss(**batch, trained_weight=trained, margin_weights=others, beta=beta)
    assert stacked.shape == (3, 6)
    for k in range(3):
        own = {**batch, **{n: batch[n][k] for n in ("policy_chosen", "policy_rejected")}}
        single = loss(**own, trained_weight=trained[k].item(), margin_weights=others[k], beta=beta[k].item())
        torch.testing.assert_close(stacked[k], single, rtol=1e-13, atol=1e-13)


def test_a_stack_of_weights_on_one_policy():
    batch = random_batch()
    stacked = modpo(**batch, trained_weight=vector(0.5, 1.0), margin_weights=torch.rand(2, 2, dtype=F64), beta=0.1)
    assert stacked.shape == (2, 6)


def test_two_stack_axes_broadcast():
    """Seeds along the first axis, weights along the second."""
    batch = random_batch(stack=(4, 3))
    trained = vector(0.5, 0.2, 1.0)
    stacked = modpo(**batch, trained_weight=trained, margin_weights=torch.rand(3, 2, dtype=F64), beta=0.1)
    assert stacked.shape == (4, 3, 6)
    rewards = objective_reward(
        policy=batch["policy_chosen"],
        reference=batch["reference_chosen"],
        margins=batch["margin_chosen"],
        trained_weight=trained,
        margin_weights=torch.rand(3, 2, dtype=F64),
        beta=0.1,
    )
    assert rewards.shape == (4, 3, 6)


def test_half_precision_inputs_are_computed_in_float32():
    """bfloat16 has no integer between 256 and 258: the length margin 257 must not be touched on its way."""
    half = {name: value.bfloat16() for name, value in without_margins(random_batch()).items()}
    lengths = {"margin_chosen": torch.full((6, 1), -257.0), "margin_rejected": torch.full((6, 1), -256.0)}
    common = {"trained_weight": 1.0, "margin_weights": torch.tensor([0.1], dtype=torch.bfloat16), "beta": 0.1}
    loss = modpo(**half, **lengths, **common)
    wide = {name: value.float() for name, value in half.items()}
    exact = modpo(**wide, **lengths, **{**common, "margin_weights": common["margin_weights"].float()})
    assert loss.dtype == torch.float32 and torch.equal(loss, exact)


def test_only_log_probs_that_ask_for_gradients_get_them():
    batch = random_batch()
    batch["policy_chosen"].requires_grad_()
    loss = modpo(**batch, trained_weight=0.5, margin_weights=vector(0.3, 0.2), beta=0.1)
    loss.sum().backward()
    assert batch["policy_chosen"].grad is not None and batch["reference_chosen"].grad is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"beta": 0.0}, "beta is 0"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"trained_weight": 0.0}, "divides by the weight of the trained objective"),
        ({"label_smoothing": 0.5}, r"\[0, 0.5\)"),
        ({"label_smoothing": -0.1}, r"\[0, 0.5\)"),
    ],
)
def test_plain_numbers_out_of_range_are_refused_in_the_loss(changed, words):
    arguments = {"trained_weight": 0.5, "margin_weights": vector(0.3, 0.2), "beta": 0.1, **changed}
    with pytest.raises(DefinitionError, match=words):
        modpo(**random_batch(), **arguments)
