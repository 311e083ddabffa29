"""The native pass over packed rows against the model's own pass over padded rows."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moalign.errors import DefinitionError, ModelError
from moalign.policy import native
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.engine import Engine
from moalign.policy.export import save_adapter
from moalign.policy.logprobs import completion_states, sequence_kl, sequence_log_probs, shared_trunk
from moalign.policy.model import LanguageModel, Policy
from moalign.policy.native.functions import rms_norm, rotate, swiglu
from moalign.policy.native.projections import Adapters, Projection, project
from moalign.policy.packing import PackedRows
from tests.models import FAMILIES, tiny_model, tiny_tokenizer
from tests.policy.test_stack import BETAS, dpo_like, make_data, make_engine, settings

CPU = torch.device("cpu")
VARIANTS = (*FAMILIES, "gemma", "llama biased untied", "llama linear rope")


def model_of(variant: str, dtype: torch.dtype = torch.float64) -> Any:
    """Returns a tiny model; its biases are drawn, not zero."""
    import transformers as t

    shared = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 128, "initializer_range": 0.3,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    configs = {
        "gemma": lambda: t.GemmaConfig(**shared, hidden_activation="gelu_pytorch_tanh"),
        "llama biased untied": lambda: t.LlamaConfig(
            **shared, attention_bias=True, mlp_bias=True, tie_word_embeddings=False
        ),
        "llama linear rope": lambda: t.LlamaConfig(**shared, rope_parameters=rope),
    }
    if variant in configs:
        torch.manual_seed(0)
        model = t.AutoModelForCausalLM.from_config(configs[variant]()).to(dtype).eval()
    else:
        model = tiny_model(variant, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name or "ln_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def language_model(variant: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    return LanguageModel(model_of(variant, dtype), tiny_tokenizer())


def trained_stack(lm: LanguageModel, policies: int = 3, lora: LoRA | None = None) -> AdapterStack:
    """Returns adapters whose B is not zero, different for each policy."""
    stack = AdapterStack.initial(lm.model, lora or LoRA(rank=4, alpha=8.0), policies, 0)
    return AdapterStack(stack.lora, stack.sites, stack.matrix + 0.05 * torch.randn_like(stack.matrix))


def many_responses() -> Responses:
    """Five responses to one prompt (two identical, one of a single token), a prompt of one token, a full context."""
    rng = np.random.default_rng(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 61, n).tolist())

    same = tokens(7)
    return Responses(
        prompts=(tokens(9), tokens(1), tokens(100), tokens(4)),
        prompt_of=np.array([0, 0, 1, 0, 2, 0, 0, 3]),
        completions=(tokens(5), same, tokens(3), same, tokens(28), (5,), tokens(12), (6,)),
    )


def both(lm: LanguageModel, responses: Responses, chosen: list[int] | None = None) -> tuple[PackedRows, PaddedRows]:
    chosen = list(range(len(responses))) if chosen is None else chosen
    return PackedRows.build(responses, chosen, CPU), PaddedRows.build(responses, chosen, lm.pad_id, CPU)


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_log_probs_equal_padded_ones_and_each_response_alone(variant: str) -> None:
    lm = language_model(variant)
    assert lm.native is not None
    responses, stack = many_responses(), trained_stack(lm)
    for policies in (None, stack, stack.select([1])):
        packed, padded = (sequence_log_probs(lm, rows, policies) for rows in both(lm, responses))
        assert (packed - padded).abs().max() < 1e-9
        for i in range(len(responses)):
            alone = sequence_log_probs(lm, both(lm, responses, [i])[0], policies)
            assert (alone[:, 0] - packed[:, i]).abs().max() < 1e-9


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_agrees_within_its_rounding(variant: str) -> None:
    lm = language_model(variant, torch.float32)
    stack = trained_stack(lm)
    packed, padded = (sequence_log_probs(lm, rows, stack) for rows in both(lm, many_responses()))
    assert (packed - padded).abs().max() < 1e-3  # sums of some hundred nats
    assert ((packed - padded).abs() / padded.abs()).max() < 1e-5


@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj"), ("o_proj", "up_proj"), ("gate_proj", "down_proj")])
def test_gradients_equal_those_of_the_model_for_any_adapted_projections(targets: tuple[str, ...] | None) -> None:
    check_gradients(language_model("qwen3"), LoRA(rank=3, targets=targets))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "qwen3"])
def test_gradients_equal_those_of_the_model(variant: str) -> None:
    check_gradients(language_model(variant), LoRA(rank=3))


def check_gradients(lm: LanguageModel, lora: LoRA) -> None:
    """The models' RMS norms round to float32 even here, which would hide differences below 1e-7: make them exact."""
    for module in lm.model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(exact_norm, module)
    stack = trained_stack(lm, lora=lora)
    weights = torch.randn(3, 8, dtype=torch.float64)
    gradients = []
    for rows in both(lm, many_responses()):
        leaves = [tuple(x.detach().requires_grad_() for x in site.views(stack.matrix)) for site in stack.sites]
        value = (sequence_log_probs(lm, rows, stack, leaves) * weights).sum()
        gradients.append(torch.autograd.grad(value, [leaf for pair in leaves for leaf in pair]))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-8 * max(1.0, float(theirs.abs().max()))


