"""The training loop: policies with their own rates and ends, batches in parts, memory that runs out, resuming."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moalign.errors import DefinitionError, ModelError
from moalign.policy import step as step_module
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import PreferenceData, Responses
from moalign.policy.chunks import CHUNK_TOKENS_CPU, Chunks, chunk_tokens
from moalign.policy.engine import Engine
from moalign.policy.train import StepRecord
from moalign.policy.trunk import TrunkCache, trunk_cache
from moalign.store.workspace import FolderWorkspace
from tests.policy.test_stack import BETAS, dpo_like, make_data, make_engine, one_thread, settings

__all__ = ["one_thread"]  # equalities are claimed at one thread, as in test_stack


def trained(engine: Engine, name: str = "t", policies: dict[str, Any] | None = None, **changes: Any) -> AdapterStack:
    return engine.train(name, make_data(engine), dpo_like, policies or {"beta": BETAS}, settings(**changes))


def test_own_learning_rates_and_ends_equal_separate_runs() -> None:
    """Three policies with 3, 6 and 4 of 6 steps at other rates: each is the run with those settings."""
    rates, steps = [1e-3, 5e-4, 2e-3], [3, 6, 4]
    together = trained(
        make_engine(), policies={"beta": BETAS, "learning_rate": np.array(rates), "steps": np.array(steps)}
    )
    for k, (rate, n) in enumerate(zip(rates, steps, strict=True)):
        alone = trained(make_engine(), policies={"beta": BETAS[k : k + 1]}, learning_rate=rate, steps=n)
        assert (together.matrix[k] - alone.matrix[0]).abs().max() <= 1e-6


def test_a_stopped_policy_stays_and_the_others_do_not_notice() -> None:
    """The first policy is stopped after step 2; weight decay must not move it, and its record keeps the last loss."""
    records: list[StepRecord] = []
    engine = make_engine(
        on_step=lambda name, record, of: records.append(record),
        stop_policies=lambda name, record: [0] if record.step == 2 else [],
    )
    stopped = trained(engine, weight_decay=0.1)
    two_steps, whole = (
        trained(make_engine(), policies={"beta": BETAS, "steps": np.array([n, 6, 6])}, weight_decay=0.1) for n in (2, 6)
    )
    assert (stopped.matrix[1:] - whole.matrix[1:]).abs().max() <= 1e-6
    assert (stopped.matrix[0] - whole.matrix[0]).abs().max() > 1e-4
    assert records[5].loss[0] == records[1].loss[0] and records[5].gradient_norm[0] == records[5].learning_rate[0] == 0
    assert (two_steps.matrix[1:] - whole.matrix[1:]).abs().max() <= 1e-6


def test_training_ends_when_every_policy_has_stopped() -> None:
    records: list[StepRecord] = []
    engine = make_engine(
        on_step=lambda name, record, of: records.append(record), stop_policies=lambda name, record: range(3)
    )
    assert torch.isfinite(trained(engine).matrix).all() and len(records) == 1


@pytest.mark.parametrize(("column", "value"), [("learning_rate", -1.0), ("learning_rate", math.nan), ("steps", 7)])
def test_rates_and_steps_out_of_range_name_the_policy(column: str, value: float) -> None:
    with pytest.raises(DefinitionError, match="Policy 1 has"):
        trained(make_engine(), policies={"beta": BETAS[:2], column: np.array([1, value])})


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_computed_in_parts_gives_the_same_adapters(parts: int) -> None:
    """Batches of 5 pairs in 2 parts of 3 and 2, in 3 of 2, 2 and 1, and in no more parts than pairs."""
    whole, cut = (trained(make_engine(dtype="float64"), batch_size=5, accumulate=n) for n in (1, parts))
    assert (whole.matrix - cut.matrix).abs().max() <= 1e-6  # the models' own norms round to float32


def test_chunks_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds one policy at a time trains three all the same; one that holds none is an error."""
    whole = trained(make_engine())
    original, room, sizes = step_module.sequence_log_probs, 1, []

    def limited(lm: Any, rows: Any, stack: AdapterStack, *rest: Any) -> Any:
        sizes.append(len(stack))
        if len(stack) > room:
            raise torch.OutOfMemoryError("no room")
        return original(lm, rows, stack, *rest)

    monkeypatch.setattr(step_module, "sequence_log_probs", limited)
    assert torch.equal(trained(make_engine(), tokens_per_chunk=1).matrix, trained(make_engine()).matrix)
    assert (trained(make_engine()).matrix - whole.matrix).abs().max() <= 1e-6
    assert sizes[-3:] == [1, 1, 1]
    room = 0
    with pytest.raises(ModelError, match="One policy on a batch of .* tokens does not fit"):
        trained(make_engine())


