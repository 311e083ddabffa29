"""The engine on an accelerator gives what it gives on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.model import Policy
from tests.models import tiny_model, tiny_tokenizer
from tests.policy.test_stack import BETAS, PROMPTS, dpo_like, make_data, settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]


def test_training_sampling_and_kl_agree_between_devices() -> None:
    """In float64 the same tokens are drawn and the same adapters trained; the model's norms and angles are float32."""
    results = []
    for device in ("cpu", "cuda"):
        model = tiny_model(dtype=torch.float64)
        engine = Engine(Policy(model, tiny_tokenizer(), dtype="float64"), seed=3, device=device)
        data = make_data(engine)
        stack = engine.train("t", data, dpo_like, {"beta": BETAS}, settings())
        sampling = Sampling(max_new_tokens=8, samples=3)
        drawn = engine.generate(PROMPTS, sampling, stack)
        kl, _, _ = engine.kl(engine.sampled(PROMPTS, drawn[0], sampling), stack.select([0]))
        results.append((stack.matrix, [[g.ids for g in row] for row in drawn], kl, engine.log_probs(data.responses)))
    (a, b) = results
    assert (a[0] - b[0]).abs().max() < 1e-5
    assert a[1] == b[1]
    assert np.abs(a[2] - b[2]).max() < 1e-6 and np.abs(a[3] - b[3]).max() < 5e-5


def test_bfloat16_trains_on_the_accelerator() -> None:
    engine = Engine(Policy(tiny_model(), tiny_tokenizer(), dtype="bfloat16"), device="cuda")
    stack = engine.train("t", make_data(engine), dpo_like, {"beta": BETAS}, settings())
    assert stack.matrix.dtype == torch.float32 and torch.isfinite(stack.matrix).all()
