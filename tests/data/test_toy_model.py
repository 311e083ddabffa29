"""The tiny language model: its tokenizer, its exact targets, its training and its cache."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import toy
from moalign.data.toy.model import TrainingRows, train_toy
from moalign.data.toy.tokenizer import EOS, build_tokenizer, encode, encode_replies
from moalign.errors import DefinitionError, ModelError

SPLIT = toy.split(0)
PROMPT = SPLIT.held_out[0]
QUICK = toy.ToyRecipe(steps=2, min_mass=0.0, hidden=16, mlp=16, layers=1)
SHORT = toy.ToyRecipe(steps=100, min_mass=0.0)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(SPLIT.train)


class Bigram:
    """A language model whose next token depends on the last one only, in the shape of a transformers model."""

    device = torch.device("cpu")

    def __init__(self, vocabulary: int) -> None:
        self.table = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(0))

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])

    def log_prob(self, prompt: list[int], response: list[int]) -> float:
        log_softmax = self.table.log_softmax(dim=1)
        before = [prompt[-1], *response[:-1]]
        return float(sum(log_softmax[a, b] for a, b in zip(before, response, strict=True)))


def test_special_tokens_are_distinct(tokenizer: Any) -> None:
    ids = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert len(ids) == 3 and None not in ids
    assert 256 < len(tokenizer) < 1024  # training ended by itself: no word is split


@settings(max_examples=30, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", [PROMPT, " leading", "two  spaces", "a\n\nb\n", "naïve 🙂", "\t", " "])
def test_white_space_survives(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_text_cannot_end_a_reply(tokenizer: Any) -> None:
    ids = tokenizer(f"stop {EOS} here", split_special_tokens=True)["input_ids"]
    assert tokenizer.eos_token_id not in ids


def test_prompt_and_reply_join_without_moving_the_border(tokenizer: Any) -> None:
    for prompt in SPLIT.held_out:
        head = encode(tokenizer, [prompt])[0]
        for reply, tail in zip(toy.enumerate_responses(prompt), encode_replies(tokenizer, prompt), strict=True):
            assert tail[-1] == tokenizer.eos_token_id
            assert len(tail) == len(reply.split()) + 1  # a word is a token
        assert head + tail[:-1] == encode(tokenizer, [f"{prompt} {reply}"])[0]
        assert tokenizer.decode(head + tail, skip_special_tokens=True) == f"{prompt} {reply}"
        assert tokenizer.decode(tail, skip_special_tokens=True) == reply


def test_exact_targets_multiply_to_the_grammar(tokenizer: Any) -> None:
    """Chain rule: the branch probabilities along a reply's path give its probability, the end included."""
    prompts = SPLIT.train[:3]
    rows = TrainingRows.of(prompts, tokenizer)
    assert rows.branch_probs.sum(dim=1) == pytest.approx(np.ones(len(rows.branch_probs)), abs=1e-6)
    expected = np.concatenate([toy.grammar_log_probs(prompt) for prompt in prompts])
    for ids, path, log_prob in zip(rows.tokens, rows.nodes, expected, strict=True):
        following = torch.tensor(ids[-len(path) :])
        taken = (rows.branch_tokens[path] == following[:, None]) & (rows.branch_probs[path] > 0)
        assert (taken.sum(dim=1) == 1).all()
        assert float(rows.branch_probs[path][taken].double().log().sum()) == pytest.approx(log_prob, abs=1e-5)


def test_rows_are_drawn_half_from_the_grammar_and_half_uniformly(tokenizer: Any) -> None:
    """The empty advice has probability .6 * .6 * .55**4 * .65**2 = .0139 under the grammar and 1/256 = .0039."""
    rows = TrainingRows.of(SPLIT.train[:2], tokenizer)
    drawn = np.array(rows.draw(40_000, np.random.default_rng(0))) % 256
    for half, expected in ((drawn[:20_000], 0.6**2 * 0.55**4 * 0.65**2), (drawn[20_000:], 1 / 256)):
        assert (half == 0).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))


@pytest.mark.parametrize("batch", [256, 100])
def test_log_probs_table_sums_reply_and_end(tokenizer: Any, batch: int) -> None:
    model = Bigram(len(tokenizer))
    prompts = SPLIT.held_out[:2]
    table = toy.log_probs_table(model, tokenizer, prompts, batch=batch)
    assert table.shape == (2, 256) and table.dtype == np.float64
    for p, prompt in enumerate(prompts):
        head = encode(tokenizer, [prompt])[0]
        expected = [model.log_prob(head, tail) for tail in encode_replies(tokenizer, prompt)]
        np.testing.assert_allclose(table[p], expected, rtol=1e-5)


def test_log_probs_table_needs_an_end() -> None:
    with pytest.raises(DefinitionError, match="eos_token"):
        toy.log_probs_table(None, SimpleNamespace(eos_token_id=None), [PROMPT])