def test_every_policy_is_in_exactly_one_chunk() -> None:
    seen: list[int] = []
    Chunks(100).over(range(7), 40, seen.extend)
    assert seen == list(range(7))
    Chunks(1).over([0, 2, 5], 40, lambda group: seen.append(len(group)))
    assert seen[7:] == [1, 1, 1]
    lm = make_engine().language_model
    assert CHUNK_TOKENS_CPU[0] <= chunk_tokens(lm, AdapterStack.initial(lm.model, LoRA(), 1, 0)) <= 4096


def test_equal_responses_teach_nothing() -> None:
    """chosen = rejected: the loss is log 2 and its gradient zero, so AdamW leaves the adapters as they start."""
    engine = make_engine()
    responses = engine.encode(["a", "b"], ["same", "other"])
    data = PreferenceData(responses=responses, pairs=np.array([[0, 0], [1, 1]]))
    stack = engine.train("t", data, dpo_like, {"beta": BETAS}, settings(batch_size=2))
    assert torch.equal(stack.matrix, AdapterStack.initial(engine.language_model.model, stack.lora, 3, 3).matrix)


def odd_data() -> PreferenceData:
    """A prompt of one token with one-token answers, and rows that fill the context of 128 tokens."""
    rng = np.random.default_rng(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(4, 60, n).tolist())

    return PreferenceData(
        responses=Responses(
            prompts=(tokens(1), tokens(100)),
            prompt_of=np.array([0, 0, 1, 1]),
            completions=((5,), (6,), tokens(28), tokens(27)),
        ),
        pairs=np.array([[0, 1], [2, 3]]),
    )


@pytest.mark.parametrize("native", [True, False])
def test_shortest_and_longest_rows_train_alike_in_a_stack_and_alone(native: bool) -> None:
    """One policy per chunk: equal to the bit in float32. All in one chunk: equal in float64, but for float32 norms."""

    def run(policies: np.ndarray, dtype: str, tokens: int) -> AdapterStack:
        engine = make_engine(dtype=dtype)
        engine.language_model.native = engine.language_model.native if native else None
        training = settings(batch_size=1, tokens_per_chunk=tokens)
        return engine.train("t", odd_data(), dpo_like, {"beta": policies}, training)

    for dtype, tokens, tolerance in (("float32", 1, 0.0), ("float64", 1 << 20, 1e-6)):
        stack = run(BETAS, dtype, tokens)
        for k in range(len(BETAS)):
            assert (stack.matrix[k] - run(BETAS[k : k + 1], dtype, tokens).matrix[0]).abs().max() <= tolerance


def interrupted(folder: Path, after: int, **changes: Any) -> None:
    """Trains until the step `after` and stops there as Ctrl-C does."""
    steps: list[int] = []
    engine = make_engine(
        workspace=FolderWorkspace(folder),
        on_step=lambda name, record, of: steps.append(record.step),
        should_stop=lambda: len(steps) == after,
        stop_policies=lambda name, record: [2] if record.step == 2 else [],
    )
    with pytest.raises(KeyboardInterrupt):
        trained(engine, **changes)


def finished(folder: Path, **changes: Any) -> AdapterStack:
    def stop(name: str, record: StepRecord) -> Iterable[int]:
        return [2] if record.step == 2 else []

    return trained(make_engine(workspace=FolderWorkspace(folder), stop_policies=stop), **changes)


