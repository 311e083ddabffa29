"""Responses packed without padding, every prompt stored once.

The token axis holds all prompts of the batch, one after another, and then all completions. The last token of a
completion predicts nothing and is left out. Linear algebra runs on this flat axis; only attention needs rectangles,
and the index tensors that lead there and back are kept here: prompts attend among themselves, a completion attends to
its prompt and to its own earlier tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import IntArray
from moalign.policy.batches import Responses
from moalign.policy.tensors import to_device

CHEAP_REPETITION = 8  # a prompt may be computed again once its pass holds this many times its tokens


@final
@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sequences of different lengths as rows of a rectangle, and back.

    Attributes:
        slots: token of each place [rows, longest]; padding places name some token of the batch.
        places: place of each token [tokens] in the flattened rectangle.
        Where every policy has sequences of its own, both are [policies, ...] and count over all policies.
        padding: where `slots` is padding [rows * longest], or [policies, rows * longest]; None if there is none.
    """

    slots: Tensor
    places: Tensor
    padding: Tensor | None

    @staticmethod
    def build(lengths: Sequence[int]) -> Rectangle:
        """Returns the rectangle of consecutive sequences of the given lengths."""
        longest = max(lengths)
        column = torch.arange(longest)
        length = torch.tensor(lengths)[:, None]
        start = torch.cat([length.new_zeros(1), length.flatten().cumsum(0)[:-1]])[:, None]
        real = column < length
        slots = torch.where(real, start + column, 0)
        places = torch.nonzero(real.flatten()).flatten()
        return Rectangle(slots, places, None if bool(real.all()) else ~real.flatten())

    @staticmethod
    def build_each(lengths: IntArray) -> Rectangle:
        """Returns the rectangles of every policy's own consecutive sequences, of lengths [policies, rows].

        Policies with fewer tokens than others have more at the end to fill the axis, whose places are padding.
        """
        policies, rows = lengths.shape
        totals, longest = lengths.sum(axis=1), int(lengths.max())
        tokens = int(totals.max())
        real = np.arange(longest) < lengths[..., None]  # [policies, rows, longest]
        before = np.arange(policies)[:, None] * tokens + np.cumsum(lengths, axis=1) - lengths
        slots = np.where(real, before[..., None] + np.arange(longest), 0)
        flat = real.reshape(policies, -1)
        places = np.argmin(flat, axis=1)[:, None] + np.zeros((policies, tokens), dtype=np.int64)
        places[np.arange(tokens) < totals[:, None]] = np.nonzero(flat)[1]
        places += np.arange(policies)[:, None] * rows * longest
        padding = None if bool(real.all()) else torch.from_numpy(~flat)
        return Rectangle(torch.from_numpy(slots), torch.from_numpy(places), padding)


@final
@dataclass(frozen=True, eq=False)
class PackedRows:
    """The distinct responses of a batch on one flat token axis.

    Attributes:
        ids: tokens [tokens], or [policies, tokens] where every policy has its own; prompts first, then completions.
        position: of the tokens in their own sequence, shaped as `ids`.
        rows: number of responses.
        prompts, completions: the rectangles of the two parts; None where no completion has a second token.
        prompt_of: prompt of each response, counted within the batch [rows].
        visible: which keys (prompt, then own) a completion's tokens see [1 or rows, 1, longest, keys]; None as above.
        last: last token of each prompt [prompts].
        target: completion tokens, shaped as `ids`: the first of every row, then the others in the order of that axis.
        row: the row of each target; `rows` for those that only fill a shape.
    """

    ids: Tensor
    position: Tensor
    rows: int
    prompts: Rectangle
    completions: Rectangle | None
    prompt_of: Tensor
    visible: Tensor | None
    last: Tensor
    target: Tensor
    row: Tensor

    @property
    def tokens(self) -> int:
        """Returns the number of tokens that one policy computes."""
        return self.ids.shape[-1]

    @property
    def longest(self) -> int:
        """Returns the length of the longest sequence of prompt and completion tokens computed."""
        return self.prompts.slots.shape[1] + (0 if self.completions is None else self.completions.slots.shape[-1])

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompts.places)

    @staticmethod
    def build(responses: Responses, chosen: Sequence[int], device: torch.device, multiple: int = 1) -> PackedRows:
        """Returns the chosen responses, in this order, and their prompts, in order of first use.

        With a `multiple` above 1 all prompts, and all completions, are stretched to one length, the next multiple, by
        repeating their last token, so that batches of many shapes become batches of few. No real token sees a repeated
        one, and what these predict counts for an extra row after the others.
        """
        number: dict[int, int] = {}
        prompt_of = [number.setdefault(int(responses.prompt_of[index]), len(number)) for index in chosen]
        prompts = [responses.prompts[p] for p in number]
        completions = [responses.completions[index] for index in chosen]
        fed = [c[:-1] for c in completions]
        ids = [i for sequence in (*prompts, *fed) for i in sequence]
        position = [j for p in prompts for j in range(len(p))]
        position += [len(prompts[p]) + j for p, c in zip(prompt_of, fed, strict=True) for j in range(len(c))]
        lengths = [len(p) for p in prompts]
        layout = _Layout.of(lengths, [len(c) for c in fed], prompt_of, multiple)
        own = Rectangle.build(layout.completions) if any(layout.completions) else None
        starts = [end - length for end, length in zip(accumulate(layout.prompts), layout.prompts, strict=True)]
        following = [i for c in completions for i in c[1:]]
        owner = [r for r, c in enumerate(fed) for _ in c]
        tail = [(owner[t], following[t]) if t is not None else (len(chosen), ids[0]) for t in layout.predicting]

        def tensor(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long)

        packed = PackedRows(
            ids=tensor([ids[t] for t in layout.tokens]),
            position=tensor([position[t] for t in layout.tokens]),
            rows=len(chosen),
            prompts=Rectangle.build(layout.prompts),
            completions=own,
            prompt_of=tensor(prompt_of),
            visible=None if own is None else visible_keys([lengths[p] for p in prompt_of], max(layout.prompts), own),
            last=tensor([start + length - 1 for start, length in zip(starts, lengths, strict=True)]),
            target=tensor([*(c[0] for c in completions), *(target for _, target in tail)]),
            row=tensor([*range(len(chosen)), *(row for row, _ in tail)]),
        )
        return to_device(packed, device)


