"""Measures of hidden states and next-token distributions: CHES scores, top-k mass and entropy. Needs torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.errors import DefinitionError


class Ches(NamedTuple):
    """Centred hidden embedding similarity of pairs; higher means more alike, and more displacement in training."""

    raw: Tensor  # [pairs], grows with length
    normalised: Tensor  # [pairs], of mean states; use this one to filter


def ches(
    chosen: Float[Tensor, "pairs chosen_tokens width"],
    chosen_mask: Bool[Tensor, "pairs chosen_tokens"],
    rejected: Float[Tensor, "pairs rejected_tokens width"],
    rejected_mask: Bool[Tensor, "pairs rejected_tokens"],
) -> Ches:
    """Returns <S+, S-> - |S+|^2 with S the sum of the states that predict a response's tokens.

    Args:
        chosen, rejected: last hidden states (the head's input) at the positions that predict the response's tokens:
            from the last prompt token to the last but one response token.
        chosen_mask, rejected_mask: True at these positions, False at padding, wherever that is.

    Raises:
        DefinitionError: a response without tokens.

    Source: arXiv 2410.08847, definition 2 and its length-normalised form.
    """
    sums, counts = [], []
    for states, mask in ((chosen, chosen_mask), (rejected, rejected_mask)):
        count = mask.sum(-1)
        if bool((count == 0).any()):
            raise DefinitionError(
                f"pairs {(count == 0).nonzero().flatten().tolist()[:5]} have a response without tokens."
            )
        sums.append(torch.where(mask[..., None], states.float(), 0).sum(1))
        counts.append(count[:, None])
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    return Ches(*((first * (second - first)).sum(-1) for first, second in (sums, means)))


class TopK(NamedTuple):
    """Of the k most likely next tokens at each position."""

    mass: Tensor  # [...], their probability in all
    entropy: Tensor  # [...], nats, of their probabilities renormalised


def top_k(logits: Float[Tensor, "*positions vocabulary"], k: int = 10) -> TopK:
    """Returns mass and entropy of the k most likely tokens.

    Both falling while the loss still improves is the phase in which diversity is lost. Source: arXiv 2410.11677.
    """
    if not 1 <= k <= logits.shape[-1]:
        raise DefinitionError(f"k must be from 1 to the vocabulary of {logits.shape[-1]}, got {k}.")
    best = logits.float().log_softmax(-1).topk(k, -1).values
    mass = best.logsumexp(-1)
    share = best - mass[..., None]
    return TopK(mass.exp(), -(share.exp() * share).sum(-1))
