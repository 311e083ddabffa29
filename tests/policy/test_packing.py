"""Packed rows against the padded rows of the same responses."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.packing import PackedRows, packed_passes

CPU = torch.device("cpu")
TOKENS = st.lists(st.integers(3, 60), min_size=1, max_size=6).map(tuple)


@st.composite
def some_responses(draw: st.DrawFn) -> Responses:
    prompts = draw(st.lists(TOKENS, min_size=1, max_size=4))
    completions = draw(st.lists(TOKENS, min_size=1, max_size=8))
    of = draw(st.lists(st.integers(0, len(prompts) - 1), min_size=len(completions), max_size=len(completions)))
    return Responses(prompts=tuple(prompts), prompt_of=np.array(of), completions=tuple(completions))


def test_a_batch_of_three_responses_to_two_prompts() -> None:
    """Prompt 0 (7 8) comes second: it is first used by the second response. Last completion tokens are not fed.

    Tokens: prompt 1 = (9), prompt 0 = (7 8), then (20 21) of 20 21 22, nothing of 30, (40) of 40 41.
    """
    responses = Responses(
        prompts=((7, 8), (9,)), prompt_of=np.array([1, 0, 0]), completions=((20, 21, 22), (30,), (40, 41))
    )
    rows = PackedRows.build(responses, [0, 1, 2], CPU)
    assert rows.ids.tolist() == [9, 7, 8, 20, 21, 40]
    assert rows.position.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.prompt_of.tolist() == [0, 1, 1] and rows.last.tolist() == [0, 2]
    assert rows.target.tolist() == [20, 30, 40, 21, 22, 41] and rows.row.tolist() == [0, 1, 2, 0, 0, 2]
    assert rows.prompts.slots.tolist() == [[0, 0], [1, 2]] and rows.prompts.places.tolist() == [0, 2, 3]
    assert rows.completions is not None and rows.visible is not None
    assert rows.completions.places.tolist() == [0, 1, 4]
    assert rows.visible[0, 0].int().tolist() == [[1, 0, 1, 0], [1, 0, 1, 1]]  # a prompt of one token, padded to two
    assert rows.visible[2, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert rows.tokens == 6 and rows.longest == 4


def test_equal_prompt_lengths_share_one_mask_and_one_token_completions_need_none() -> None:
    responses = Responses(prompts=((7, 8), (9, 9)), prompt_of=np.array([0, 1]), completions=((20, 21), (30, 31)))
    rows = PackedRows.build(responses, [0, 1], CPU)
    assert rows.visible is not None and rows.visible.shape == (1, 1, 1, 3) and rows.prompts.padding is None
    short = Responses(prompts=((7, 8),), prompt_of=np.array([0, 0]), completions=((20,), (30,)))
    rows = PackedRows.build(short, [0, 1], CPU)
    assert rows.completions is None and rows.visible is None and rows.target.tolist() == [20, 30]


@settings(max_examples=30, deadline=None)
@given(some_responses())
def test_targets_and_rows_are_those_of_padded_rows(responses: Responses) -> None:
    chosen = list(range(len(responses)))
    packed, padded = PackedRows.build(responses, chosen, CPU), PaddedRows.build(responses, chosen, 2, CPU)
    order = packed.row.argsort(stable=True)
    assert packed.target[order].tolist() == padded.target.tolist()
    assert packed.row[order].tolist() == padded.row.tolist()
    used = sum(len(responses.prompts[p]) for p in set(responses.prompt_of.tolist()))
    assert packed.tokens == used + sum(len(c) - 1 for c in responses.completions) <= padded.tokens


@settings(max_examples=30, deadline=None)
@given(some_responses(), st.integers(1, 3), st.integers(1, 60))
def test_passes_hold_every_response_once_within_the_budget(responses: Responses, policies: int, most: int) -> None:
    passes = list(packed_passes(responses, policies, most, enough=most))
    assert sorted(i for part in passes for i in part) == list(range(len(responses)))
    for part in passes:
        assert len(part) == 1 or PackedRows.build(responses, part, CPU).tokens * policies <= most


def test_a_long_prompt_is_not_repeated_for_the_sake_of_a_small_pass() -> None:
    """Nine responses of 4 computed tokens; a prompt of 10 is repeated only after 80 tokens, one of 1 after 8."""

    def sizes(prompt: int, most: int) -> list[int]:
        responses = Responses(
            prompts=((5,) * prompt,), prompt_of=np.zeros(9, dtype=np.int64), completions=((6,) * 5,) * 9
        )
        return [len(part) for part in packed_passes(responses, 1, most, enough=10)]

    assert sizes(10, most=1000) == [9] and sizes(1, most=1000) == [2, 2, 2, 2, 1]
    assert sizes(10, most=20) == [2, 2, 2, 2, 1]  # 10 + 4 + 4 tokens fit, 4 more do not
