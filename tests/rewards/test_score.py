"""`score` calls any kind of reward and lets only one finite number per text through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import Conversation
from moalign.errors import DefinitionError, RewardError
from moalign.rewards import score, word_count

PROMPTS = ["p0", "p1", "p2"]
RESPONSES = ["first", "second", "third"]


def scored(values, **options):
    return score(lambda prompts, responses: values, PROMPTS, RESPONSES, name="helpful", **options)


@pytest.mark.parametrize(
    "values",
    [
        [1, -2, 0.5],
        (1.0, -2.0, 0.5),
        np.array([1, -2, 0.5], dtype=np.float16),
        [np.float32(1), np.float64(-2), 0.5],
        torch.tensor([1, -2, 0.5]),
        torch.tensor([1, -2, 0.5], requires_grad=True),
        torch.tensor([1, -2, 0.5], dtype=torch.bfloat16),
        [torch.tensor(1.0, requires_grad=True), torch.tensor(-2), torch.tensor(0.5)],
    ],
    ids=["list", "tuple", "float16", "numpy scalars", "tensor", "with gradient", "bfloat16", "tensors"],
)
def test_every_container_of_numbers_becomes_float64(values):
    result = scored(values)
    assert result.dtype == np.float64 and result.tolist() == [1, -2, 0.5]


def test_booleans_and_integers_are_numbers():
    assert scored([True, False, True]).tolist() == [1, 0, 1]
    assert scored(torch.tensor([3, 4, 5])).tolist() == [3, 4, 5]


def test_the_result_is_the_callers_own():
    values = np.ones(3)
    scored(values)[0] = 7
    assert values[0] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 2)), r"returned shape (3, 2) for 3 texts; expected 3 numbers."),
        (torch.zeros(3, 1), r"returned shape (3, 1) for 3 texts; expected 3 numbers. Use .squeeze(-1)."),
        ([1.0, 2.0], r"returned shape (2,) for 3 texts; expected 3 numbers."),
        (1.0, r"returned shape () for 3 texts; expected 3 numbers."),
        ([], r"returned shape (0,) for 3 texts; expected 3 numbers."),
        (None, "returned NoneType for 3 texts; expected 3 numbers."),
        (["1", "2", "3"], "returned a list with str for 3 texts; expected 3 numbers."),
        ([1.0, "x", 2.0], "returned a list with str for 3 texts; expected 3 numbers."),
        ([[1.0], [1.0, 2.0], [3.0]], "returned a list with list for 3 texts; expected 3 numbers."),
        ({"score": [1, 2, 3]}, "returned dict for 3 texts; expected 3 numbers."),
        ([1j, 2, 3], "returned a list with complex for 3 texts; expected 3 numbers."),
        ((x for x in [1, 2, 3]), "returned generator for 3 texts; expected 3 numbers."),
    ],
)
def test_anything_but_one_number_per_text_is_refused(values, message):
    with pytest.raises(RewardError) as caught:
        scored(values)
    assert str(caught.value) == f"reward 'helpful' {message} First text: \"first\""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan"), float("nan")], 'NaN for 2 of 3 texts; expected finite numbers. First text: "second"'),
        ([1.0, None, 2.0], 'NaN for 1 of 3 texts; expected finite numbers. First text: "second"'),
        (torch.tensor([0, 0, -torch.inf]), 'infinity for 1 of 3 texts; expected finite numbers. First text: "third"'),
        ([np.inf, np.nan, 0], 'NaN or infinity for 2 of 3 texts; expected finite numbers. First text: "first"'),
    ],
)
def test_values_that_are_not_finite_are_counted_and_the_first_text_is_shown(values, message):
    with pytest.raises(RewardError) as caught:
        scored(values)
    assert str(caught.value) == f"reward 'helpful' returned {message}"


def test_texts_in_messages_are_short_and_without_control_characters():
    """Escape (1B), a right-to-left override (202E) and a newline are escaped; 60 characters are shown."""
    text = "\x1b[31mred\u202e\n" + "x" * 100
    with pytest.raises(RewardError) as caught:
        score(lambda p, r: [float("nan")], ["p"], [text], name="r")
    shown = str(caught.value)
    assert '"\\x1b[31mred\\u202e\\n' in shown and shown.isprintable()
    assert shown.endswith('x ..."') and shown.count("x") < 60


def test_an_exception_of_the_reward_is_wrapped_and_kept():
    def broken(prompts, responses):
        raise KeyError("model")

    with pytest.raises(RewardError, match="reward 'harmless' failed on 3 texts: KeyError: 'model'") as caught:
        score(broken, PROMPTS, RESPONSES, name="harmless")
    assert isinstance(caught.value.__cause__, KeyError)


def test_conversations_reach_the_reward_as_text():
    seen = []
    score(lambda p, r: seen.extend(p) or [0], [Conversation((("user", "Hi"),))], ["x"], name="r")
    assert seen == ["Human: Hi\n\nAssistant:"] and type(seen[0]) is str


def test_rewards_of_trl_are_called_by_keyword_and_get_the_columns_they_ask_for():
    def all_of_them(completions, **kwargs):
        return [len(c) + len(p) + len(kwargs["topic"]) for c, p in zip(completions, kwargs["prompts"], strict=True)]

    def one(prompts, completions, answer):
        return [float(c == a) for c, a in zip(completions, answer, strict=True)]

    columns = {"answer": ("first", "x", "third"), "topic": ("a", "b", "c")}
    assert score(one, PROMPTS, RESPONSES, name="r", columns=columns).tolist() == [1, 0, 1]
    assert score(all_of_them, PROMPTS, RESPONSES, name="r", columns=columns).tolist() == [10, 11, 10]
    assert score(lambda completions: [1, 2, 3], PROMPTS, RESPONSES, name="r").tolist() == [1, 2, 3]
    with pytest.raises(RewardError, match="TypeError: .*missing 1 required positional argument: 'answer'"):
        score(one, PROMPTS, RESPONSES, name="r")


def test_arguments_are_checked_before_the_reward_is_called():
    with pytest.raises(DefinitionError, match="one response per prompt, got 1 and 2"):
        score(word_count, ["p"], ["a", "b"], name="r")
    with pytest.raises(DefinitionError, match="must be callable as reward\\(prompts, responses\\), got 3"):
        score(3, ["p"], ["a"], name="r")
    with pytest.raises(DefinitionError, match="the class Reward; make an object of it"):
        score(type("Reward", (), {}), ["p"], ["a"], name="r")
    assert score(lambda p, r: 1 / 0, [], [], name="r").shape == (0,)


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_finite_numbers_pass_unchanged(values):
    texts = ["t"] * len(values)
    assert score(lambda p, r: values, texts, texts, name="r").tolist() == values
