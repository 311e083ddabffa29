"""The stacked engine against separate runs, ordinary PEFT loops and `generate()`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import PreferenceData, batch_order
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.model import Policy
from moalign.policy.train import Training, constant, cosine, linear
from tests.models import FAMILIES, tiny_model, tiny_tokenizer

BETAS = np.array([0.1, 0.5, 2.0])
PROMPTS = ["hello: ", "what is", "a", "b c d"]
TEXTS = ["xyz abc", "a longer answer, here", "q", "no!", "yes.", "r", "tt", "uuu"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equalities are claimed of the arithmetic, not of how a product is cut into threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dpo_like(first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
    ratio = (first - second) - (batch["reference_first"] - batch["reference_second"])
    return -F.logsigmoid(policy["beta"][:, None] * ratio)


def make_engine(family: str = "llama", dtype: str = "float32", **options: Any) -> Engine:
    model = tiny_model(family, dtype=torch.float64 if dtype == "float64" else torch.float32)
    return Engine(Policy(model, tiny_tokenizer(), dtype=dtype), seed=3, device="cpu", **options)


def make_data(engine: Engine) -> PreferenceData:
    responses = engine.encode(PROMPTS * 2, TEXTS)
    return PreferenceData(responses=responses, pairs=np.array([[0, 4], [1, 5], [2, 6], [3, 7], [4, 0]]))


def settings(**changes: Any) -> Training:
    given = {"steps": 6, "batch_size": 3, "learning_rate": 1e-3, "lora": LoRA(rank=4, alpha=8.0)}
    return Training(**{**given, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stack_equals_separate_runs(family: str) -> None:
    engine = make_engine(family)
    data = make_data(engine)
    stack = engine.train("all", data, dpo_like, {"beta": BETAS}, settings())
    start = AdapterStack.initial(engine.language_model.model, settings().lora, 1, engine.seed)
    for k in range(len(BETAS)):
        alone = engine.train(f"one-{k}", data, dpo_like, {"beta": BETAS[k : k + 1]}, settings())
        assert (stack.matrix[k] - alone.matrix[0]).abs().max() <= 1e-6
        assert (alone.matrix - start.matrix).abs().max() > 1e-3  # it did move


@pytest.mark.parametrize("tokens_per_chunk", [1, 100])
def test_chunks_of_policies_change_nothing(tokens_per_chunk: int) -> None:
    engine = make_engine()
    data = make_data(engine)
    whole = engine.train("whole", data, dpo_like, {"beta": BETAS}, settings())
    chunked = engine.train("chunks", data, dpo_like, {"beta": BETAS}, settings(tokens_per_chunk=tokens_per_chunk))
    assert (whole.matrix - chunked.matrix).abs().max() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-5)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_policy_equals_an_ordinary_peft_loop(family: str, dtype: str, tolerance: float) -> None:
    """Same start, data order, AdamW, clipping and schedule: losses and adapters agree."""
    peft = pytest.importorskip("peft")
    losses: list[float] = []
    engine = make_engine(family, dtype, on_step=lambda name, record, steps: losses.append(float(record.loss[0])))
    data, training = make_data(engine), settings()
    ours = engine.train("ours", data, dpo_like, {"beta": BETAS[1:2]}, training)

    base = copy.deepcopy(engine.language_model.model)
    start = AdapterStack.initial(base, training.lora, 1, engine.seed)
    targets = sorted({s.name.rsplit(".", 1)[-1] for s in start.sites})
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out=family == "gpt2")
    model = peft.get_peft_model(base, config)
    if dtype == "float64":
        model = model.double()
    parameters = dict(model.named_parameters())
    wanted, order = [], batch_order(data, training.batch_size, False, engine.seed)
    for site in start.sites:
        for part, view in zip("AB", site.views(start.matrix), strict=True):
            wanted.append(parameters[f"base_model.model.{site.name}.lora_{part}.default.weight"])
            wanted[-1].data.copy_(view[0])
    optimizer = torch.optim.AdamW(wanted, lr=1.0, betas=training.betas, weight_decay=0.0)

    def log_prob(index: int) -> Tensor:
        prompt = data.responses.prompts[int(data.responses.prompt_of[index])]
        ids = torch.tensor([[*prompt, *data.responses.completions[index]]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return logits.gather(-1, ids[0, len(prompt) :, None]).sum()

    reference = engine.reference_log_probs(data.responses)
    for step in range(training.steps):
        terms = []
        for first, second in data.pairs[next(order)]:
            ratio = (log_prob(first) - log_prob(second)) - (reference[first] - reference[second])
            terms.append(-F.logsigmoid(BETAS[1] * ratio))
        loss = torch.stack(terms).mean()
        assert abs(loss.item() - losses[step]) <= tolerance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wanted, training.clip)
        optimizer.param_groups[0]["lr"] = training.rate(step)
        optimizer.step()
    theirs = [p.detach() for p in wanted]
    mine = [view[0] for site in ours.sites for view in site.views(ours.matrix)]
    assert max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)) <= tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_stack_decoding_equals_generate_on_merged_weights(family: str) -> None:
    engine = make_engine(family)
    stack = engine.train("t", make_data(engine), dpo_like, {"beta": BETAS}, settings(steps=12))
    drawn = engine.generate(PROMPTS, Sampling(max_new_tokens=12, samples=1, temperature=0), stack)
    different = set()
    for k in range(len(stack)):
        merged = copy.deepcopy(engine.language_model.model)
        modules = dict(merged.named_modules())
        for name, delta in stack.deltas(k).items():
            modules[name].weight.data += delta.T if family == "gpt2" else delta
        for p, prompt in enumerate(PROMPTS):
            ids = torch.tensor([engine.encode_prompt(prompt)])
            mask = torch.ones_like(ids)
            out = merged.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=2)
            tokens = tuple(out[0, ids.shape[1] :].tolist())
            assert drawn[k][p].ids == tokens
            different.add((p, tokens))
    assert len(different) > len(PROMPTS)  # the policies do differ


def test_samples_follow_the_policy_and_ignore_their_batch() -> None:
    """First tokens drawn for one prompt have the model's own frequencies; neighbours and padding change nothing."""
    engine = make_engine()
    sampling = Sampling(max_new_tokens=1, samples=4000)
    [alone] = engine.generate([PROMPTS[3]], sampling)
    ids = torch.tensor([engine.encode_prompt(PROMPTS[3])])
    probs = engine.language_model.model(input_ids=ids).logits[0, -1].softmax(-1).detach().numpy()
    counts = np.bincount([g.ids[0] for g in alone], minlength=len(probs)) / 4000
    assert np.abs(counts - probs).max() < 5 * np.sqrt(0.25 / 4000)

    few = Sampling(max_new_tokens=8, samples=3)
    [together] = engine.generate([PROMPTS[3], *PROMPTS[:3]], few)
    [single] = engine.generate([PROMPTS[3]], few)
    assert [g.ids for g in together if g.prompt == 0] == [g.ids for g in single]