def exact_norm(module: Any, x: Tensor) -> Tensor:
    gemma = type(module).__name__.startswith("Gemma")
    weight, eps = (1 + module.weight, module.eps) if gemma else (module.weight, module.variance_epsilon)
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


@pytest.mark.parametrize("variant", ["llama", "gpt2"])
def test_the_exact_divergence_per_response_is_the_same(variant: str) -> None:
    lm = language_model(variant)
    stack = trained_stack(lm, 1)
    packed, padded = (sequence_kl(lm, rows, stack) for rows in both(lm, many_responses()))
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(packed, padded, strict=True))


def test_training_takes_the_same_path_on_both() -> None:
    """Six AdamW steps in float32 through either pass: adapters agree to the rounding that AdamW amplifies."""
    engines = [make_engine(), make_engine()]
    engines[1].language_model.native = None
    stacks = [e.train("t", make_data(e), dpo_like, {"beta": BETAS}, settings()) for e in engines]
    assert (stacks[0].matrix - stacks[1].matrix).abs().max() < 1e-4


def test_passes_of_any_size_give_the_same_log_probs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Policy(model_of("llama"), tiny_tokenizer(), dtype="float64"), device="cpu")
    stack = trained_stack(engine.language_model)
    whole = engine.log_probs(many_responses(), stack)
    for name in ("TOKENS_PER_PASS", "ENOUGH_ON_CPU"):
        monkeypatch.setattr(f"moalign.policy.engine.{name}", 40)
        assert np.abs(engine.log_probs(many_responses(), stack) - whole).max() < 1e-9


@pytest.mark.parametrize("variant", ["llama", "qwen3", "gpt2"])
def test_bfloat16_stays_as_near_to_float32_as_the_models_own_pass(variant: str) -> None:
    """Both passes round to 8 bits at every layer; per token they are off by some hundredths of a nat."""
    exact = language_model(variant, torch.float32)
    rounded = LanguageModel(copy.deepcopy(exact.model).to(torch.bfloat16), tiny_tokenizer())
    assert rounded.native is not None
    stack = trained_stack(exact)
    packed, padded = both(exact, many_responses())
    wanted = sequence_log_probs(exact, packed, stack)
    errors = [(sequence_log_probs(rounded, rows, stack) - wanted).abs() for rows in (packed, padded)]
    tokens = torch.bincount(packed.row)
    assert (errors[0] / tokens).max() < 0.3
    assert errors[0].mean() < 2 * errors[1].mean()


