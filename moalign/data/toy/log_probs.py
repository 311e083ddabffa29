"""Exact log-probabilities of every enumerable reply under a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.data.toy.grammar import RESPONSES
from moalign.data.toy.tokenizer import encode, encode_replies, right_pad
from moalign.errors import DefinitionError


@torch.no_grad()
def log_probs_table(model: Any, tokenizer: Any, prompts: Sequence[str], batch: int = 256) -> FloatArray:
    """Returns log p(response, end | prompt) of every enumerable reply under a causal language model, [prompts, 256].

    Sums over the tokens of the reply and the end-of-sequence token, in nats, float64; log-softmax in float32. The
    exponentials of a row add up to the model's mass on the grammar, at most 1: for an exact reference normalise them,
    and report the mass beside every number that does.

    Args:
        model: a causal language model of transformers; evaluated as it is (put it into eval mode).
        tokenizer: its tokenizer; prompt and reply are tokenised separately, nothing is added but the end.
        prompts: of the 96.
        batch: sequences per forward pass, sorted by length over all prompts.

    Raises:
        DefinitionError: a prompt that is not one of the 96, or a tokenizer without end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise DefinitionError("The tokenizer has no eos_token; the end of a reply could not be scored.")
    heads = encode(tokenizer, prompts)
    tails = [tail for prompt in prompts for tail in encode_replies(tokenizer, prompt)]
    sequences = [heads[i // RESPONSES] + tail for i, tail in enumerate(tails)]
    order = sorted(range(len(tails)), key=lambda i: len(sequences[i]))
    table = np.empty(len(tails))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        table[rows] = _sum_log_probs(model, [sequences[i] for i in rows], [len(tails[i]) for i in rows])
    return table.reshape(len(prompts), RESPONSES)


def _sum_log_probs(model: Any, sequences: list[list[int]], scored: list[int]) -> FloatArray:
    """Returns the log-probability of the last `scored` tokens of each sequence, [batch]."""
    ids, mask = right_pad(sequences)  # [batch, tokens]
    lengths = mask.sum(dim=1, keepdim=True)
    position = torch.arange(1, ids.shape[1])[None]
    score = (position < lengths) & (position >= lengths - torch.tensor(scored)[:, None])  # [batch, tokens - 1]
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    token = logits.gather(-1, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
    summed = torch.where(score.to(model.device), token, 0.0).double().sum(dim=1)
    return np.asarray(summed.cpu().numpy())
