"""Rows of which every policy has its own: what K policies sampled for the same prompts.

For the native pass each policy has a token axis with all prompts and then its own completions. Policies that sampled
fewer tokens than others fill theirs with tokens that no real one sees and that predict nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.policy.adapters import AdapterStack, attached
from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.logprobs import completion_states, token_log_probs
from moalign.policy.model import LanguageModel
from moalign.policy.packing import PackedRows, Rectangle, visible_keys
from moalign.policy.tensors import to_device


@final
@dataclass(frozen=True, eq=False)
class OwnRows:
    """The responses of K policies laid out for one pass.

    Attributes:
        rows: packed, with `ids`, `position`, `target`, `row` [policies, ...]; or padded, those of all policies in turn.
        row: response of each predicted token, counted over all policies [policies or 1, tokens]; that of a token that
            only fills the shape is their number.
        token: number of each predicted token among those of all responses in turn [policies or 1, tokens]; that of a
            token that only fills the shape is their number.
    """

    rows: PackedRows | PaddedRows
    row: Tensor
    token: Tensor

    @staticmethod
    def build(language_model: LanguageModel, responses: Responses, chosen: Sequence[Sequence[int]]) -> OwnRows:
        """Returns the rows of the chosen responses [policies][each], whose prompts are the same for all policies."""
        if language_model.native is not None:
            longest = max(_length(responses, i) for own in chosen for i in own)
            if longest <= language_model.native.window:
                return _packed(responses, chosen, language_model.device)
        flat = [i for own in chosen for i in own]
        rows = PaddedRows.build(responses, flat, language_model.pad_id, language_model.device)
        return OwnRows(rows, rows.row[None], torch.arange(len(rows.target), device=rows.target.device)[None])

    def log_probs(
        self, language_model: LanguageModel, stack: AdapterStack, leaves: Sequence[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """Returns log-probs [policies or 1, tokens] of the predicted tokens under the policy of their row, in nats.

        Args:
            language_model: the frozen base.
            stack: the adapters.
            leaves: A and B per site to use instead of the stack's own views.
        """
        if isinstance(self.rows, PackedRows):
            states = completion_states(language_model, self.rows, stack, leaves)
        else:
            with attached(language_model.model, stack, leaves):
                hidden, _ = language_model.hidden(self.rows.ids)
            states = hidden[self.rows.row, self.rows.position][None]
        return token_log_probs(language_model, states, self.rows.target)


def _length(responses: Responses, i: int) -> int:
    return len(responses.prompts[int(responses.prompt_of[i])]) + len(responses.completions[i]) - 1


def own_tokens(language_model: LanguageModel, responses: Responses, each: int) -> int:
    """Returns about how many tokens one policy computes for its `each` responses, filling included."""
    if language_model.native is None:
        return responses.longest * each
    policies = len(responses) // each
    return sum(map(len, responses.prompts)) + sum(map(len, responses.completions)) // policies


def _packed(responses: Responses, chosen: Sequence[Sequence[int]], device: torch.device) -> OwnRows:
    policies, each = len(chosen), len(chosen[0])
    number: dict[int, int] = {}
    prompt_of = [number.setdefault(int(responses.prompt_of[i]), len(number)) for i in chosen[0]]
    prompts = [responses.prompts[p] for p in number]
    before = np.array([len(prompts[p]) for p in prompt_of])  # tokens before each completion
    completions = [responses.completions[i] for own in chosen for i in own]
    lengths = np.array([len(c) for c in completions])
    total = int(lengths.sum())
    ids = np.array([i for c in completions for i in c] + [0])  # the last fills shapes
    row = np.append(np.repeat(np.arange(policies * each), lengths), policies * each)
    first = np.cumsum(lengths) - lengths
    place = np.append(np.arange(total) - np.repeat(first, lengths), 0)  # within its completion
    fed = (lengths - 1).reshape(policies, each)
    width = int(fed.sum(axis=1).max())
    following = np.full((policies, width), total)  # tokens after the first, those that the fed tokens predict
    following[np.arange(width) < fed.sum(axis=1)[:, None]] = np.flatnonzero(place[:-1])
    token = np.concatenate([first.reshape(policies, each), following], axis=1)
    ahead = [i for p in prompts for i in p]
    places = [j for p in prompts for j in range(len(p))]
    within = np.where(row[following] < policies * each, row[following] % each, each)
    position = np.append(np.repeat(np.tile(before, policies), lengths), 0) + place - 1

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))

    own = Rectangle.build_each(fed) if width else None
    rows = PackedRows(
        ids=tensor(np.concatenate([np.tile(ahead, (policies, 1)), ids[following - 1]], axis=1)),
        position=tensor(np.concatenate([np.tile(places, (policies, 1)), np.maximum(position[following], 0)], axis=1)),
        rows=each,
        prompts=Rectangle.build([len(p) for p in prompts]),
        completions=own,
        prompt_of=tensor(np.array(prompt_of)),
        visible=None if own is None else visible_keys(before.tolist(), max(map(len, prompts)), own),
        last=tensor(np.cumsum([len(p) for p in prompts]) - 1),
        target=tensor(ids[token]),
        row=tensor(np.concatenate([np.tile(np.arange(each), (policies, 1)), within], axis=1)),
    )
    return to_device(OwnRows(rows, tensor(row[token]), tensor(token)), device)
