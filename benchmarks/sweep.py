"""Training a sweep: CPU time of one optimiser step of one policy, and of a whole sweep with its evaluation.

Every competitor trains the same adapters from the same start on the same batches; the losses of the first steps must
agree, or nothing is timed.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from benchmarks.common import Disagreement, Options, Row, Stretches, agree, all_closed, interleaved, parse, ratio, run
from benchmarks.workload import SIZES, Pair, Size, model, pairs, prompts, tokenizer

POLICIES = 8
PAIRS_PER_STEP = 4
BETA = 0.1  # of every peer, and of moalign's first policy
CHECKED_STEPS = 2  # the first loss is log 2 whatever the adapters do
TOLERANCE = 1e-4
TRL = "TRL DPOTrainer + PEFT, no checkpointing"
PRECOMPUTE = "TRL, precomputed reference"
LEAN = "lean transformers + PEFT loop"


@final
@dataclass(frozen=True)
class Case:
    """A comparison of steps: which peers, with which floors, on which lengths, in which layers."""

    name: str
    floors: dict[str, float]
    prompt: tuple[int, int] = (48, 64)
    response: tuple[int, int] = (48, 64)
    top: int | None = None  # layers adapted by moalign, counted from the top; None = all


def cases(size: Size) -> list[Case]:
    """Returns the comparisons of steps."""
    top_half = {_same_layers(PRECOMPUTE): 1.8, TRL: 4.0}
    return [
        Case("equal lengths", {TRL: 2.0, PRECOMPUTE: 1.4, LEAN: 1.2}),
        Case("prompt four times the response", {TRL: 2.6}, prompt=(96, 128), response=(24, 32)),
        Case("top half, cached trunk", top_half, top=size.layers // 2),
    ]


def step_rows(case: Case, size_name: str, policies: int, rounds: int, seed: int) -> list[Row]:
    """Returns the rows of one case: a step of K policies, over K, against a step of each peer."""
    size = SIZES[size_name]
    base, words = model(size, seed), tokenizer(size.vocabulary)
    batch = pairs(PAIRS_PER_STEP, size.vocabulary, case.prompt, case.response, seed)
    with tempfile.TemporaryDirectory() as folder:
        losses, works = _works(case, size, base, words, batch, policies, CHECKED_STEPS + rounds, seed, Path(folder))
        with all_closed(works):
            print(f"{size_name}, {case.name}, K={policies}, per step:", file=sys.stderr)
            for work in works.values():
                for _ in range(CHECKED_STEPS):
                    work()
            _check(losses)
            seconds = interleaved(works, rounds, warm_up=0)
    gc.collect()
    what = f"policy-step, {size_name}, {case.name}, K={policies}"
    return [
        ratio(what, peer, seconds[peer], seconds["moalign"], floor, policies) for peer, floor in case.floors.items()
    ]


def _works(
    case: Case,
    size: Size,
    base: Any,
    words: Any,
    batch: Sequence[Pair],
    policies: int,
    steps: int,
    seed: int,
    root: Path,
) -> tuple[dict[str, list[Any]], dict[str, Stretches]]:
    """Returns the losses that will be recorded, and the works, by competitor."""
    from benchmarks import ours, peers

    training = ours.settings(steps, len(batch), case.top)
    betas = [BETA, *(BETA * 1.3 ** (k + 1) for k in range(policies - 1))]
    losses: dict[str, list[Any]] = {"moalign": []}
    works: dict[str, Callable[[Callable[[], None]], object]] = {
        "moalign": ours.steps(base, words, batch, betas, training, seed, losses["moalign"])
    }
    for peer in case.floors:
        same = case.top is not None and peer == _same_layers(PRECOMPUTE)
        start = root / ("same" if same else "all")
        if not start.exists():
            start.mkdir()
            ours.save_start(base, words, batch, training if same else ours.settings(1, len(batch)), seed, start)
        losses[peer] = []
        if peer == LEAN:
            works[peer] = peers.lean_steps(base, batch, steps, BETA, start, losses[peer])
        else:
            layers = range(size.layers - case.top, size.layers) if same and case.top is not None else None
            precompute = peer in (PRECOMPUTE, _same_layers(PRECOMPUTE))
            works[peer] = peers.trl_steps(
                base, words, batch, steps, BETA, start, losses[peer], precompute=precompute, layers=layers
            )
    return losses, {name: Stretches(work) for name, work in works.items()}


def _check(losses: dict[str, list[Any]]) -> None:
    """Refuses to time competitors that do not compute the same; those with other layers are not compared.

    Raises:
        Disagreement: losses differ, or have not moved enough for their agreement to mean anything.
    """
    mine = [row[0] for row in losses["moalign"]]
    if abs(mine[-1] - mine[0]) < 10 * TOLERANCE:
        raise Disagreement(f"Losses {mine} hardly move: their agreement would show nothing. Raise the learning rate.")
    same_layers = [peer for peer in losses if peer.endswith("same layers")]
    for peer in same_layers or [peer for peer in losses if peer != "moalign"]:
        agree(f"losses against {peer}", mine, losses[peer], TOLERANCE)


def sweep_row(size_name: str, policies: int, steps: int, rounds: int, seed: int, floor: float | None) -> Row:
    """Returns the row of a whole sweep: load, prepare, train one epoch, answer four prompts with 24 tokens each."""
    from benchmarks import ours, peers

    size = SIZES[size_name]
    base, words = model(size, seed), tokenizer(size.vocabulary)
    train_on = pairs(PAIRS_PER_STEP * steps, size.vocabulary, seed=seed)
    ask = prompts(4, size.vocabulary, seed=seed)
    betas = [BETA * 1.3**k for k in range(policies)]
    training = ours.settings(steps, PAIRS_PER_STEP)
    works: dict[str, Callable[[], object]] = {
        "moalign": lambda: ours.sweep(base, words, train_on, betas, training, seed, ask, 24),
        TRL: lambda: peers.trl_sweep(base, words, train_on, betas, steps, PAIRS_PER_STEP, ask, 24),
    }
    what = f"whole sweep, {size_name}, K={policies}, {steps} steps, answers by generation"
    print(f"{what}:", file=sys.stderr)
    seconds = interleaved(works, rounds, warm_up=0)  # everything here ran before, in the rows of steps
    return ratio(what, "K TRL runs, each followed by generate()", seconds[TRL], seconds["moalign"], floor)


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for size in ("s", "m") if options.full else ("s",):
        for case in cases(SIZES[size]):
            rows.extend(step_rows(case, size, POLICIES, options.repeats(3, 7 if size == "s" else 4), options.seed))
        steps = 2 if options.quick else 8
        rows.append(sweep_row(size, POLICIES, steps, options.repeats(1, 2 if size == "s" else 1), options.seed, 2.5))
    return rows


def _same_layers(peer: str) -> str:
    return f"{peer}, same layers"


if __name__ == "__main__":
    run(measure, parse("Training: moalign's stack against TRL and PEFT."), ("torch", "transformers", "trl", "peft"))
