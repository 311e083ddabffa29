"""How texts, and pairs of prompt and response, become rows of tokens for a scoring model, and rows become batches.

Layouts. With a template: its own text with the prompt and the response put in; special tokens are recognised in the
template only. Without one, encoders get the tokenizer's layout for a pair of texts, and decoder-only models the prompt
directly followed by the response inside the tokenizer's special tokens. Prompt and response are tokenised apart, so
that a prompt has the same tokens whatever follows it. Over-long pairs lose the beginning of the prompt; a text that
stands alone loses its end.

Batches are padded on the right; what is padding is known from the lengths, never from the token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from moalign.arrays import IntArray
from moalign.errors import ModelError

_UNLIMITED = 10**9  # tokenizers without a limit say 1e30


class Frame(NamedTuple):
    """Token ids around prompt and response, with the segment number of each part."""

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[int, ...] = (0, 0, 0, 0, 0)  # before, prompt, between, response, after


class TokenRow(NamedTuple):
    """One laid-out text or pair."""

    ids: list[int]
    segments: list[int]


class TokenBatch(NamedTuple):
    """Padded rows as tensors, and which of the given rows they are."""

    rows: IntArray  # [batch], places in the list of all rows
    ids: Any  # [batch, tokens]
    mask: Any  # [batch, tokens], 1 at tokens, 0 at padding
    segments: Any  # [batch, tokens]
    last: Any  # [batch], place of the last token

    def inputs(self, tokenizer: Any) -> dict[str, Any]:
        """Returns the arguments of a model that reads the whole row; segments where the tokenizer has them."""
        extra = {"token_type_ids": self.segments} if "token_type_ids" in tokenizer.model_input_names else {}
        return {"input_ids": self.ids, "attention_mask": self.mask, **extra}


@final
class Layout:
    """The layout of one tokenizer and model under one template and limit.

    Attributes:
        fits: tokens of prompt and response that fit beside the layout's own; None without a limit.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        causal: bool,
        template: str | None,
        max_length: int | None,
        limit: int | None,
        name: str,
        alone: bool = False,
    ) -> None:
        """Reads the tokenizer's layout.

        Args:
            tokenizer: a fast tokenizer.
            causal: whether the model is decoder-only.
            template: text with {prompt} and {response}; the tokenizer's own layout when None.
            max_length: tokens of a whole row; `limit` when None.
            limit: tokens the model takes; None without a limit.
            name: what to call the model in messages.
            alone: lay out single texts instead of pairs; the template then does not apply.

        Raises:
            ModelError: more tokens are asked for than the model takes, or the layout's own leave no room.
        """
        if max_length is not None and limit is not None and max_length > limit:
            raise ModelError(f"{name} takes {limit} tokens at most; max_length is {max_length}.")
        room = max_length or limit
        self.tokenizer = tokenizer
        self.name = name
        self.alone = alone
        self.frame = _single(tokenizer) if alone else _frame(tokenizer, causal, template)
        fixed = len(self.frame.before) + len(self.frame.between) + len(self.frame.after)
        if room is not None and room <= fixed:
            raise ModelError(f"{name}: {fixed} tokens of the template leave no room within {room}.")
        self.fits = None if room is None else room - fixed

    def rows(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[list[TokenRow], int]:
        """Returns the laid-out pairs and how many were cut to fit; with `alone` the responses are the texts.

        Raises:
            ModelError: a pair without a single token.
        """
        whole = [(self._ids(p), self._ids(r)) for p, r in zip(prompts, responses, strict=True)]
        cut = sum(self.fits is not None and len(p) + len(r) > self.fits for p, r in whole)
        return [self._row(prompt, response) for prompt, response in whole], cut

    def _ids(self, text: str) -> list[int]:
        # Text that merely spells a special token must not become one.
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoded["input_ids"])

    def _row(self, prompt: list[int], response: list[int]) -> TokenRow:
        if self.fits is not None:
            response = response[: self.fits] if self.alone else response[-self.fits :]
            prompt = prompt[max(len(prompt) + len(response) - self.fits, 0) :]
        parts = (self.frame.before, prompt, self.frame.between, response, self.frame.after)
        if not any(parts):
            what = "an empty text" if self.alone else "an empty prompt with an empty response"
            raise ModelError(f"{self.name}: {what} has no tokens.")
        return TokenRow(
            ids=[token for part in parts for token in part],
            segments=[number for part, number in zip(parts, self.frame.segments, strict=True) for _ in part],
        )


