"""Log-probabilities of completion tokens under a frozen output head, with the gradient formed on the way.

The log-probability of token y in state h is W_y h + b_y - logsumexp(W h + b), and its gradient in h is
W_y - sum_v p_v W_v: a vector that does not depend on the loss, which only scales it. So it is formed while the chunk's
probabilities are at hand, and no [tokens, vocabulary] tensor outlives its chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

CHUNK_BYTES = 3 << 24  # logits formed at once on a CPU; of few rows each reads the whole head again and costs most
CHUNK_BYTES_ACCELERATOR = 1 << 28


def is_frozen_projection(head: Any) -> bool:
    """Returns whether `head` is a plain projection none of whose parameters needs a gradient."""
    return isinstance(head, nn.Linear) and not any(p.requires_grad for p in head.parameters())


def frozen_head_log_probs(states: Tensor, head: nn.Linear, target: Tensor) -> Tensor:
    """Returns log-probs [policies, tokens] of `target` in nats, float32 at least.

    Args:
        states: [policies, tokens, width].
        head: frozen.
        target: token ids [tokens], the same for all policies, or [policies, tokens].
    """
    flat = states.reshape(-1, states.shape[-1])
    result = _HeadLogProbs.apply(flat, head.weight, head.bias, target.expand(states.shape[:-1]).flatten())  # type: ignore[no-untyped-call]
    return result.view(states.shape[:-1])


class _HeadLogProbs(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        wide = torch.promote_types(states.dtype, torch.float32)
        result = states.new_empty(len(states), dtype=wide)
        direction = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), step := _chunk(states, len(weight))):
            part = slice(start, start + step)
            logits = F.linear(states[part], weight, bias).to(wide)
            wanted = target[part, None]
            picked = logits.gather(1, wanted)
            highest = logits.amax(dim=1, keepdim=True)
            exponentials = logits.sub_(highest).exp_()
            total = exponentials.sum(dim=1, keepdim=True)
            result[part] = (picked - highest - total.log()).squeeze(1)
            if direction is not None:
                mean = exponentials.div_(total).to(states.dtype) @ weight
                direction[part] = torch.sub(weight[target[part]], mean)
        if direction is not None:
            ctx.save_for_backward(direction)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        [direction] = ctx.saved_tensors
        return direction * gradients[0].to(direction.dtype)[:, None], None, None, None


def _chunk(states: Tensor, vocabulary: int) -> int:
    size = CHUNK_BYTES if states.device.type == "cpu" else CHUNK_BYTES_ACCELERATOR
    return max(128, size // (vocabulary * max(4, states.element_size())))