def test_top_p_keeps_only_the_nucleus() -> None:
    engine = make_engine()
    ids = torch.tensor([engine.encode_prompt("a")])
    probs = engine.language_model.model(input_ids=ids).logits[0, -1].softmax(-1)
    ranked = probs.sort(descending=True)
    nucleus = set(ranked.indices[: int((ranked.values.cumsum(0) < 0.5).sum()) + 1].tolist())
    [drawn] = engine.generate(["a"], Sampling(max_new_tokens=1, samples=500, top_p=0.5))
    assert {g.ids[0] for g in drawn} == nucleus


def test_kl_is_zero_for_an_untrained_stack_and_matches_enumeration_after_training() -> None:
    """For one-token responses KL is sum p log(p / q) over the vocabulary, whatever was sampled."""
    engine = make_engine(dtype="float64")
    prompts = ["a"]
    [drawn] = engine.generate(prompts, Sampling(max_new_tokens=1, samples=2))
    responses = engine.sampled(prompts, drawn, Sampling(max_new_tokens=1))
    start = AdapterStack.initial(engine.language_model.model, LoRA(rank=4, alpha=8.0), 1, 0)
    kl, own, reference = engine.kl(responses, start)
    assert np.abs(kl).max() < 1e-12 and np.allclose(own, reference)

    stack = engine.train("t", make_data(engine), dpo_like, {"beta": BETAS[:1]}, settings(steps=20))
    kl, own, _ = engine.kl(responses, stack)
    merged = copy.deepcopy(engine.language_model.model)
    for name, delta in stack.deltas(0).items():
        dict(merged.named_modules())[name].weight.data += delta
    ids = torch.tensor([engine.encode_prompt("a")])
    p = merged(input_ids=ids).logits[0, -1].log_softmax(-1)
    q = engine.language_model.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    assert kl == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-9)
    assert own == pytest.approx([float(p[g.ids[0]]) for g in drawn], abs=1e-9)


