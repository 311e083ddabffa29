"""Sequence log-probabilities from logits."""

from __future__ import annotations

import math

import pytest
import torch

from moalign.losses import mean_log_probs, sequence_log_probs


def test_worked_sum_and_mean():
    """Steps (.2,.3,.5), (.1,.6,.3), (.25,.25,.5), labels (-100,-100,1,2). Step t scores label t + 1, so label 1 is
    scored by the second step and label 2 by the third: log .6 + log .5 = -1.203973, mean -.601986."""
    steps = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.4, 0.3, 0.3]]).log()[None]
    labels = torch.tensor([[-100, -100, 1, 2]])
    logits, targets = steps[:, :-1], labels[:, 1:]
    mask = targets != -100
    assert sequence_log_probs(logits, targets, mask).item() == pytest.approx(-1.203973, abs=1e-6)
    assert mean_log_probs(logits, targets, mask).item() == pytest.approx(-0.601986, abs=1e-6)
    assert math.log(0.6) + math.log(0.5) == pytest.approx(-1.203973, abs=1e-6)


def test_matches_log_softmax_and_ignores_an_offset_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, 3, 4, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 7, (3, 4), generator=generator)
    mask = torch.rand(3, 4, generator=generator) < 0.6
    log_probs = logits.log_softmax(-1)
    for k in range(2):
        for i in range(3):
            expected = sum(log_probs[k, i, t, targets[i, t]].item() for t in range(4) if mask[i, t])
            assert sequence_log_probs(logits, targets, mask)[k, i].item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(
        sequence_log_probs(logits + 300, targets, mask), sequence_log_probs(logits, targets, mask)
    )


@pytest.mark.parametrize("function", [sequence_log_probs, mean_log_probs])
def test_a_row_without_completion_tokens_is_zero_and_so_is_its_gradient(function):
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[1, 2, 3], [-100, -100, -100]])
    result = function(logits, targets, targets != -100)
    assert result[1].item() == 0 and result[0].item() < 0
    gradient = torch.autograd.grad(result.sum(), logits)[0]
    assert torch.isfinite(gradient).all() and not gradient[1].any() and gradient[0].any()


def test_half_precision_logits_are_normalised_in_float32():
    """Log-softmax in bfloat16 keeps 8 bits: errors near .02 on a sum of 30 tokens, far above the tolerance here."""
    logits = (4 * torch.randn(2, 30, 50, generator=torch.Generator().manual_seed(1))).bfloat16()
    targets = torch.zeros(2, 30, dtype=torch.long)
    mask = torch.ones(2, 30, dtype=torch.bool)
    result = sequence_log_probs(logits, targets, mask)
    exact = logits.double().log_softmax(-1)[..., 0].sum(-1)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-4)
    assert ((logits.log_softmax(-1)[..., 0].sum(-1).double() - exact).abs() > 1e-2).any()


def test_gradient_is_the_onehot_minus_the_probabilities():
    logits = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    targets, mask = torch.tensor([[3, 1]]), torch.tensor([[True, False]])
    gradient = torch.autograd.grad(sequence_log_probs(logits, targets, mask).sum(), logits)[0]
    onehot = torch.nn.functional.one_hot(targets[0, 0], 4).double()
    torch.testing.assert_close(gradient[0, 0], onehot - logits[0, 0].softmax(-1))
    assert not gradient[0, 1].any()
