"""Decoding: against `generate()` on merged weights, the two decoders against each other, log-probs, odd cases."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from moalign.errors import ModelError
from moalign.policy import samples as passes
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.decoders import HookedDecoder, NativeDecoder, decoder
from moalign.policy.engine import Engine
from moalign.policy.generate import Drawn, Sampling, generate
from moalign.policy.model import LanguageModel, Policy
from tests.models import FAMILIES, tiny_model, tiny_tokenizer
from tests.policy.test_native import VARIANTS, language_model, trained_stack

PROMPTS: list[tuple[int, ...]] = [(5, 9, 20, 33, 7), (11,), (40, 41, 42, 43, 44, 45, 46, 47), (8, 9, 30)]
MANY_STOPS = (1, 10, 20, 30, 40, 50)  # so that rows end at different tokens
GREEDY = Sampling(max_new_tokens=12, temperature=0)


def ids_of(drawn: list[list[list[Drawn]]]) -> list[list[list[tuple[int, ...]]]]:
    return [[[one.ids for one in samples] for samples in prompts] for prompts in drawn]


def without_native(lm: LanguageModel) -> LanguageModel:
    general = copy.copy(lm)
    general.native = None
    return general


def merged_greedy(lm: LanguageModel, stack: AdapterStack, policy: int, prompt: Sequence[int], tokens: int) -> Any:
    """Returns what `generate()` says on a copy of the model with the update added to its weights."""
    merged = copy.deepcopy(lm.model)
    modules = dict(merged.named_modules())
    for name, delta in stack.deltas(policy).items():
        transposed = type(modules[name]).__name__ == "Conv1D"
        modules[name].weight.data += delta.T if transposed else delta
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    out = merged.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=2)
    return tuple(out[0, len(prompt) :].tolist())


def engine_of(lm: LanguageModel, **options: Any) -> Engine:
    return Engine(Policy(lm.model, lm.tokenizer, dtype="float64", **options), seed=3, device="cpu")


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_are_those_of_generate_on_merged_weights(variant: str) -> None:
    """Grouped heads, biases, head norms, tied and untied heads; a prompt of one token among longer ones."""
    lm = language_model(variant)
    assert lm.native is not None
    stack = trained_stack(lm)
    drawn = ids_of(generate(lm, PROMPTS, GREEDY, stack))
    for policy in range(3):
        for prompt, [tokens] in zip(PROMPTS, drawn[policy], strict=True):
            assert tokens == merged_greedy(lm, stack, policy, prompt, 12)
    assert len({tokens for policy in drawn for [tokens] in policy}) > len(PROMPTS)  # the policies do differ
    assert ids_of(generate(without_native(lm), PROMPTS, GREEDY, stack)) == drawn


@pytest.mark.parametrize("lora", [LoRA(rank=3, layers=1), LoRA(rank=2, targets=("v_proj", "down_proj")), None])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_new_tokens=14, samples=5), Sampling(max_new_tokens=9, samples=3, temperature=0.7, top_p=0.8)],
)
def test_both_decoders_draw_the_same_and_give_the_log_probs_of_a_second_pass(
    lora: LoRA | None, sampling: Sampling
) -> None:
    """Rows end at different tokens, so columns leave on the way; adapters in some places only, or none."""
    lm = language_model("llama")
    lm.eos_ids = MANY_STOPS
    stack = None if lora is None else trained_stack(lm, 2, lora)
    native, hooked = (generate(m, PROMPTS, sampling, stack, seed=1) for m in (lm, without_native(lm)))
    assert ids_of(native) == ids_of(hooked)
    lengths = {len(one.ids) for policy in native for prompt in policy for one in prompt}
    assert len(lengths) >= 3
    engine = engine_of(lm)
    for drawn in (native, hooked):
        for policy, of_prompts in enumerate(drawn):
            flat = [(prompt, one) for prompt, samples in zip(PROMPTS, of_prompts, strict=True) for one in samples]
            alone = None if stack is None else stack.select([policy])
            for prompt, one in flat[::4]:
                assert len(one.log_probs) == len(one.ids)
                assert sum(one.log_probs) == pytest.approx(scored(engine, prompt, one.ids, alone), abs=1e-4)


def scored(engine: Engine, prompt: Sequence[int], ids: Sequence[int], stack: AdapterStack | None) -> float:
    from moalign.policy.batches import Responses

    responses = Responses(prompts=(tuple(prompt),), prompt_of=np.array([0]), completions=(tuple(ids),))
    return float(engine.log_probs(responses, stack)[0, 0])


def test_engine_gives_log_probs_and_they_sum_up() -> None:
    lm = language_model("qwen2")
    engine, stack = engine_of(lm), trained_stack(lm, 2)
    sampling = Sampling(max_new_tokens=6, samples=2)
    for policy, drawn in enumerate(engine.generate(["hello: ", "a"], sampling, stack)):
        responses = engine.sampled(["hello: ", "a"], drawn, sampling)
        [expected] = engine.log_probs(responses, stack.select([policy]))
        assert [one.log_prob for one in drawn] == pytest.approx(list(expected), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_response_may_fill_the_context_to_its_last_place(family: str) -> None:
    lm = language_model(family)
    prompt = tuple(3 + i % 50 for i in range(lm.max_length - 4))
    stack = trained_stack(lm, 2)
    drawn = ids_of(generate(lm, [prompt, (5,)], Sampling(max_new_tokens=4, temperature=0), stack))
    assert drawn[1][0][0] == merged_greedy(lm, stack, 1, prompt, 4)
    with pytest.raises(ModelError, match=r"has \d+ \+ 4 tokens"):
        engine_of(lm).generate(["a" * lm.max_length], Sampling(max_new_tokens=4))


def test_beyond_a_sliding_window_the_models_own_pass_decodes() -> None:
    import transformers as t

    torch.manual_seed(0)
    config = t.MistralConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, sliding_window=9, initializer_range=0.3,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = t.AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    lm = LanguageModel(model, tiny_tokenizer())
    for tokens, expected in ((1, NativeDecoder), (12, HookedDecoder)):
        with decoder(lm, PROMPTS, None, 1, tokens) as chosen:
            assert type(chosen) is expected
    stack = trained_stack(lm, 2)
    for tokens in (1, 12):
        drawn = ids_of(generate(lm, PROMPTS[:1], Sampling(max_new_tokens=tokens, temperature=0), stack))
        assert [policy[0][0] for policy in drawn] == [
            merged_greedy(lm, stack, policy, PROMPTS[0], tokens) for policy in range(2)
        ]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_policy_and_one_token_are_not_special(family: str) -> None:
    lm = language_model(family)
    stack = trained_stack(lm)
    sampling = Sampling(max_new_tokens=7, samples=3)
    together = generate(lm, PROMPTS, sampling, stack)
    for policy in range(3):
        [alone] = generate(lm, PROMPTS, sampling, stack.select([policy]))
        assert [[d.ids for d in p] for p in alone] == [[d.ids for d in p] for p in together[policy]]
    first = generate(lm, PROMPTS, Sampling(max_new_tokens=1, samples=3), stack)
    assert ids_of(first) == [[[d.ids[:1] for d in p] for p in policy] for policy in together]


def test_passes_of_few_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many policies at once, cut into one pass per prompt: same tokens, same log-probs."""
    lm = language_model("llama")
    engine, stack = engine_of(lm), trained_stack(lm, 9)
    ask, sampling = ["hello: ", "a", "what is it", ""], Sampling(max_new_tokens=8, samples=2)
    whole = engine.generate(ask, sampling, stack)
    monkeypatch.setattr(passes, "TOKENS_PER_PASS", 1)
    for one, other in zip(whole, engine.generate(ask, sampling, stack), strict=True):
        assert [g.ids for g in one] == [g.ids for g in other]
        for a, b in zip(one, other, strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-6)


