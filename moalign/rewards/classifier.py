"""Loading a sequence-classification model and scoring batches of texts with it.

Layouts. With a template: its own text with the prompt and the response put in; special tokens are recognised in the
template only. Without one, encoders get the tokenizer's layout for a pair of texts, and decoder-only models the prompt
directly followed by the response inside the tokenizer's special tokens. Prompt and response are tokenised apart, so
that a prompt has the same tokens whatever follows it. Over-long pairs lose the beginning of the prompt.

Pooling. Batches are padded on the right, and the last token of a decoder-only model is found from the attention mask.
The library's own pooling looks for the padding token instead, and reads the wrong position when texts end in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DataWarning, ModelError

_MOST_LOADED = 8  # models kept in memory
_UNLIMITED = 10**9  # tokenizers without a limit say 1e30


class _Layout(NamedTuple):
    """Token ids around prompt and response, with the segment number of each part."""

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[int, ...] = (0, 0, 0, 0, 0)  # before, prompt, between, response, after


class _Sequence(NamedTuple):
    ids: list[int]
    segments: list[int]


@final
class Classifier:
    """One loaded model and tokenizer. `cut` and `scored` count pairs over the life of the process."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.causal = _is_causal(model, folder)
        self.limit = _longest(model, tokenizer)
        self.cut = 0
        self.scored = 0

    def scores(
        self, prompts: Sequence[str], responses: Sequence[str], *, name: str, template: str | None, index: int,
        batch_size: int, max_length: int | None,
    ) -> FloatArray:  # fmt: skip
        """Returns output `index` of the head for each pair, float64 [n]; arguments as in `RewardModel`."""
        room = self._room(name, max_length)
        layout = self._layout(template)
        fits = _fitting(layout, room, name)
        whole = [(self._ids(p), self._ids(r)) for p, r in zip(prompts, responses, strict=True)]
        self._count(name, fits, sum(fits is not None and len(p) + len(r) > fits for p, r in whole), len(whole))
        sequences = [_sequence(layout, p, r, fits, name) for p, r in whole]
        values = np.zeros(len(sequences))
        order = np.argsort([len(s.ids) for s in sequences], kind="stable")  # alike lengths waste little padding
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            values[rows] = self._forward([sequences[i] for i in rows], index)
        return values

    def _room(self, name: str, max_length: int | None) -> int | None:
        if max_length is not None and self.limit is not None and max_length > self.limit:
            raise ModelError(f"reward model {name!r} takes {self.limit} tokens at most; max_length is {max_length}.")
        return max_length or self.limit

    def _layout(self, template: str | None) -> _Layout:
        if template is not None:
            before, rest = template.split("{prompt}")
            between, after = rest.split("{response}")
            texts = (before, between, after)
            ids = [list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
            return _Layout(ids[0], ids[1], ids[2])
        if self.causal:
            single, owners, _ = _probe(self.tokenizer, "a")
            return _Layout(single[: owners.index(0)], [], single[_end(owners, 0) :])
        pair, owners, numbers = _probe(self.tokenizer, "a", "b")
        starts = (0, owners.index(0), _end(owners, 0), owners.index(1), _end(owners, 1))
        segments = tuple(numbers[min(start, len(pair) - 1)] for start in starts)
        return _Layout(pair[: starts[1]], pair[starts[2] : starts[3]], pair[starts[4] :], segments)

    def _ids(self, text: str) -> list[int]:
        # Text that merely spells a special token must not become one.
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _count(self, name: str, fits: int | None, cut: int, scored: int) -> None:
        if cut and not self.cut:
            warnings.warn(
                f"reward model {name!r}: {cut} of {scored} pairs exceed the {fits} tokens that fit and lose the"
                " beginning of the prompt. RewardModel.truncated() keeps count.",
                DataWarning,
                stacklevel=4,
            )
        self.cut += cut
        self.scored += scored

    def _forward(self, sequences: Sequence[_Sequence], index: int) -> FloatArray:
        import torch

        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(s.ids) for s in sequences], device=device)
        width = int(lengths.max())
        pad = self.tokenizer.pad_token_id or 0  # masked, so any row of the embedding does
        ids = torch.tensor([s.ids + [pad] * (width - len(s.ids)) for s in sequences], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()  # [batch, tokens]
        with torch.inference_mode():
            if self.causal:
                states = self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                last = states[torch.arange(len(sequences), device=device), lengths - 1].float()  # [batch, hidden]
                head = self.model.score
                bias = None if head.bias is None else head.bias.float()
                outputs = torch.nn.functional.linear(last, head.weight.float(), bias)
            else:
                segments = torch.tensor([s.segments + [0] * (width - len(s.ids)) for s in sequences], device=device)
                extra = {"token_type_ids": segments} if "token_type_ids" in self.tokenizer.model_input_names else {}
                outputs = self.model(input_ids=ids, attention_mask=mask, **extra).logits.float()
        return outputs[:, index].double().cpu().numpy()


@lru_cache(maxsize=_MOST_LOADED)
def load_classifier(folder: Path, dtype: str, device: str | None) -> Classifier:
    """Returns the model of a local folder in evaluation mode; the same object for the same arguments.

    Raises:
        ModelError: the folder cannot be loaded, or lacks weights of the head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **local
        )
    except Exception as error:  # a damaged folder fails in many places of three libraries
        raise ModelError(f"{folder} cannot be loaded as a reward model: {type(error).__name__}: {error}") from error
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise ModelError(f"{folder} lacks weights that would be random: {', '.join(absent[:5])}. Save the whole model.")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder} has a slow tokenizer. Save the fast one (tokenizer.json) into the folder.")
    target = torch.get_default_device() if device is None else torch.device(device)
    return Classifier(model.to(target).eval(), tokenizer, folder)


def _fitting(layout: _Layout, room: int | None, name: str) -> int | None:
    """Returns how many tokens of prompt and response fit beside the layout's own, None without a limit."""
    fixed = len(layout.before) + len(layout.between) + len(layout.after)
    if room is not None and room <= fixed:
        raise ModelError(f"reward model {name!r}: {fixed} tokens of the template leave no room within {room}.")
    return None if room is None else room - fixed


def _sequence(layout: _Layout, prompt: list[int], response: list[int], fits: int | None, name: str) -> _Sequence:
    if fits is not None:
        response = response[-fits:]
        prompt = prompt[max(len(prompt) + len(response) - fits, 0) :]
    parts = (layout.before, prompt, layout.between, response, layout.after)
    if not any(parts):
        raise ModelError(f"reward model {name!r}: an empty prompt with an empty response has no tokens.")
    return _Sequence(
        ids=[token for part in parts for token in part],
        segments=[number for part, number in zip(parts, layout.segments, strict=True) for _ in part],
    )


def _is_causal(model: Any, folder: Path) -> bool:
    import torch
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    if isinstance(getattr(model, "score", None), torch.nn.Linear):
        return True
    if type(model.config) in MODEL_FOR_MASKED_LM_MAPPING:
        return False
    raise ModelError(
        f"{folder}: the head of {type(model).__name__} is neither an encoder's nor a linear layer called 'score', "
        "so it is not known which token it reads. Wrap the model in a function of prompts and responses."
    )


def _longest(model: Any, tokenizer: Any) -> int | None:
    """Returns how many tokens fit, or None without a limit; RoBERTa-like models lose positions to the padding id."""
    positions = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("embeddings.position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    limits = [n for n in (positions, tokenizer.model_max_length) if n is not None and 0 < n < _UNLIMITED]
    return int(min(limits)) if limits else None


def _probe(tokenizer: Any, *texts: str) -> tuple[list[int], list[int | None], list[int]]:
    """Returns ids, the text each token comes from (None for special ones) and segment numbers of short texts."""
    encoded = tokenizer(*texts)
    ids = list(encoded["input_ids"])
    return ids, list(encoded.sequence_ids(0)), list(encoded.get("token_type_ids") or [0] * len(ids))


def _end(owners: list[int | None], text: int) -> int:
    return len(owners) - owners[::-1].index(text)
