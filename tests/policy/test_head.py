"""The head's log-probs and their gradient against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from moalign.policy import head
from moalign.policy.head import frozen_head_log_probs, is_frozen_projection


def make(dtype: torch.dtype, bias: bool, vocabulary: int = 37) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(6, vocabulary, bias=bias).to(dtype).requires_grad_(False)
    return layer, torch.randn(2, 23, 6, dtype=dtype), torch.randint(0, vocabulary, (23,))


def plain(states: Tensor, layer: nn.Linear, target: Tensor) -> Tensor:
    chosen = target.expand(states.shape[:2])[..., None]
    return layer(states).float().log_softmax(-1).gather(-1, chosen).squeeze(-1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_gradient_formed_on_the_way_is_the_gradient(
    bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """46 states in chunks of 16 (the least) or in one."""
    monkeypatch.setattr(head, "CHUNK_BYTES", chunk)
    layer, states, target = make(torch.float64, bias)
    assert torch.autograd.gradcheck(lambda x: frozen_head_log_probs(x, layer, target), states.requires_grad_())
    wanted = layer(states).log_softmax(-1).gather(-1, target.expand(2, -1)[..., None]).squeeze(-1)
    assert torch.allclose(frozen_head_log_probs(states, layer, target), wanted, atol=1e-12)


def test_two_tokens_by_hand() -> None:
    """Logits (h, 0) with h = log 3: probabilities 3/4, 1/4; d log p_0 / dh = 1 - 3/4, d log p_1 / dh = -3/4."""
    layer = nn.Linear(1, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[1.0], [0.0]]))
    states = torch.full((1, 2, 1), 3.0).log().requires_grad_()
    result = frozen_head_log_probs(states, layer, torch.tensor([0, 1]))
    assert result[0].exp().tolist() == pytest.approx([0.75, 0.25])
    result.sum().backward()
    assert states.grad is not None and states.grad.flatten().tolist() == pytest.approx([0.25, -0.75])


def test_large_logits_neither_overflow_nor_vanish() -> None:
    """Logits 300 apart: log-probs 0 and -300 exactly, although exp(-300) is below the smallest float32."""
    layer = nn.Linear(1, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[300.0], [0.0]]))
    result = frozen_head_log_probs(torch.ones(1, 2, 1), layer, torch.tensor([0, 1]))
    assert result.tolist() == [[0.0, -300.0]]


def test_bfloat16_sums_in_float32() -> None:
    """Given the rounded logits, log-probs are exact to float32; the gradient keeps bfloat16's 8 bits: 2^-7 of it."""
    layer, states, target = make(torch.bfloat16, True, vocabulary=1000)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    result, wanted = frozen_head_log_probs(ours, layer, target), plain(theirs, layer, target)
    assert result.dtype == torch.float32 and (result - wanted).abs().max() < 1e-5
    result.sum().backward()
    wanted.sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert (ours.grad.float() - theirs.grad.float()).abs().max() < 2**-7 * theirs.grad.abs().max()


def test_only_a_frozen_projection_qualifies() -> None:
    layer, _, _ = make(torch.float32, True)
    assert is_frozen_projection(layer)
    assert not is_frozen_projection(nn.Sequential(layer)) and not is_frozen_projection(None)
    layer.weight.requires_grad_()
    assert not is_frozen_projection(layer)