def test_the_reference_has_one_policy_and_shares_its_weights() -> None:
    lm = language_model("llama")
    assert lm.native is not None
    packed, _ = both(lm, many_responses())
    assert completion_states(lm, packed, None).shape[0] == 1
    own = {p.data_ptr() for p in lm.model.parameters()}
    projections = [p for block in lm.native.body.blocks for p in block.projections]
    assert {p.weight.data_ptr() for p in projections} <= own
    assert lm.native.adaptable == {site.name for site in trained_stack(lm).sites}


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        {"hidden_act": "relu"},
    ],
)
def test_what_is_not_computed_exactly_is_left_to_the_model(change: dict[str, Any]) -> None:
    import transformers as t

    config = tiny_model("llama").config.to_dict() | change
    model = t.LlamaForCausalLM(t.LlamaConfig(**config)).eval().requires_grad_(False)
    assert not native.supports(model) and native.native_model(model) is None
    lm = LanguageModel(model, tiny_tokenizer())
    assert lm.native is None and isinstance(lm.rows(many_responses(), [0, 1]), PaddedRows)


def test_trainable_or_unknown_models_and_changed_ones_are_left_alone() -> None:
    """A subclass of the same name, or a model with altered computation, fails one of the two checks."""
    model = model_of("llama")
    assert native.supports(model)
    altered = copy.deepcopy(model)
    altered.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: 1.01 * output)
    assert native.supports(altered) and LanguageModel(altered, tiny_tokenizer()).native is None
    model.model.norm.weight.requires_grad_()
    assert not native.supports(model)
    own = type("LlamaForCausalLM", (type(model),), {"__module__": "elsewhere"})
    model.requires_grad_(False).__class__ = own
    assert not native.supports(model)


def test_rows_longer_than_a_sliding_window_take_the_models_own_pass() -> None:
    import transformers as t

    config = tiny_model("mistral").config.to_dict() | {"sliding_window": 20}
    model = t.MistralForCausalLM(t.MistralConfig(**config)).eval().requires_grad_(False)
    lm = LanguageModel(model, tiny_tokenizer())
    assert lm.native is not None and lm.native.window == 20
    responses = many_responses()
    assert isinstance(lm.rows(responses, [0, 1]), PackedRows) and isinstance(lm.rows(responses, [4]), PaddedRows)


def test_an_adapter_without_a_place_is_refused() -> None:
    lm = language_model("llama")
    packed, _ = both(lm, many_responses())
    pair = (torch.zeros(1, 2, 32), torch.zeros(1, 32, 2))
    assert lm.native is not None
    with pytest.raises(ModelError, match=r"model\.embed_tokens"):
        lm.native.states(packed, Adapters({"model.embed_tokens": pair}))


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_own_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, weight, 1e-5), double(2, 3, 6))
    assert torch.autograd.gradcheck(swiglu, (double(2, 3, 4), double(2, 3, 4)))
    angle = torch.randn(3, 2, dtype=torch.float64)
    cosine = angle.cos().repeat(1, 4)  # two heads of width 4
    assert torch.autograd.gradcheck(lambda x: rotate(x, cosine, angle.sin(), 4), double(2, 3, 8))


def test_rotation_keeps_lengths_and_undoes_itself_backwards() -> None:
    """The Jacobian is orthogonal: pulling the output back gives the input."""
    x, angle = double(1, 3, 8), torch.randn(3, 2, dtype=torch.float64)
    y = rotate(x, angle.cos().repeat(1, 4), angle.sin(), 4)
    assert torch.allclose(torch.autograd.grad(y, x, y.detach())[0], x)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_adapted_projections_have_the_gradients_of_finite_differences(shared: bool, with_residual: bool) -> None:
    """Two of three projections of one input adapted, ranks 2 and 1; a shared input gets no gradient."""
    torch.manual_seed(0)
    names = ["a", "b"] if not with_residual else ["a"]
    frozen = [Projection(n, torch.randn(5, 4).double(), torch.randn(5).double()) for n in [*names, "frozen"]]
    frozen = frozen[:1] if with_residual else frozen
    x = double(1 if shared else 2, 3, 4)
    residual = double(2, 3, 5) if with_residual else None
    factors = [f for rank in (2, 1)[: len(names)] for f in (double(2, rank, 4), double(2, 5, rank))]

    def run(x: Tensor, residual: Tensor | None, *factors: Tensor) -> tuple[Tensor, ...]:
        pairs = dict(zip(names, zip(factors[::2], factors[1::2], strict=True), strict=True))
        return tuple(project(x, frozen, Adapters(pairs, 1.5), residual))

    assert torch.autograd.gradcheck(run, (x.detach() if shared else x, residual, *factors))
    first = run(x, residual, *factors)[0]
    wanted = (
        x @ frozen[0].weight.T + frozen[0].bias + 1.5 * (x @ factors[0].transpose(1, 2)) @ factors[1].transpose(1, 2)
    )
    assert torch.allclose(first, wanted if residual is None else wanted + residual)