@pytest.mark.parametrize("native", [True, False])
def test_all_rows_may_stop_at_once(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token is a stop token: nothing is fed after the first."""
    lm = language_model("llama")
    lm.eos_ids = tuple(range(61))
    lm = lm if native else without_native(lm)
    kind = NativeDecoder if native else HookedDecoder
    monkeypatch.setattr(kind, "step", lambda *_: pytest.fail("a token was fed after all rows had ended"))
    drawn = generate(lm, PROMPTS, Sampling(max_new_tokens=5, samples=2), trained_stack(lm, 2))
    assert all(len(one.ids) == 1 for policy in drawn for prompt in policy for one in prompt)


def test_checking_seldom_for_ended_rows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator hears of ended rows only every few tokens; what they say meanwhile is not recorded."""
    from moalign.policy import generate as module

    lm, sampling = language_model("llama"), Sampling(max_new_tokens=14, samples=4)
    lm.eos_ids = MANY_STOPS
    stack = trained_stack(lm, 2)
    often = generate(lm, PROMPTS, sampling, stack)
    monkeypatch.setattr(module, "_check_every", lambda device: 8)
    seldom = generate(lm, PROMPTS, sampling, stack)
    assert ids_of(often) == ids_of(seldom)
    assert all(i not in lm.eos_ids for policy in seldom for p in policy for one in p for i in one.ids[:-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_decodes_natively_too(family: str) -> None:
    model = tiny_model(family, dtype=torch.bfloat16).requires_grad_(False)
    lm = LanguageModel(model, tiny_tokenizer())
    assert lm.native is not None
    stack = trained_stack(lm, 2)
    [first, _] = generate(lm, PROMPTS, GREEDY, stack)
    [own, _] = generate(without_native(lm), PROMPTS, GREEDY, stack)
    # equal until rounding decides between two tokens; the first is never that close here
    assert [p[0].ids[0] for p in first] == [p[0].ids[0] for p in own]
    for a, b in zip(first, own, strict=True):
        assert a[0].log_probs[0] == pytest.approx(b[0].log_probs[0], abs=0.1)
