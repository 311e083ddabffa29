"""Log-probabilities and KL of K policies on given responses, completion tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from moalign.errors import ModelError
from moalign.policy.adapters import AdapterStack, attached
from moalign.policy.batches import PaddedRows
from moalign.policy.head import frozen_head_log_probs
from moalign.policy.model import LanguageModel, Rows
from moalign.policy.native import Adapters, Trunk

HEAD_ELEMENTS = 1 << 25  # logits formed at once; larger batches recompute them piece by piece in the backward pass


def shared_trunk(language_model: LanguageModel, rows: Rows, stack: AdapterStack) -> Trunk | None:
    """Returns what all policies share below their first adapter, worth keeping between chunks of policies; or None."""
    if isinstance(rows, PaddedRows) or language_model.native is None:
        return None
    return language_model.native.trunk(rows, (site.name for site in stack.sites))


def completion_states(
    language_model: LanguageModel,
    rows: Rows,
    stack: AdapterStack | None,
    leaves: Sequence[tuple[Tensor, Tensor]] | None = None,
    trunk: Trunk | None = None,
) -> Tensor:
    """Returns the states that predict the completion tokens [policies, completion tokens, width] (1 without a stack).

    Args:
        language_model: the frozen base.
        rows: the responses; packed rows take the native pass, padded ones the model's own.
        stack: the adapters, None for the base.
        leaves: A and B per site to use instead of the stack's own views.
        trunk: what `shared_trunk` gave for the same rows and sites; ignored where it gave None.
    """
    if isinstance(rows, PaddedRows):
        return _hooked_states(language_model, rows, stack, leaves)
    if language_model.native is None:
        raise ModelError("Packed rows need the native pass, which this model does not have; use PaddedRows.")
    if stack is None:
        return language_model.native.states(rows, Adapters())
    pairs = leaves if leaves is not None else [site.views(stack.matrix) for site in stack.sites]
    named = {site.name: pair for site, pair in zip(stack.sites, pairs, strict=True)}
    return language_model.native.states(rows, Adapters(named, stack.lora.scale), trunk)


def _hooked_states(
    language_model: LanguageModel,
    rows: PaddedRows,
    stack: AdapterStack | None,
    leaves: Sequence[tuple[Tensor, Tensor]] | None,
) -> Tensor:
    """Rows are padded on the right only, so causal attention needs no mask: no real token sees a padding token."""
    policies = 1 if stack is None else len(leaves[0][0]) if leaves is not None else len(stack)
    with attached(language_model.model, stack, leaves):
        states, _ = language_model.hidden(rows.ids.repeat(policies, 1))
    states = states.view(policies, *rows.ids.shape, states.shape[-1])
    return states[:, rows.row, rows.position]


def token_log_probs(language_model: LanguageModel, states: Tensor, target: Tensor) -> Tensor:
    """Returns log-probs [policies, completion tokens] of `target` ([policies or 1, ...] too), in float32 at least."""

    def piece(part: Tensor, wanted: Tensor) -> Tensor:
        logits = _at_least_float32(language_model.logits(part))
        picked = logits.gather(-1, wanted[..., None]).squeeze(-1)
        return picked - logits.logsumexp(-1)

    if language_model.frozen_head is not None:
        return frozen_head_log_probs(states, language_model.frozen_head, target)
    policies, tokens = states.shape[:2]
    wanted = target.expand(policies, tokens)
    step = max(1, HEAD_ELEMENTS // (policies * language_model.vocabulary))
    if step >= tokens:
        return piece(states, wanted)
    pieces = []
    for start in range(0, tokens, step):
        part, goal = states[:, start : start + step], wanted[:, start : start + step]
        pieces.append(checkpoint(piece, part, goal, use_reentrant=False) if part.requires_grad else piece(part, goal))
    return torch.cat(pieces, dim=1)


def sum_per_row(values: Tensor, rows: Rows) -> Tensor:
    """Returns [policies, rows]: sums of `values` [policies, completion tokens] over each row's completion."""
    with_extra = values.new_zeros(len(values), rows.rows + 1)  # the last is for places that only fill a shape
    return with_extra.scatter_add(1, rows.row.expand_as(values), values)[:, : rows.rows]


def sequence_log_probs(
    language_model: LanguageModel,
    rows: Rows,
    stack: AdapterStack | None,
    leaves: Sequence[tuple[Tensor, Tensor]] | None = None,
    trunk: Trunk | None = None,
) -> Tensor:
    """Returns summed completion log-probs [policies, rows] in nats."""
    states = completion_states(language_model, rows, stack, leaves, trunk)
    return sum_per_row(token_log_probs(language_model, states, rows.target), rows)


def sequence_kl(
    language_model: LanguageModel, rows: Rows, policy: AdapterStack, base_rows: Rows | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (KL, policy log-probs, reference log-probs), each [rows], on responses sampled from one policy.

    KL is the sum over completion tokens of the exact KL between the two next-token distributions. Averaged over
    samples of the policy it is an unbiased, always non-negative estimate of its sequence KL to the reference, in nats.

    Args:
        language_model: the frozen base.
        rows: the policy's own samples.
        policy: a stack of one.
        base_rows: the same completions behind the prompts that the reference sees, where those are others.
    """
    policy_states = completion_states(language_model, rows, policy)[0]
    reference_states = completion_states(language_model, base_rows or rows, None)[0]
    if base_rows is not None and not torch.equal(base_rows.target, rows.target):
        raise ModelError("The two prompts' rows do not hold the same completions in the same order.")
    step = max(1, HEAD_ELEMENTS // language_model.vocabulary)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(policy_states), step):
        part = slice(start, start + step)
        own = _at_least_float32(language_model.logits(policy_states[part])).log_softmax(-1)
        reference = _at_least_float32(language_model.logits(reference_states[part])).log_softmax(-1)
        target = rows.target[part, None]
        kl = (own.exp() * (own - reference)).sum(-1)
        parts.append((kl, own.gather(-1, target).squeeze(-1), reference.gather(-1, target).squeeze(-1)))
    kl, own, reference = (sum_per_row(torch.cat(p)[None], rows)[0] for p in zip(*parts, strict=True))
    return kl, own, reference


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
