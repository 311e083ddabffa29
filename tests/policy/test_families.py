"""Models without a native pass: the stack through hooks on their own modules equals the merged model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import Responses
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.model import Policy
from tests.models import tiny_tokenizer
from tests.policy.test_stack import BETAS, PROMPTS, dpo_like, make_data, settings

SHARED = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
MODERN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "initializer_range": 0.3, **SHARED,
}  # fmt: skip


def model_of(family: str) -> Any:
    """Returns a tiny float64 model; each family does something that the native pass does not."""
    import transformers as t

    configs = {
        "gemma2": lambda: t.Gemma2Config(**MODERN, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8),
        "phi": lambda: t.PhiConfig(**MODERN, num_key_value_heads=4),
        "phi3": lambda: t.Phi3Config(**MODERN, num_key_value_heads=2),
        "gpt_neox": lambda: t.GPTNeoXConfig(**MODERN),
        "olmo2": lambda: t.Olmo2Config(**MODERN, num_key_value_heads=2),
        "opt": lambda: t.OPTConfig(
            hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
            word_embed_proj_dim=32, init_std=0.3, **SHARED,
        ),
    }  # fmt: skip
    torch.manual_seed(0)
    return t.AutoModelForCausalLM.from_config(configs[family]()).double().eval()


def merged(model: Any, stack: AdapterStack, policy: int) -> Any:
    """Returns a copy of the model with one policy's update added to its weights."""
    changed = copy.deepcopy(model)
    modules = dict(changed.named_modules())
    with torch.no_grad():
        for name, delta in stack.deltas(policy).items():
            modules[name].weight += delta.to(modules[name].weight.dtype)
    return changed


def log_probs(model: Any, responses: Responses) -> np.ndarray:
    """Returns the summed log-prob of each response, one plain forward pass each."""
    values = []
    for prompt, completion in zip(responses.prompt_of, responses.completions, strict=True):
        ids = torch.tensor([[*responses.prompts[int(prompt)], *completion]])
        with torch.no_grad():
            table = model(input_ids=ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        rows = table[-len(completion) :]
        values.append(float(rows[torch.arange(len(completion)), torch.tensor(completion)].sum()))
    return np.array(values)


@pytest.mark.parametrize("family", ["gemma2", "phi", "phi3", "gpt_neox", "olmo2", "opt"])
def test_the_general_path_equals_the_merged_model(family: str) -> None:
    """Log-probs of two trained policies and their greedy answers; every projection but the head is adapted."""
    model = model_of(family)
    engine = Engine(Policy(model, tiny_tokenizer(), dtype="float64"), seed=3, device="cpu")
    assert engine.language_model.native is None
    data = make_data(engine)
    stack = engine.train("t", data, dpo_like, {"beta": BETAS[:2]}, settings(steps=3, learning_rate=1e-2))
    together = engine.log_probs(data.responses, stack)
    sampling = Sampling(max_new_tokens=6, temperature=0.0)
    answers = engine.generate(PROMPTS, sampling, stack)
    for policy in range(2):
        alone = merged(model, stack, policy)
        assert np.abs(together[policy] - log_probs(alone, data.responses)).max() < 1e-5
        for row in answers[policy]:
            prompt = torch.tensor([engine.language_model.encode_prompt(PROMPTS[row.prompt])])
            own = alone.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False, pad_token_id=2
            )
            assert own[0, prompt.shape[1] :].tolist()[: len(row.ids)] == list(row.ids)
    assert np.abs(together[0] - together[1]).max() > 1e-4


@pytest.mark.parametrize("rank", [1, 3, 128])
def test_any_rank_is_its_merged_model(rank: int) -> None:
    """Also a rank above the widths it joins."""
    from tests.models import tiny_model

    model = tiny_model(dtype=torch.float64)
    engine = Engine(Policy(model, tiny_tokenizer(), dtype="float64"), seed=3, device="cpu")
    data = make_data(engine)
    training = settings(steps=2, learning_rate=1e-2, lora=LoRA(rank=rank, alpha=2.0 * rank))
    stack = engine.train("t", data, dpo_like, {"beta": BETAS[:2]}, training)
    together = engine.log_probs(data.responses, stack)
    for policy in range(2):
        assert np.abs(together[policy] - log_probs(merged(model, stack, policy), data.responses)).max() < 1e-5
