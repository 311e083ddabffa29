"""Log-probabilities of sequences from logits, in float32 at least."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sequence_log_probs(
    logits: Float[Tensor, "*stack batch tokens vocabulary"],
    targets: Int[Tensor, "*#stack batch tokens"],
    mask: Bool[Tensor, "*#stack batch tokens"],
) -> Float[Tensor, "*stack batch"]:
    """Returns summed log-probs in nats of the targets that `mask` selects; 0 where it selects none.

    Args:
        logits: scores; the ones at position t are for the target at position t, so a causal model's logits are to be
            shifted by one against its input before. Taken to float32 whatever their dtype.
        targets: token ids; where the mask is off any filler (such as -100) will do.
        mask: True at the completion tokens, the end of sequence included.
    """
    return torch.where(mask, _token_log_probs(logits, targets, mask), 0).sum(-1)


def mean_log_probs(
    logits: Float[Tensor, "*stack batch tokens vocabulary"],
    targets: Int[Tensor, "*#stack batch tokens"],
    mask: Bool[Tensor, "*#stack batch tokens"],
) -> Float[Tensor, "*stack batch"]:
    """Returns `sequence_log_probs` per selected token, in nats per token; 0 where the mask selects none.

    The losses of this package need sums: with means beta no longer weighs a KL between sequences.
    """
    return sequence_log_probs(logits, targets, mask) / mask.sum(-1).clamp_min(1)


def at_least_float32(values: Tensor) -> Tensor:
    """Returns `values`, half precision widened to float32: bfloat16 keeps no integer above 256 exactly."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _token_log_probs(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    wide = at_least_float32(logits)
    known = targets.masked_fill(~mask, 0).expand(logits.shape[:-1])  # fillers are no valid index
    # one number per token instead of a second tensor as large as the logits
    return wide.gather(-1, known.unsqueeze(-1)).squeeze(-1) - wide.logsumexp(-1)
