"""Tokenised responses and the preference pairs between them, and the order in which training sees them.

A response that stands in several pairs is stored once, and computed once per batch. Columns are either per response
(rewards, reference log-probs) or per pair (labels).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import IntArray
from moalign.errors import DataError
from moalign.policy.tensors import to_device


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Responses:
    """Tokenised responses to prompts.

    Attributes:
        prompts: token ids per prompt.
        prompt_of: index into `prompts` per response.
        completions: token ids per response, end-of-sequence token included where the response ended.
    """

    prompts: tuple[tuple[int, ...], ...]
    prompt_of: IntArray
    completions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        empty = [i for i, c in enumerate(self.completions) if not c]
        if empty:
            raise DataError(f"Response {empty[0]} has no tokens ({len(empty)} such); remove empty responses.")
        if len(self.prompt_of) != len(self.completions):
            raise DataError(f"{len(self.completions)} responses but {len(self.prompt_of)} prompt indices.")

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def longest(self) -> int:
        """Returns the most tokens that a prompt and its completion have together."""
        pairs = zip(self.prompt_of.tolist(), self.completions, strict=True)
        return max((len(self.prompts[p]) + len(c) for p, c in pairs), default=0)

    def key(self) -> str:
        """Returns a hash of all token ids."""
        digest = hashlib.sha256()
        for ids in self.prompts:
            digest.update(np.asarray(ids, np.int64).tobytes() + b"p")
        digest.update(np.ascontiguousarray(self.prompt_of).tobytes())
        for ids in self.completions:
            digest.update(np.asarray(ids, np.int64).tobytes() + b"c")
        return digest.hexdigest()


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PreferenceData:
    """Preference pairs between tokenised responses.

    Attributes:
        responses: the responses compared.
        pairs: [pairs, 2] indices of (first, second) response; a label says how likely the first is preferred.
        response_columns: name -> array [responses, ...] (rewards, reference log-probs).
        pair_columns: name -> array [pairs, ...] (labels).
    """

    responses: Responses
    pairs: IntArray
    response_columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    pair_columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in self.response_columns.items():
            if len(column) != len(self.responses):
                raise DataError(f"Column {name!r} has {len(column)} rows for {len(self.responses)} responses.")
        for name, column in self.pair_columns.items():
            if len(column) != len(self.pairs):
                raise DataError(f"Column {name!r} has {len(column)} rows for {len(self.pairs)} pairs.")
        of = self.responses.prompt_of[self.pairs]
        if len(self.pairs) and (of[:, 0] != of[:, 1]).any():
            row = int(np.flatnonzero(of[:, 0] != of[:, 1])[0])
            raise DataError(f"Pair {row} compares responses to two different prompts.")

    def __len__(self) -> int:
        return len(self.pairs)

    def keep(self, rows: np.ndarray) -> PreferenceData:
        """Returns the data with only the given pairs (mask or indices)."""
        columns = {name: column[rows] for name, column in self.pair_columns.items()}
        return replace(self, pairs=self.pairs[rows], pair_columns=columns)

    def with_response_columns(self, **columns: np.ndarray) -> PreferenceData:
        """Returns the data with further columns per response."""
        return replace(self, response_columns={**self.response_columns, **columns})


@final
@dataclass(frozen=True, eq=False)
class PaddedRows:
    """Token rows of some responses, padded on the right, and where their completion tokens are predicted.

    Attributes:
        ids: [rows, tokens].
        row, position: index of the state that predicts each completion token [completion tokens].
        target: the completion tokens.
    """

    ids: Tensor
    row: Tensor
    position: Tensor
    target: Tensor

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Returns the number of tokens that one policy computes."""
        return self.ids.numel()

    @staticmethod
    def build(responses: Responses, chosen: Sequence[int], pad_id: int, device: torch.device) -> PaddedRows:
        """Returns rows prompt + completion of the chosen responses."""
        rows: list[list[int]] = []
        owner: list[int] = []
        position: list[int] = []
        target: list[int] = []
        for row, index in enumerate(chosen):
            prompt = responses.prompts[int(responses.prompt_of[index])]
            completion = responses.completions[index]
            rows.append([*prompt, *completion])
            owner.extend([row] * len(completion))
            position.extend(range(len(prompt) - 1, len(prompt) - 1 + len(completion)))
            target.extend(completion)
        longest = max(map(len, rows))
        ids = torch.tensor([r + [pad_id] * (longest - len(r)) for r in rows])
        return to_device(PaddedRows(ids, *(torch.tensor(values) for values in (owner, position, target))), device)


def batch_order(data: PreferenceData, batch_size: int, by_prompt: bool, seed: int, skip: int = 0) -> Iterator[IntArray]:
    """Returns arrays of pair indices without end, every epoch in a new order that depends only on `seed` and the epoch.

    Args:
        data: the pairs.
        batch_size: pairs per batch, or prompts per batch (with all their pairs) when `by_prompt`.
        by_prompt: draw prompts instead of pairs.
        seed: of the order.
        skip: batches to pass over (a resumed run starts where it stopped).
    """
    return shuffled(_units(data, by_prompt), batch_size, seed, skip)


def shuffled(units: Sequence[IntArray], batch_size: int, seed: int, skip: int = 0) -> Iterator[IntArray]:
    """Yields the indices of `batch_size` units (all, if there are fewer) at a time, as `batch_order` does."""
    size = min(batch_size, len(units))
    per_epoch = len(units) // size
    epoch, start = divmod(skip, per_epoch)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(units))
        for step in range(start, per_epoch):
            yield np.concatenate([units[u] for u in order[step * size : (step + 1) * size]])
        epoch, start = epoch + 1, 0


def steps_per_epoch(data: PreferenceData, batch_size: int, by_prompt: bool) -> int:
    """Returns how many batches of `batch_order` see the data once."""
    units = len(_units(data, by_prompt))
    return units // min(batch_size, units)


def _units(data: PreferenceData, by_prompt: bool) -> list[IntArray]:
    """Returns the pair indices that are drawn together."""
    if not by_prompt:
        return [np.array([i]) for i in range(len(data))]
    prompt = data.responses.prompt_of[data.pairs[:, 0]]
    return [np.flatnonzero(prompt == p) for p in np.unique(prompt)]


def padded_passes(responses: Responses, policies: int, most: int) -> Iterator[list[int]]:
    """Yields response indices, similar lengths together, in passes of at most `most` tokens."""
    lengths = [
        len(responses.prompts[int(p)]) + len(c) for p, c in zip(responses.prompt_of, responses.completions, strict=True)
    ]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    part: list[int] = []
    for index in order:
        if part and (len(part) + 1) * lengths[index] * policies > most:
            yield part
            part = []
        part.append(index)
    if part:
        yield part
