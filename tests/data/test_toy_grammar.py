"""The toy grammar and its three objectives: counts, exact probabilities, hand-written replies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import toy
from moalign.data.toy.grammar import CLOSING, NO_STEP, PRESENT, apology_for, require_stated, stated
from moalign.errors import DefinitionError, RewardError

PROMPT = "Customer: My fan got wet.\nAgent:"
TOWEL = "Wipe it with a towel."  # right for "got wet"
DAYS = "Wait for two full days."  # right
OVEN = "Dry it in the oven."  # wrong
SOAP = "Rinse it again with soap."  # wrong


def scores(response: str, prompt: str = PROMPT) -> tuple[float, ...]:
    """Returns (helpful, brief, polite)."""
    return tuple(reward([prompt], [response])[0] for reward in toy.rewards().values())


def test_there_are_96_prompts_with_256_replies_each() -> None:
    prompts = toy.all_prompts()
    assert len(set(prompts)) == len(prompts) == len(toy.ITEMS) * len(toy.COMPLAINTS) == 12 * 8
    assert PROMPT in prompts
    for prompt in prompts:
        replies = toy.enumerate_responses(prompt)
        assert len(set(replies)) == len(replies) == 2 * 2 * 2**6


def test_each_complaint_has_four_right_and_two_wrong_steps() -> None:
    for complaint in toy.COMPLAINTS:
        assert [step.right for step in complaint.steps].count(True) == 4
        assert len(complaint.steps) == 6


def test_the_last_word_names_the_sentence() -> None:
    for complaint in toy.COMPLAINTS:
        ends = [text.split()[-1] for text in (*(s.text for s in complaint.steps), CLOSING, NO_STEP)]
        assert len(set(ends)) == len(ends), complaint.phrase


def test_every_sentence_ends_in_its_only_full_stop() -> None:
    """The rewards cut at full stops, so one inside a step would hide it."""
    texts = [s.text for c in toy.COMPLAINTS for s in c.steps] + [CLOSING, NO_STEP, apology_for("fan")]
    assert all(text.count(".") == 1 and text.endswith(".") and text[0].isupper() for text in texts)


def test_replies_keep_their_order() -> None:
    """Row 0 has nothing, row 1 only the last step, row 64 only the closing, row 128 only the apology, 255 all."""
    replies = toy.enumerate_responses(PROMPT)
    sorry = apology_for("fan")
    assert replies[0] == NO_STEP
    assert replies[1] == DAYS
    assert replies[64] == f"{NO_STEP} {CLOSING}"
    assert replies[128] == f"{sorry} {NO_STEP}"
    steps = " ".join(step.text for step in require_stated(PROMPT)[1].steps)
    assert replies[255] == f"{sorry} {steps} {CLOSING}"


@pytest.mark.parametrize("seed", range(5))
def test_every_item_and_complaint_occurs_in_training(seed: int) -> None:
    parts = toy.split(seed)
    assert (len(parts.train), len(parts.held_out)) == (80, 16)
    assert sorted(parts.train + parts.held_out) == sorted(toy.all_prompts())
    found = [require_stated(prompt) for prompt in parts.train]
    assert {item for item, _ in found} == set(toy.ITEMS)
    assert {complaint for _, complaint in found} == set(toy.COMPLAINTS)


def test_hard_splits_are_drawn_again_until_they_cover_everything() -> None:
    """With 32 training prompts for 12 items most draws leave one out."""
    for seed in range(5):
        found = [require_stated(prompt) for prompt in toy.split(seed, held_out=64).train]
        assert len({i for i, _ in found}) == 12 and len({c for _, c in found}) == 8


def test_splits_differ_by_seed_only() -> None:
    assert toy.split(1) == toy.split(1)
    assert toy.split(1) != toy.split(2)
    with pytest.raises(DefinitionError, match="between 1 and 64"):
        toy.split(0, held_out=96)
    with pytest.raises(DefinitionError, match="seed"):
        toy.split(-1)


def test_grammar_probabilities_are_products() -> None:
    """Nothing at all: 0.6 (apology) 0.6 (closing) 0.55**4 (right steps) 0.65**2 (wrong steps)."""
    log_probs = toy.grammar_log_probs(PROMPT)
    assert log_probs.shape == (256,) and log_probs.dtype == np.float64
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)
    assert log_probs[0] == pytest.approx(np.log(0.6 * 0.6 * 0.55**4 * 0.65**2))
    assert log_probs[255] == pytest.approx(np.log(0.4 * 0.4 * 0.45**4 * 0.35**2))
    assert np.exp(log_probs) @ PRESENT == pytest.approx([0.4, 0.4, 0.45, 0.45, 0.35, 0.45, 0.35, 0.45])


def test_only_enumerable_replies_parse() -> None:
    assert all(toy.parses(PROMPT, reply) for reply in toy.enumerate_responses(PROMPT))
    assert toy.parses(PROMPT, f" {TOWEL} {DAYS}\n")
    for wrong in (
        "",
        f"{DAYS} {TOWEL}",  # order
        f"{TOWEL} {TOWEL}",
        f"{TOWEL} {NO_STEP}",
        f"{apology_for('mixer')} {TOWEL}",
        "Send us a clear photo.",  # another complaint's step
        f"{TOWEL}  {DAYS}",
        CLOSING,
    ):
        assert not toy.parses(PROMPT, wrong), wrong


@pytest.mark.parametrize("function", [toy.enumerate_responses, toy.grammar_log_probs, lambda p: toy.parses(p, "x")])
@pytest.mark.parametrize("prompt", ["", "Customer: My car got wet.\nAgent:", PROMPT + " ", "My fan got wet."])
def test_other_prompts_are_refused(function: object, prompt: str) -> None:
    with pytest.raises(DefinitionError, match=r"toy\.all_prompts"):
        function(prompt)  # type: ignore[operator]


def test_rewards_of_hand_written_replies() -> None:
    """Words: towel 5, days 5, oven 5, soap 5, apology 6, closing 5, no step 5."""
    sorry = apology_for("fan")
    assert scores(NO_STEP) == (0, -5, 0)
    assert scores(f"{TOWEL} {DAYS}") == (2, -10, 0)
    assert scores(f"{TOWEL} {OVEN}") == (0, -10, 0)
    assert scores(f"{OVEN} {SOAP}") == (-2, -10, 0)
    assert scores(f"{sorry} {TOWEL} {CLOSING}") == (1, -16, 2)
    assert scores(f"{sorry} {NO_STEP}") == (0, -11, 1)
    assert scores("") == (0, 0, 0)


def test_rewards_of_texts_outside_the_grammar() -> None:
    assert scores(f"{DAYS}\n {TOWEL}") == (2, -10, 0)  # order and white space do not matter
    assert scores(f"{TOWEL} {TOWEL} {TOWEL}") == (1, -15, 0)  # a step counts once
    assert scores(f"{CLOSING} {CLOSING}") == (0, -10, 1)
    assert scores(TOWEL.rstrip(".")) == (0, -5, 0)  # cut short
    assert scores("Never Dry it in the oven. Maybe.") == (0, -7, 0)  # another sentence
    assert scores("Send us a clear photo.") == (0, -5, 0)  # right, but for another complaint
    assert scores(f"{apology_for('mixer')} {TOWEL}") == (1, -11, 0)  # somebody else's item


def test_rewards_read_the_prompt() -> None:
    assert scores(TOWEL, "<user> My fan got wet. <assistant>") == (1, -5, 0)
    assert scores(TOWEL, "Customer: My fan arrived damaged.\nAgent:") == (0, -5, 0)
    assert scores(f"{TOWEL} {CLOSING}", "Hello!") == (0, -10, 1)
    assert stated("Our fan got wet.") is None


def test_rewards_want_one_response_per_prompt() -> None:
    for reward in toy.rewards().values():
        assert reward([], []) == []
        with pytest.raises(RewardError, match="1 prompts and 2 responses"):
            reward([PROMPT], ["a", "b"])


def test_table_equals_the_functions() -> None:
    prompts = toy.all_prompts()
    table = toy.reward_table(prompts)
    assert table.shape == (96, 256, 3) and table.dtype == np.float64
    asked = [prompt for prompt in prompts for _ in range(256)]
    replies = [reply for prompt in prompts for reply in toy.enumerate_responses(prompt)]
    for i, reward in enumerate(toy.rewards().values()):
        np.testing.assert_array_equal(table[:, :, i].ravel(), reward(asked, replies))
    assert tuple(toy.rewards()) == toy.OBJECTIVES
    assert toy.reward_table([]).shape == (0, 256, 3)


def test_moments_under_the_grammar() -> None:
    """helpful: mean 4 * .45 - 2 * .35 = 1.1, variance 4 * .45 * .55 + 2 * .35 * .65 = 1.445.

    polite: mean .8, variance 2 * .4 * .6 = .48. brief varies with the wording; its mean for one prompt is
    -(.4 * 6 + .4 * 5 + sum of p * words of the steps + 5 * P(no step)).
    """
    log_base = toy.grammar_log_probs(PROMPT)[None] - 3.0  # a constant per prompt must not matter
    found = toy.moments([PROMPT], log_base)
    steps = [(0.45 if s.right else 0.35) * len(s.text.split()) for s in require_stated(PROMPT)[1].steps]
    words = 0.4 * 6 + 0.4 * 5 + sum(steps) + 5 * 0.55**4 * 0.65**2
    assert found.mean == pytest.approx([1.1, -words, 0.8])
    assert found.scale[[0, 2]] == pytest.approx(np.sqrt([1.445, 0.48]))


def test_moments_pool_prompts_equally() -> None:
    """Two prompts, each always the empty advice without (0) and with (1) apology and closing: mean .5, .5 of 2."""
    log_base = np.full((2, 256), -1e3)
    log_base[0, 0], log_base[1, 192] = 0.0, 500.0
    found = toy.moments([PROMPT, toy.all_prompts()[0]], log_base)
    assert found.mean == pytest.approx([0, -(5 + 16) / 2, 1])
    assert found.scale == pytest.approx([0, 5.5, 1])


def test_moments_refuse_other_shapes_and_infinities() -> None:
    with pytest.raises(DefinitionError, match="one row of 256"):
        toy.moments([PROMPT], np.zeros((2, 256)))
    with pytest.raises(DefinitionError, match="one row of 256"):
        toy.moments([], np.zeros((0, 256)))
    with pytest.raises(DefinitionError, match="not finite for 1 prompts"):
        toy.moments([PROMPT], np.full((1, 256), -np.inf))


def test_the_objectives_conflict() -> None:
    """Advice and courtesy cost words; advice and courtesy are independent of each other."""
    prompts = toy.all_prompts()
    weights = np.concatenate([np.exp(toy.grammar_log_probs(prompt)) for prompt in prompts]) / len(prompts)
    table = toy.reward_table(prompts).reshape(-1, 3)
    centred = table - weights @ table
    covariance = (centred * weights[:, None]).T @ centred
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    assert -0.5 < correlation[0, 1] < -0.2
    assert -0.7 < correlation[1, 2] < -0.4
    assert correlation[0, 2] == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(text=st.text(), seed=st.integers(0, 10_000))
def test_any_text_has_finite_bounded_scores(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt = toy.all_prompts()[seed % 96]
    reply = toy.enumerate_responses(prompt)[int(rng.integers(256))]
    for response in (text, f"{text} {reply}", f"{reply} {reply} {text}"):
        helpful, brief, polite = scores(response, prompt)
        assert -2 <= helpful <= 4 and polite in (0, 1, 2) and brief == -len(response.split())
    assert scores(f"{reply} {reply}", prompt)[::2] == scores(reply, prompt)[::2]


def test_wrong_steps_come_at_different_places() -> None:
    """A model that learnt "skip the third step" for one complaint must not be right about all."""
    places = Counter(i for c in toy.COMPLAINTS for i, step in enumerate(c.steps) if not step.right)
    assert len(places) >= 3 and max(places.values()) < len(toy.COMPLAINTS)