@pytest.mark.parametrize("variant", ["llama", "gpt2"])
def test_adapting_the_top_layer_is_adapting_all_with_the_lower_ones_zero(variant: str) -> None:
    """Log-probs and the top layer's gradients agree; the shared trunk changes nothing, on packed and padded rows."""
    lm = language_model(variant)
    top = trained_stack(lm, lora=LoRA(rank=3, layers=1))
    whole = AdapterStack.initial(lm.model, LoRA(rank=3), 3, 0)
    matrix = torch.zeros_like(whole.matrix)
    matrix[:, -top.matrix.shape[1] :] = top.matrix  # the top layer's parameters stand last
    whole = AdapterStack(whole.lora, whole.sites, matrix)
    assert {site.layer for site in top.sites} == {1} and {site.layer for site in whole.sites} == {0, 1}
    results = []
    for stack in (whole, top):
        for rows in both(lm, many_responses()):
            for trunk in {id(t): t for t in (None, shared_trunk(lm, rows, stack))}.values():
                assert trunk is None or trunk.depth == (1 if stack is top else 0)
                leaves = [tuple(x.detach().requires_grad_() for x in site.views(stack.matrix)) for site in stack.sites]
                value = sequence_log_probs(lm, rows, stack, leaves, trunk)
                gradients = torch.autograd.grad(value.sum(), [x for pair in leaves[-len(top.sites) :] for x in pair])
                results.append((value.detach(), gradients))
    assert len(results) == 6
    for value, gradients in results[1:]:
        assert (value - results[0][0]).abs().max() < 1e-9
        for ours, theirs in zip(gradients, results[0][1], strict=True):
            assert (ours - theirs).abs().max() <= 1e-6 * float(theirs.abs().max())  # norms round to float32


def test_a_stack_of_top_layers_trains_as_separate_runs_do_and_in_any_chunks() -> None:
    engine = make_engine()
    data, training = make_data(engine), settings(lora=LoRA(rank=4, alpha=8.0, layers=1))
    stack = engine.train("all", data, dpo_like, {"beta": BETAS}, training)
    chunked = engine.train("chunks", data, dpo_like, {"beta": BETAS}, replace(training, tokens_per_chunk=1))
    assert (stack.matrix - chunked.matrix).abs().max() <= 1e-6
    for k in range(len(BETAS)):
        alone = engine.train(f"one-{k}", data, dpo_like, {"beta": BETAS[k : k + 1]}, training)
        assert (stack.matrix[k] - alone.matrix[0]).abs().max() <= 1e-6


def test_more_layers_than_there_are_and_fewer_than_one_are_refused() -> None:
    with pytest.raises(ModelError, match="layers = 3, but this model has 2"):
        AdapterStack.initial(model_of("llama"), LoRA(layers=3), 1, 0)
    with pytest.raises(DefinitionError, match="layers must be >= 1"):
        LoRA(layers=0)


@pytest.mark.slow
def test_peft_loads_adapters_of_the_top_layer(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    lm = language_model("llama", torch.float32)
    stack = trained_stack(lm, 1, LoRA(rank=3, layers=1))
    save_adapter(stack, 0, tmp_path, None)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), tmp_path)
    assert {n.split(".layers.")[1][0] for n, _ in loaded.named_parameters() if "lora_A" in n} == {"1"}
    merged = copy.deepcopy(lm.model)
    for name, delta in stack.deltas(0).items():
        dict(merged.named_modules())[name].weight.data += delta
    ids = torch.tensor([[0, 5, 6, 7]])
    assert torch.allclose(loaded(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-4)
