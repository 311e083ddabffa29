"""Rows of which every policy has its own: what K policies compute at once is what each computes alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from moalign.policy.adapters import LoRA
from moalign.policy.batches import Responses
from moalign.policy.logprobs import sequence_log_probs
from moalign.policy.model import LanguageModel
from moalign.policy.own_rows import OwnRows
from moalign.policy.packing import PackedRows, Rectangle
from tests.models import tiny_model, tiny_tokenizer
from tests.policy.test_native import VARIANTS, exact_norm, language_model, trained_stack

EACH = 5


def samples(lengths: Sequence[Sequence[int]]) -> Responses:
    """Three policies' responses of the given lengths to the same prompts: two to each of the first two, one more."""
    rng = np.random.default_rng(1)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 61, n).tolist())

    return Responses(
        prompts=(tokens(9), tokens(1), tokens(30)),
        prompt_of=np.tile([0, 0, 1, 1, 2], len(lengths)),
        completions=tuple(tokens(n) for own in lengths for n in own),
    )


RAGGED = [(1, 7, 12, 1, 3), (2, 2, 1, 1, 1), (20, 1, 4, 4, 9)]
LENGTHS = {"ragged": RAGGED, "equal": [(6,) * EACH] * 3, "single tokens": [(1,) * EACH] * 3}


def per_response(own: OwnRows, values: Tensor, total: int) -> Tensor:
    """Returns the sums of the tokens' values over each response [responses]."""
    sums = values.new_zeros(total + 1).index_add(0, own.row.flatten(), values.flatten())
    return sums[:total]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_gradients_are_those_of_each_policy_alone(variant: str, lengths: str, native: bool) -> None:
    lm = language_model(variant)
    for module in lm.model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(exact_norm, module)
    if not native:
        lm.native = None
    responses = samples(LENGTHS[lengths])
    stack = trained_stack(lm, lora=LoRA(rank=3))
    chosen = [range(k * EACH, (k + 1) * EACH) for k in range(3)]
    own = OwnRows.build(lm, responses, chosen)
    assert isinstance(own.rows, PackedRows) == native
    leaves = [tuple(x.detach().requires_grad_() for x in site.views(stack.matrix)) for site in stack.sites]
    log_probs = own.log_probs(lm, stack, leaves)
    weights = torch.randn(len(responses) + 1, dtype=torch.float64)
    weights[-1] = 0  # of tokens that only fill the shape
    gradients = torch.autograd.grad((log_probs * weights[own.row]).sum(), [x for pair in leaves for x in pair])
    found = per_response(own, log_probs.detach(), len(responses))
    for k, rows in enumerate(chosen):
        alone = stack.select([k])
        one = [tuple(x.detach().requires_grad_() for x in site.views(alone.matrix)) for site in stack.sites]
        expected = sequence_log_probs(lm, lm.rows(responses, list(rows)), alone, one)[0]
        assert (expected.detach() - found[list(rows)]).abs().max() < 1e-9
        value = (expected * weights[list(rows)]).sum()
        for whole, part in zip(gradients, torch.autograd.grad(value, [x for p in one for x in p]), strict=True):
            assert (whole[k] - part[0]).abs().max() < 1e-8 * max(1.0, float(part.abs().max()))


def test_every_token_is_named_once_and_in_the_place_of_its_response() -> None:
    responses = samples(RAGGED)
    own = OwnRows.build(language_model("llama"), responses, [range(k * EACH, (k + 1) * EACH) for k in range(3)])
    flat = [t for c in responses.completions for t in c]
    owner = [r for r, c in enumerate(responses.completions) for _ in c]
    real = own.token < len(flat)
    assert sorted(own.token[real].tolist()) == list(range(len(flat)))
    assert own.rows.target[real].tolist() == [flat[t] for t in own.token[real].tolist()]
    assert own.row[real].tolist() == [owner[t] for t in own.token[real].tolist()]
    assert set(own.row[~real].tolist()) == {len(responses)}


def test_a_sequence_longer_than_the_window_is_padded() -> None:
    import transformers as t

    config = tiny_model("mistral").config.to_dict() | {"sliding_window": 40}
    lm = LanguageModel(t.MistralForCausalLM(t.MistralConfig(**config)).eval().requires_grad_(False), tiny_tokenizer())
    for last, packed in ((10, True), (20, False)):
        responses = samples([(1, 1, 1, 1, 1), (1, 1, 1, 1, last)])
        assert isinstance(OwnRows.build(lm, responses, [range(5), range(5, 10)]).rows, PackedRows) == packed


def test_tokens_that_fill_an_axis_lie_on_padding() -> None:
    rectangle = Rectangle.build_each(np.array([[2, 0], [3, 4]]))
    assert rectangle.padding is not None
    places = rectangle.places - torch.tensor([[0], [8]])
    assert places[0].tolist()[:2] == [0, 1] and bool(rectangle.padding[0, places[0, 2:]].all())
    assert places[1].tolist() == [0, 1, 2, 4, 5, 6, 7]
