"""Mixtures of adapters are exact: deltas add up, one share of one is the adapter itself, and PEFT agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.export import load_adapter, lora_of, save_adapter
from moalign.policy.mixing import mixture, scaled
from tests.models import tiny_model, tiny_tokenizer


def random_stack(policies: int = 3, dtype: torch.dtype = torch.float32, family: str = "llama") -> AdapterStack:
    stack = AdapterStack.initial(tiny_model(family, dtype=dtype), ma.LoRA(rank=2, alpha=4.0), policies, seed=1)
    generator = torch.Generator().manual_seed(2)
    noise = 0.3 * torch.randn(stack.matrix.shape, generator=generator, dtype=torch.float64)
    return AdapterStack(stack.lora, stack.sites, stack.matrix + noise.to(stack.matrix.dtype))


def test_the_mixture_adds_the_deltas_up_and_not_their_factors() -> None:
    stack, shares = random_stack(), [0.2, 0.5, 0.3]
    mixed = mixture(stack, shares)
    parts = [stack.deltas(i) for i in range(3)]
    for name, delta in mixed.deltas(0).items():
        wanted = sum(s * p[name] for s, p in zip(shares, parts, strict=True))
        assert (delta - wanted).abs().max() < 1e-6
    averaged = AdapterStack(stack.lora, stack.sites, torch.tensor(shares)[None].to(stack.matrix) @ stack.matrix)
    name = stack.sites[0].name
    wrong = (averaged.deltas(0)[name] - mixed.deltas(0)[name]).norm() / mixed.deltas(0)[name].norm()
    assert wrong > 0.3  # what averaging A and B would have given
    assert mixed.lora.rank == 6 and mixed.lora.scale == stack.lora.scale


def test_a_single_share_of_one_is_the_adapter_bit_for_bit() -> None:
    stack = random_stack()
    for i in range(3):
        mixed = mixture(stack, np.eye(3)[i])
        assert mixed.matrix[0].equal(stack.matrix[i]) and mixed.lora == stack.lora


def test_equal_adapters_mix_to_themselves_and_no_share_is_the_base() -> None:
    one = random_stack().select([0, 0])
    mixed = mixture(one, [0.25, 0.75])
    for name, delta in mixed.deltas(0).items():
        assert (delta - one.deltas(0)[name]).abs().max() < 1e-6
    assert all((delta == 0).all() for delta in mixture(one, [0.0, 0.0]).deltas(0).values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mixture_computes_what_merged_weights_compute(family: str) -> None:
    """Log-probs through the concatenated adapter equal those of a model whose weights got sum_i s_i delta_i."""
    stack, shares = random_stack(dtype=torch.float64, family=family), [0.6, 0.0, 0.4]
    model, tokenizer = tiny_model(family, dtype=torch.float64), tiny_tokenizer()
    texts = (["one ", "two "], ["abc", "de fg"])
    engine = Engine(ma.Policy(model, tokenizer, dtype="float64"), device="cpu")
    ours = engine.log_probs(engine.encode(*texts), mixture(stack, shares))[0]
    for site in stack.sites:
        delta = sum(s * stack.deltas(i)[site.name] for i, s in enumerate(shares))
        weight = model.get_submodule(site.name).weight
        weight.data += delta.T if site.transposed else delta
    merged = Engine(ma.Policy(model, tokenizer, dtype="float64"), device="cpu")
    assert ours == pytest.approx(merged.log_probs(merged.encode(*texts))[0], abs=1e-10)


def test_the_exported_mixture_is_an_ordinary_peft_folder(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    mixed = mixture(random_stack(), [0.2, 0.5, 0.3])
    save_adapter(mixed, 0, tmp_path, base=None)
    again = load_adapter(tmp_path, AdapterStack.initial(tiny_model(), lora_of(tmp_path), 1, 0))
    assert again.matrix.equal(mixed.matrix)
    ids = torch.arange(4, 12)[None]
    loaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path)
    from moalign.policy.adapters import attached

    model = tiny_model()
    with torch.no_grad(), attached(model, mixed):
        ours = model(input_ids=ids).logits
    with torch.no_grad():
        assert (ours - loaded(input_ids=ids).logits).abs().max() < 1e-4


def test_scaling_by_blocks_of_layers() -> None:
    """Two layers, two blocks: the lower keeps half of its update, the upper none."""
    stack = random_stack(1)
    halved = scaled(stack, (0.5, 0.0))
    for site in stack.sites:
        factor = 0.5 if site.layer == 0 else 0.0
        assert (halved.deltas(0)[site.name] - factor * stack.deltas(0)[site.name]).abs().max() < 1e-7
    assert scaled(stack, 1.0) is stack and stack.matrix.equal(random_stack(1).matrix)


def test_refusals() -> None:
    with pytest.raises(ma.DefinitionError, match="mixture of 3 adapters needs as many finite shares"):
        mixture(random_stack(), [0.5, 0.5])
    with pytest.raises(ma.DefinitionError, match="finite"):
        mixture(random_stack(), [0.5, 0.5, float("nan")])
    with pytest.raises(ma.DefinitionError, match="scaled by one finite number"):
        scaled(random_stack(), ())