@pytest.mark.parametrize("layers", [None, 1])
def test_resumed_equals_uninterrupted_with_a_stopped_policy_and_a_cached_trunk(
    tmp_path: Path, layers: int | None
) -> None:
    """To the bit: adapters and log; the policy that stopped before the interruption does not start again."""
    changes = {"lora": LoRA(rank=4, alpha=8.0, layers=layers), "accumulate": 2, "steps": 6}
    interrupted(tmp_path / "cut", 4, **changes)
    pieces, whole = finished(tmp_path / "cut", **changes), finished(tmp_path / "whole", **changes)
    assert torch.equal(pieces.matrix, whole.matrix)
    logs = [
        next(iter(make_engine(workspace=FolderWorkspace(tmp_path / n)).training_logs().values()))
        for n in ("cut", "whole")
    ]
    for field in ("loss", "gradient_norm", "learning_rate"):
        assert np.array_equal(getattr(logs[0], field), getattr(logs[1], field))
    assert logs[0].loss.shape == (6, 3) and np.unique(logs[0].loss[1:, 2]).size == 1
    assert bool(list((tmp_path / "cut").glob("cache/trunk-1-*/trunk.npy"))) == (layers == 1)


def cache_of(engine: Engine, steps: int, folder: Path | None = None, **changes: Any) -> TrunkCache | None:
    training = settings(steps=steps, lora=LoRA(rank=4, layers=1), **changes)
    stack = AdapterStack.initial(engine.language_model.model, training.lora, 1, 0)
    folders = None if folder is None else FolderWorkspace(folder)
    return trunk_cache(engine.language_model, make_data(engine), stack, training, folders)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_the_cached_trunk_is_the_computed_one(tmp_path: Path, dtype: str, on_disk: bool) -> None:
    """For batches in another order and grouping than the pass that filled the cache."""
    engine = make_engine(dtype=dtype)
    data = make_data(engine)
    cache = cache_of(engine, 6, tmp_path if on_disk else None)
    assert cache is not None and isinstance(cache.activations, np.memmap) == on_disk
    stack = AdapterStack.initial(engine.language_model.model, LoRA(rank=4, layers=1), 1, 0)
    for pairs in ([3, 0], [4], [2, 1, 0]):
        batch = step_module.build_batch(engine.language_model, data, np.array(pairs), torch.float32)
        own = engine.language_model.native.trunk(batch.rows, [s.name for s in stack.sites])  # type: ignore[union-attr]
        cached = cache(batch, stack)
        assert cached.depth == own.depth == 1 and cached.x.dtype == own.x.dtype
        assert (cached.x - own.x).abs().max() <= (1e-12 if dtype == "float64" else 0.05) * own.x.abs().max()


def test_a_trunk_is_cached_only_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pairs in batches of three are one step an epoch: a single step computes its trunk on the way."""
    engine = make_engine()
    assert cache_of(engine, 1) is None and cache_of(engine, 2) is not None
    assert cache_of(engine, 2, by_prompt=True, batch_size=2) is None  # four prompts: two steps an epoch
    monkeypatch.setattr("moalign.policy.trunk.MOST_BYTES_IN_MEMORY", 1000)
    assert cache_of(engine, 2) is None and cache_of(engine, 2, tmp_path) is not None
    engine.language_model.native = None
    assert cache_of(engine, 2, tmp_path) is None


def test_a_cached_trunk_changes_no_adapter(tmp_path: Path) -> None:
    changes = {"lora": LoRA(rank=4, alpha=8.0, layers=1), "steps": 4}
    cached = trained(make_engine(), **changes)
    engine = make_engine()
    data, training = make_data(engine), settings(**changes)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("moalign.policy.engine.trunk_cache", lambda *arguments: None)
        computed = engine.train("t", data, dpo_like, {"beta": BETAS}, replace(training))
    assert (cached.matrix - computed.matrix).abs().max() <= 1e-6