def batches(rows: Sequence[TokenRow], batch_size: int, pad: int | None, device: Any) -> Iterator[TokenBatch]:
    """Yields all rows in padded batches, alike lengths together, shortest first."""
    order = np.argsort([len(row.ids) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield padded([rows[i] for i in chosen], chosen, pad, device)


def padded(rows: Sequence[TokenRow], places: IntArray, pad: int | None, device: Any) -> TokenBatch:
    """Returns rows as one batch, padded on the right; `pad` is masked, so any token does when None."""
    import torch

    lengths = torch.tensor([len(row.ids) for row in rows], device=device)
    width = int(lengths.max())
    ids = torch.tensor([row.ids + [pad or 0] * (width - len(row.ids)) for row in rows], device=device)
    segments = torch.tensor([row.segments + [0] * (width - len(row.ids)) for row in rows], device=device)
    mask = (torch.arange(width, device=device) < lengths[:, None]).long()
    return TokenBatch(np.asarray(places), ids, mask, segments, lengths - 1)


def longest(model: Any, tokenizer: Any) -> int | None:
    """Returns how many tokens fit, or None without a limit; RoBERTa-like models lose positions to the padding id."""
    positions = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("embeddings.position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    limits = [n for n in (positions, tokenizer.model_max_length) if n is not None and 0 < n < _UNLIMITED]
    return int(min(limits)) if limits else None


def template_problems(template: object) -> list[str]:
    """Returns why a template cannot be used, one sentence each."""
    if not isinstance(template, str):
        return [f"template must be text, got {type(template).__name__}."]
    counts = {mark: template.count(mark) for mark in ("{prompt}", "{response}")}
    problems = [f"template must hold {mark} once, found {n} times." for mark, n in counts.items() if n != 1]
    if not problems and template.index("{prompt}") > template.index("{response}"):
        problems.append("template must hold {prompt} before {response}.")
    return problems


def _frame(tokenizer: Any, causal: bool, template: str | None) -> Frame:
    if template is not None:
        before, rest = template.split("{prompt}")
        between, after = rest.split("{response}")
        ids = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before, between, after)]
        return Frame(ids[0], ids[1], ids[2])
    if causal:
        return _single(tokenizer)
    pair, owners, numbers = _probe(tokenizer, "a", "b")
    starts = (0, owners.index(0), _end(owners, 0), owners.index(1), _end(owners, 1))
    segments = tuple(numbers[min(start, len(pair) - 1)] for start in starts)
    return Frame(pair[: starts[1]], pair[starts[2] : starts[3]], pair[starts[4] :], segments)


def _single(tokenizer: Any) -> Frame:
    ids, owners, _ = _probe(tokenizer, "a")
    return Frame(ids[: owners.index(0)], [], ids[_end(owners, 0) :])


def _probe(tokenizer: Any, *texts: str) -> tuple[list[int], list[int | None], list[int]]:
    """Returns ids, the text each token comes from (None for special ones) and segment numbers of short texts."""
    encoded = tokenizer(*texts)
    ids = list(encoded["input_ids"])
    return ids, list(encoded.sequence_ids(0)), list(encoded.get("token_type_ids") or [0] * len(ids))


def _end(owners: list[int | None], text: int) -> int:
    return len(owners) - owners[::-1].index(text)
