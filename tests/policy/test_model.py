"""How texts become tokens, what a policy refuses, and how its fingerprint depends on content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import moalign as ma
from moalign.data import Conversation
from moalign.errors import ModelError
from moalign.policy.engine import Engine
from moalign.policy.model import LanguageModel, Policy
from tests.models import tiny_model, tiny_tokenizer
from tests.tiny import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def test_prompts_start_with_bos_and_responses_end_with_eos() -> None:
    lm = LanguageModel(tiny_model(), tiny_tokenizer())
    assert lm.encode_prompt("ab") == [0, 4, 5]
    assert lm.encode_response("ab") == [4, 5, 1]
    assert lm.encode_prompt("") == [0]
    assert lm.decode_response([0, 4], [5, 30, 1]) == "b "


def test_text_cannot_smuggle_in_special_tokens() -> None:
    """'</s>' written by a user or a data set is five characters, not the stop token."""
    lm = LanguageModel(tiny_model(), tiny_tokenizer())
    assert lm.eos_ids[0] not in lm.encode_prompt("a</s>b")
    assert lm.encode_response("a</s>b").count(lm.eos_ids[0]) == 1
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    ids = lm.encode_prompt(Conversation(messages=(("user", "a</s>b"),)))
    assert ids.count(lm.eos_ids[0]) == 1


def test_conversations_use_the_chat_template_or_plain_text() -> None:
    lm = LanguageModel(tiny_model(), tiny_tokenizer())
    prompt = Conversation(messages=(("user", "hi"),))
    assert lm.encode_prompt(prompt) == lm.encode_prompt(str(prompt))
    lm.tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}!"
    text = lm.tokenizer.decode(lm.encode_prompt(prompt))
    assert text.endswith("hi!") and "user" in text


def test_a_tokenizer_without_pad_token_trains_and_samples_the_same() -> None:
    padded, bare = tiny_tokenizer(), tiny_tokenizer()
    bare.pad_token = None
    model = tiny_model()
    model.config.pad_token_id = None
    engines = [Engine(Policy(model, tokenizer), seed=1) for tokenizer in (padded, bare)]
    sampling = ma.Sampling(max_new_tokens=5, samples=2)
    samples = [engine.generate(["a", "bcd ef"], sampling) for engine in engines]
    assert [g.ids for g in samples[0][0]] == [g.ids for g in samples[1][0]]
    responses = [engine.encode(["a", "bcd"], ["x", "a long one"]) for engine in engines]
    assert (engines[0].log_probs(responses[0]) == engines[1].log_probs(responses[1])).all()


def test_a_tokenizer_without_end_of_sequence_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    model = tiny_model()
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="end-of-sequence"):
        LanguageModel(model, tokenizer)


def test_folders_are_checked_before_anything_loads(tmp_path: Path, folder: Path) -> None:
    assert Policy(str(folder)).problems() == []
    assert "does not exist" in Policy(str(tmp_path / "none")).problems()[0]
    (tmp_path / "empty").mkdir()
    assert "no config.json" in Policy(str(tmp_path / "empty")).problems()[0]
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"broken cannot be loaded"):
        Policy(str(broken)).load("cpu")
    with pytest.raises(ma.DefinitionError, match="float16"):
        Policy(str(folder), dtype="float16")
    with pytest.raises(ModelError, match="context of 128"):
        Policy(str(folder), max_length=4000).load("cpu")


def test_the_fingerprint_follows_the_weights_not_the_path(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert Policy(str(copy)).__fingerprint__() == Policy(str(folder)).__fingerprint__()
    tiny_model(seed=1).save_pretrained(copy)
    assert Policy(str(copy)).__fingerprint__() != Policy(str(folder)).__fingerprint__()
    in_memory = [Policy(tiny_model(seed=s), tiny_tokenizer()).__fingerprint__() for s in (0, 0, 1)]
    assert in_memory[0] == in_memory[1] != in_memory[2]


def test_a_loaded_model_is_left_as_it_was() -> None:
    model = tiny_model()
    before = {n: p.clone() for n, p in model.named_parameters()}
    engine = Engine(Policy(model, tiny_tokenizer(), dtype="bfloat16"))
    assert engine.language_model.model is not model
    assert all(torch.equal(p, before[n]) and p.requires_grad for n, p in model.named_parameters())


def test_a_head_that_is_no_plain_projection_falls_back_to_the_models_own_logits() -> None:
    """A soft-capped head gives other logits than hidden state times weight; both routes must agree with the model."""
    model = tiny_model()
    plain = LanguageModel(model, tiny_tokenizer())
    forward = model.forward

    def capped(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output

    model.forward = capped
    guarded = LanguageModel(model, tiny_tokenizer())
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        own = model(input_ids=ids).logits
        assert torch.allclose(guarded.logits(guarded.hidden(ids)[0]), own, atol=1e-5)
        assert not torch.allclose(plain.logits(plain.hidden(ids)[0]), own, atol=1e-2)