def test_recipe_lists_all_problems() -> None:
    with pytest.raises(DefinitionError) as caught:
        toy.ToyRecipe(steps=0, hidden=60, vocabulary=10, learning_rate=float("nan"), min_mass=1.0)
    assert len(caught.value.problems) == 5


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before any training; the variable stands in for the argument."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOALIGN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="MOALIGN_CACHE_DIR"):
        toy.toy_model_folder(0, recipe=QUICK, on_step=lambda *_: pytest.fail("trained"))


@pytest.mark.slow
def test_training_is_reproducible_and_leaves_no_trace() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    losses: list[float] = []
    first = train_toy(SPLIT, SHORT, 7, lambda step, steps, loss: losses.append(loss))
    again = train_toy(SPLIT, SHORT, 7)
    other = train_toy(SPLIT, toy.ToyRecipe(steps=2, min_mass=0.0), 8)
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)
    weights, same = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["model.norm.weight"], other.model.state_dict()["model.norm.weight"])
    assert len(losses) == 100 and min(losses) >= 0 and losses[-1] < 0.2 < losses[0]


@pytest.mark.slow
def test_a_model_that_does_not_learn_is_refused_after_all_attempts() -> None:
    done: list[int] = []
    with pytest.raises(ModelError, match="seed 0.*2 steps"):
        train_toy(SPLIT, toy.ToyRecipe(steps=2, attempts=2), 0, lambda step, steps, loss: done.append(step))
    assert done == [1, 2, 1, 2]


@pytest.mark.slow
def test_the_cache_trains_once_and_repairs_damage(tmp_path: Path) -> None:
    steps: list[int] = []

    def ask(seed: int = 0) -> Path:
        return toy.toy_model_folder(seed, tmp_path, recipe=QUICK, on_step=lambda step, *_: steps.append(step))

    folder = ask()
    before = (folder / "model.safetensors").read_bytes()
    assert ask() == folder and steps == [1, 2]
    flipped = bytearray(before)
    flipped[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(flipped))
    assert ask() == folder and steps == [1, 2, 1, 2]
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in (tmp_path / "toy").iterdir()] == [folder.name]  # nothing left behind
    assert toy.toy_model_folder(0, tmp_path, recipe=toy.ToyRecipe(steps=3, min_mass=0.0)) != folder


@pytest.mark.slow
def test_the_slower_of_two_processes_leaves_the_folder_alone(tmp_path: Path) -> None:
    """The faster one is played by a call from inside the slower one's training."""
    found: list[tuple[Path, int]] = []

    def meanwhile(step: int, steps: int, loss: float) -> None:
        if not found:
            folder = toy.toy_model_folder(0, tmp_path, recipe=QUICK)
            found.append((folder, folder.stat().st_ino))

    folder = toy.toy_model_folder(0, tmp_path, recipe=QUICK, on_step=meanwhile)
    assert found == [(folder, folder.stat().st_ino)]
    assert [path.name for path in (tmp_path / "toy").iterdir()] == [folder.name]


@pytest.mark.slow
def test_the_default_model_knows_the_grammar_on_every_held_out_prompt() -> None:
    """The promise of the demo: 99 % of the mass on the known replies, on prompts that were never seen."""
    folder = toy.toy_model_folder(0)
    facts = json.loads((folder / "toy.json").read_text())
    log_probs = toy.base_log_probs(0, SPLIT.held_out)
    mass = np.exp(log_probs).sum(axis=1)
    assert 0.99 <= mass.min() <= mass.max() <= 1 + 1e-5
    assert mass.min() == pytest.approx(facts["held_out_mass"], abs=1e-4)
    grammar = np.stack([toy.grammar_log_probs(prompt) for prompt in SPLIT.held_out])
    kl = (np.exp(grammar) * (grammar - log_probs + np.log(mass)[:, None])).sum(axis=1)
    assert kl.max() < 0.05
    found = toy.moments(SPLIT.train, toy.base_log_probs(0, SPLIT.train))
    assert found.mean[[0, 2]] == pytest.approx([1.1, 0.8], abs=0.05)


@pytest.mark.slow
def test_the_folder_is_an_ordinary_model() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = toy.toy_model_folder(0)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert tokenizer.decode(tokenizer(PROMPT)["input_ids"]) == PROMPT
    assert sum(p.numel() for p in model.parameters()) < 200_000
    inputs = tokenizer(PROMPT, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=60)[0, inputs["input_ids"].shape[1] :]
    assert out[-1] == model.generation_config.eos_token_id
    assert toy.parses(PROMPT, tokenizer.decode(out, skip_special_tokens=True))
    table = toy.log_probs_table(model.eval(), tokenizer, [PROMPT])
    np.testing.assert_allclose(table[0], toy.base_log_probs(0, [PROMPT])[0], atol=1e-3)


def test_base_log_probs_refuse_other_prompts() -> None:
    with pytest.raises(DefinitionError, match=r"toy\.all_prompts"):
        toy.base_log_probs(0, ["Hello"])