@final
@dataclass(frozen=True)
class _Layout:
    """Which tokens stand on the token axis.

    Attributes:
        prompts, completions: length of each.
        tokens: for each place of the axis the token there, counted without repetitions: prompts, then completions.
        predicting: for each place of the completions the completion token there, None for repetitions.
    """

    prompts: Sequence[int]
    completions: Sequence[int]
    tokens: Sequence[int]
    predicting: Sequence[int | None]

    @staticmethod
    def of(prompts: Sequence[int], completions: Sequence[int], prompt_of: Sequence[int], multiple: int) -> _Layout:
        """Returns the layout of prompts and completions of these lengths."""
        first = sum(prompts)
        total = first + sum(completions)
        if multiple == 1:
            return _Layout(prompts, completions, range(total), range(total - first))
        widths = [-(-max(lengths) // multiple) * multiple for lengths in (prompts, completions)]
        ends = list(accumulate((*prompts, *completions)))
        tokens: list[int] = []
        predicting: list[int | None] = []
        for place, length in enumerate((*prompts, *completions)):
            own = list(range(ends[place] - length, ends[place]))
            row = place - len(prompts)
            repeated = ends[prompt_of[row]] - 1 if row >= 0 and not own else ends[place] - 1
            lacking = widths[row >= 0] - length
            tokens += own + [repeated] * lacking
            if row >= 0:
                predicting += [token - first for token in own] + [None] * lacking
        return _Layout([widths[0]] * len(prompts), [widths[1]] * len(completions), tokens, predicting)


@final
class TokenTable:
    """The tokens that packed rows compute, numbered over a whole data set: all prompts, then all completions."""

    def __init__(self, responses: Responses) -> None:
        self._prompt_of = responses.prompt_of
        self._prompts = np.cumsum([0, *(len(p) for p in responses.prompts)])
        self._completions = np.cumsum([self._prompts[-1], *(len(c) - 1 for c in responses.completions)])

    def __len__(self) -> int:
        return int(self._completions[-1])

    def of(self, chosen: Sequence[int], multiple: int = 1) -> IntArray:
        """Returns the number of each token of `PackedRows.build(responses, chosen, device, multiple)`, in its order."""
        number: dict[int, int] = {}
        prompt_of = [number.setdefault(int(self._prompt_of[index]), len(number)) for index in chosen]
        parts = [np.arange(self._prompts[p], self._prompts[p + 1]) for p in number]
        parts += [np.arange(self._completions[c], self._completions[c + 1]) for c in chosen]
        lengths = [len(part) for part in parts]
        layout = _Layout.of(lengths[: len(number)], lengths[len(number) :], prompt_of, multiple)
        return np.concatenate(parts)[np.asarray(layout.tokens)]


def visible_keys(prompt_lengths: Sequence[int], longest: int, own: Rectangle) -> Tensor:
    """Returns which of [`longest` prompt places | own tokens] completion queries see; one for all rows if it can be."""
    different = sorted(set(prompt_lengths))
    lengths = torch.tensor(prompt_lengths if len(different) > 1 else different)
    width = own.slots.shape[-1]
    prompt = torch.arange(longest) < lengths[:, None]  # [rows, prompt]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    parts = [prompt[:, None, :].expand(-1, width, -1), causal.expand(len(lengths), -1, -1)]
    return torch.cat(parts, dim=2)[:, None]


def packed_passes(responses: Responses, policies: int, most: int, enough: int) -> Iterator[list[int]]:
    """Yields response indices, those of one prompt together.

    Args:
        responses: what is to be computed.
        policies: how many compute it.
        most: tokens of all policies that a pass may hold (a single response may need more).
        enough: tokens after which a pass ends at the next prompt, or within a prompt whose repetition costs little.
    """
    length = [len(p) for p in responses.prompts]
    of = [int(p) for p in responses.prompt_of]
    order = sorted(range(len(of)), key=lambda i: (length[of[i]], of[i], len(responses.completions[i])))
    part: list[int] = []
    tokens = 0
    for index in order:
        prompt, own = length[of[index]], len(responses.completions[index]) - 1
        known = bool(part) and of[part[-1]] == of[index]
        total = (tokens + own + (0 if known else prompt)) * policies
        worth_ending = not known or tokens >= CHEAP_REPETITION * prompt
        if part and (total > most or (total > enough and worth_ending)):
            yield part
            part, tokens, known = [], 0, False
        part.append(index)
        tokens += own + (0 if known else prompt)
    if part:
        yield part
