"""Steps replayed from graphs. Off CUDA a graph is stood for by the work itself, on the graph's own memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from moalign.policy import graphs
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import Responses
from moalign.policy.engine import Engine
from moalign.policy.graphs import Replayed, cuda_capture
from moalign.policy.logprobs import sequence_log_probs
from moalign.policy.packing import PackedRows, TokenTable
from moalign.policy.step import StepGradient
from tests.policy.test_native import CPU, language_model, many_responses, trained_stack
from tests.policy.test_stack import BETAS, dpo_like, make_data, make_engine, settings


@pytest.mark.parametrize("variant", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("multiple", [2, 16])
def test_stretched_rows_give_the_same_log_probs(variant: str, multiple: int) -> None:
    """Also where a completion has one token among longer ones, and at the end of the context of 128 tokens."""
    lm, responses = language_model(variant), many_responses()
    stack, chosen = trained_stack(lm), list(range(len(responses)))
    plain, stretched = (PackedRows.build(responses, chosen, CPU, m) for m in (1, multiple))
    assert stretched.prompts.padding is None and stretched.prompts.slots.shape[1] % multiple == 0
    assert stretched.completions is not None and stretched.completions.padding is None
    values = [sequence_log_probs(lm, rows, stack) for rows in (plain, stretched)]
    assert values[1].shape == (3, len(responses)) and (values[0] - values[1]).abs().max() < 1e-9


def test_batches_of_many_shapes_become_batches_of_one() -> None:
    responses = many_responses()
    shapes = {PackedRows.build(responses, chosen, CPU, 32).ids.shape for chosen in ([0, 2], [1, 2], [3, 7], [6, 2])}
    assert len(shapes) == 1


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_table_numbers_the_tokens_of_stretched_rows(multiple: int) -> None:
    responses = Responses(
        prompts=((10, 11, 12), (20,)), prompt_of=np.array([1, 0, 0]), completions=((30, 31), (40,), (50, 51, 52))
    )
    tokens = torch.tensor([10, 11, 12, 20, 30, 50, 51])  # all prompts, then all completions without their last
    rows = PackedRows.build(responses, [2, 0, 1], CPU, multiple)
    numbers = TokenTable(responses).of([2, 0, 1], multiple)
    assert torch.equal(tokens[torch.from_numpy(numbers)], rows.ids)


def own_memory(captures: list[int]) -> Callable[[Callable[[], None]], Callable[[], object]]:
    """Stands for a graph: the work is done once when captured, and again on the same memory when replayed."""

    def capture(work: Callable[[], None]) -> Callable[[], object]:
        captures.append(1)
        work()
        return work

    return capture


def trained(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, captures: list[int] | None, layers: int | None
) -> AdapterStack:
    """Trains with or without the stand-in for graphs, two chunks of policies."""

    def made(*arguments: object, **options: object) -> StepGradient:
        return StepGradient(*arguments, **{**options, "capture": None if captures is None else own_memory(captures)})  # type: ignore[arg-type]

    monkeypatch.setattr("moalign.policy.train.StepGradient", made)
    training = settings(steps=8, lora=LoRA(rank=4, alpha=8.0, layers=layers), tokens_per_chunk=1000)
    return engine.train("t", make_data(engine), dpo_like, {"beta": BETAS}, training)


@pytest.mark.parametrize("layers", [None, 1])
def test_replayed_training_is_plain_training(monkeypatch: pytest.MonkeyPatch, layers: int | None) -> None:
    """Every step's batch, columns and cached trunk reach the graph's memory: stale ones would train something else."""
    captures: list[int] = []
    replayed = trained(make_engine(dtype="float64"), monkeypatch, captures, layers)
    plain = trained(make_engine(dtype="float64"), monkeypatch, None, layers)
    assert (replayed.matrix - plain.matrix).abs().max() <= 1e-6
    assert 1 <= len(captures) < 8  # some shapes came back


def test_further_shapes_are_computed_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    captures: list[int] = []
    replayed = trained(make_engine(dtype="float64"), monkeypatch, captures, None)
    plain = trained(make_engine(dtype="float64"), monkeypatch, None, None)
    assert len(captures) == 1 and (replayed.matrix - plain.matrix).abs().max() <= 1e-6


def test_without_cuda_the_setting_changes_nothing() -> None:
    a, b = (
        make_engine().train("t", make_data(make_engine()), dpo_like, {"beta": BETAS}, settings(graphs=graphed))
        for graphed in (True, False)
    )
    assert torch.equal(a.matrix, b.matrix)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4), ("bfloat16", 5e-2)])
def test_cuda_graphs_train_as_plain_steps_do(dtype: str, tolerance: float) -> None:
    def run(graphed: bool) -> AdapterStack:
        engine = make_engine(dtype=dtype)
        on_gpu = Engine(engine.policy, seed=3, device="cuda")
        return on_gpu.train("t", make_data(on_gpu), dpo_like, {"beta": BETAS}, settings(steps=8, graphs=graphed))

    start = AdapterStack.initial(make_engine(dtype=dtype).language_model.model, settings().lora, 3, 3).matrix
    graphed, plain = run(True).matrix.cpu(), run(False).matrix.cpu()
    moved = (plain - start).abs().max()
    assert (graphed - plain).abs().max() <= tolerance * max(1.0, float(moved))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_graph_reads_the_batch_it_is_given() -> None:
    replayed = Replayed(lambda batch, trunk, policies: (batch.first * 2, batch.second + 1), cuda_capture)
    for value in (1.0, 5.0):
        rows = PackedRows.build(many_responses(), [0, 1], torch.device("cuda"), 32)
        batch = graphed_batch(rows, value)
        losses, gradients = replayed(batch, None, slice(0, 1))
        assert losses.tolist() == [2 * value] and gradients.tolist() == [value + 1]


def graphed_batch(rows: PackedRows, value: float):  # type: ignore[no-untyped-def]
    from moalign.policy.step import Batch

    full = torch.full((1,), value, device="cuda")
    return Batch(np.array([0, 1]), rows, full, full.clone(), {}, 32)