def test_log_probs_ignore_padding_and_count_the_stop_token() -> None:
    engine = make_engine(dtype="float64")
    responses = engine.encode(PROMPTS * 2, TEXTS)
    together = engine.log_probs(responses)[0]
    for i in range(len(TEXTS)):
        alone = engine.encode([(PROMPTS * 2)[i]], [TEXTS[i]])
        assert alone.completions[0][-1] == engine.language_model.eos_ids[0]
        assert engine.log_probs(alone)[0, 0] == pytest.approx(together[i], abs=1e-9)


def test_bfloat16_stays_near_float32() -> None:
    """bfloat16 has 8 bits: log-probs of about 10 tokens may be off by some hundredths of a nat each."""
    exact, rounded = make_engine(), make_engine(dtype="bfloat16")
    data = make_data(exact)
    assert np.abs(exact.log_probs(data.responses) - rounded.log_probs(data.responses)).max() < 1.0
    trained = rounded.train("t", data, dpo_like, {"beta": BETAS}, settings())
    assert trained.matrix.dtype == torch.float32 and torch.isfinite(trained.matrix).all()


def test_the_learning_rate_follows_its_schedule() -> None:
    """10 steps, 20 % warm-up: steps 0 and 1 rise by thirds, step 2 is the peak, then it falls over 8 steps."""
    rates = [settings(steps=10, warmup=0.2, schedule=linear, learning_rate=1.0).rate(s) for s in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert constant(0.7) == 1 and cosine(0.5) == pytest.approx(0.5) and cosine(1.0) == pytest.approx(0)


def test_clipping_is_per_policy() -> None:
    """A huge gradient of one policy leaves its neighbour's update untouched."""
    engine = make_engine()
    data = make_data(engine)
    calm = engine.train("calm", data, dpo_like, {"beta": np.array([0.1])}, settings(clip=0.01))
    both = engine.train("both", data, dpo_like, {"beta": np.array([0.1, 100.0])}, settings(clip=0.01))
    assert (calm.matrix[0] - both.matrix[0]).abs().max() <= 1e-6


def test_the_data_order_depends_on_seed_and_step_only() -> None:
    data = make_data(make_engine())
    order = batch_order(data, 2, False, seed=5)
    batches = [next(order).tolist() for _ in range(7)]
    resumed = batch_order(data, 2, False, seed=5, skip=3)
    assert [next(resumed).tolist() for _ in range(4)] == batches[3:]
    assert len({tuple(b) for b in batches}) > 2
    by_prompt = next(batch_order(data, 1, True, seed=0))
    assert len(set(data.responses.prompt_of[data.pairs[by_prompt, 0]])) == 1
