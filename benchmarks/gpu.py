"""On an accelerator: steps and answers of 16 policies in bfloat16, absolute rates, and what the device could reach.

Without one nothing is measured and there are no rows. Time is the wall clock around a synchronised device. Before
anything is timed the losses of the first steps must agree: in float32 closely, in bfloat16 within its rounding.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from benchmarks.common import Options, Row, Stretches, agree, all_closed, interleaved, parse, ratio, run, spread
from benchmarks.sweep import LEAN, PAIRS_PER_STEP, TRL
from benchmarks.workload import SIZES, Pair, model, pairs, prompts, tokenizer

POLICIES = 16
BETA = 0.1
CHECKED_STEPS = 3
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of losses near log 2
TOKENS = 64
LONG_PROMPT, SHORT_RESPONSE = (192, 256), (48, 64)
EQUAL = (96, 128)  # tokens of prompts, and of responses


@final
@dataclass(frozen=True)
class Case:
    """One comparison of steps.

    Attributes:
        name: for the row.
        size: of the model, a name in SIZES.
        prompt, response: lengths in tokens.
        floors: by peer.
        layers: adapted by moalign, from the top; None = all, like the peers.
        graphs: moalign replays CUDA graphs.
        device: where all compute.
    """

    name: str
    size: str
    prompt: tuple[int, int]
    response: tuple[int, int]
    floors: Mapping[str, float | None]
    layers: int | None = None
    graphs: bool = False
    device: str = "cuda"

    def batch(self, seed: int) -> list[Pair]:
        """Returns the pairs of every step."""
        return pairs(PAIRS_PER_STEP, SIZES[self.size].vocabulary, self.prompt, self.response, seed)


def cases(size: str) -> list[Case]:
    """Returns the comparisons for one model size."""
    floors = {TRL: 4.0, LEAN: 2.0} if size == "xl" else {TRL: 12.0, LEAN: 6.0}
    half = max(1, SIZES[size].layers // 2)
    found = [
        Case("equal lengths", size, EQUAL, EQUAL, floors),
        Case("prompt four times the response", size, LONG_PROMPT, SHORT_RESPONSE, {TRL: None}),
        Case("top half of the layers", size, EQUAL, EQUAL, {TRL: None}, layers=half),
    ]
    if size == "m":
        found.append(Case("equal lengths, CUDA graphs", size, EQUAL, EQUAL, dict.fromkeys(floors), graphs=True))
    return found


def step_rows(case: Case, policies: int, rounds: int, seed: int) -> list[Row]:
    """Returns the rows of one case, and the absolute rate of moalign's steps."""
    import torch

    base = model(SIZES[case.size], seed)
    if case.layers is None:
        _timed(case, base, policies, 0, seed, "float32")
    seconds = _timed(case, base.to(torch.bfloat16), policies, rounds, seed, "bfloat16")
    gc.collect()
    what = f"policy-step, {case.size}, {case.name}, K={policies}, bfloat16"
    rows = [ratio(what, p, seconds[p], seconds["moalign"], floor, policies) for p, floor in case.floors.items()]
    return rows + _absolute_rows(what, case, policies, seconds["moalign"], seed)


def _timed(case: Case, base: Any, policies: int, rounds: int, seed: int, dtype: str) -> dict[str, list[float]]:
    """Returns seconds per step of each competitor, once their losses were seen to agree."""
    from benchmarks import ours, peers

    words, batch, steps = tokenizer(SIZES[case.size].vocabulary), case.batch(seed), CHECKED_STEPS + 1 + rounds
    losses: dict[str, list[Any]] = {"moalign": [], **{peer: [] for peer in case.floors}}
    training = ours.settings(steps, len(batch), case.layers, graphs=case.graphs)
    betas = [BETA * 1.1**k for k in range(policies)]
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder)
        ours.save_start(base, words, batch, ours.settings(1, len(batch)), seed, start)
        mine = ours.steps(base, words, batch, betas, training, seed, losses["moalign"], dtype, case.device)
        works: dict[str, Callable[[Callable[[], None]], object]] = {"moalign": mine}
        for peer in case.floors:
            if peer == LEAN:
                works[peer] = peers.lean_steps(base, batch, steps, BETA, start, losses[peer], case.device)
            else:
                works[peer] = peers.trl_steps(base, words, batch, steps, BETA, start, losses[peer], device=case.device)
        with all_closed({name: Stretches(work) for name, work in works.items()}) as stretches:
            for work in stretches.values():
                for _ in range(CHECKED_STEPS):
                    work()
            if case.layers is None:
                first = [row[0] for row in losses["moalign"]]
                for peer in case.floors:
                    agree(f"{dtype} losses against {peer}", first, losses[peer], TOLERANCE[dtype])
            print(f"{case.size}, {case.name}, K={policies}, {dtype}, per step:", file=sys.stderr)
            return interleaved(stretches, rounds, clock=wall_seconds) if rounds else {}


def _absolute_rows(what: str, case: Case, policies: int, seconds: Sequence[float], seed: int) -> list[Row]:
    """Returns tokens per second of all policies, and the share of the device's matrix peak that the products reach.

    Products below the lowest adapter are not counted, nor is what a layout computes twice.
    """
    batch, size = case.batch(seed), SIZES[case.size]
    tokens = sum(len(p.prompt) + len(p.chosen) + len(p.rejected) - 2 for p in batch)
    predicted = sum(len(p.chosen) + len(p.rejected) for p in batch)
    counted = size if case.layers is None else replace(size, layers=case.layers)
    flops, peak = policies * counted.matrix_flops(tokens, predicted), matrix_peak(case.device)
    named = {
        "absolute: tokens per second": [policies * tokens / s for s in seconds],
        f"share of the measured matrix peak, {peak / 1e12:.3g} TFLOP/s": [flops / s / peak for s in seconds],
    }
    return [Row(what, peer, *spread(v)) for peer, v in named.items()]


def decode_row(size_name: str, policies: int, rounds: int, seed: int, device: str) -> Row:
    """Returns the row of greedy answers to 8 prompts, against `generate()` on merged models one by one."""
    import torch

    from benchmarks import ours, peers
    from benchmarks.decode import never_stopping
    from moalign import Policy
    from moalign.policy.engine import Engine

    size = SIZES[size_name]
    base, words = never_stopping(model(size, seed)), tokenizer(size.vocabulary)
    engine = Engine(Policy(base, words, dtype="bfloat16"), seed=seed, device=device)
    stack = ours.random_stack(engine, pairs(1, size.vocabulary, seed=seed), policies, seed)
    ask = prompts(8, size.vocabulary, seed=seed)
    [merged] = peers.merged_models(base, [{n: d.cpu() for n, d in stack.deltas(0).items()}])
    merged = merged.to(device=device, dtype=torch.bfloat16)
    works: dict[str, Callable[[], object]] = {
        "moalign": lambda: ours.greedy(engine, ask, stack, TOKENS),
        "peer": lambda: peers.greedy(merged, words, ask, TOKENS),  # all merged models cost the same
    }
    what = f"greedy decoding, {size_name}, 8 prompts x {TOKENS} tokens, K={policies}, bfloat16"
    print(f"{what}:", file=sys.stderr)
    seconds = interleaved(works, rounds, clock=wall_seconds)
    return ratio(what, "generate() on merged models", seconds["peer"], seconds["moalign"], None, policies)


def wall_seconds(work: Callable[[], object]) -> float:
    """Returns the wall time of `work`, the device idle before and after."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Waits for the accelerator, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_peak(device: str, dtype: str = "bfloat16", width: int = 8192, repeats: int = 20) -> float:
    """Returns the floating-point operations per second of the fastest square product found on `device`."""
    import torch

    side = width if device != "cpu" else 512
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return max(2 * side**3 / wall_seconds(lambda: a @ b) for _ in range(repeats))


def bandwidth(device: str, repeats: int = 20) -> float:
    """Returns the bytes per second of the fastest copy found; each byte is read once and written once."""
    import torch

    a = torch.zeros(1 << (30 if device != "cpu" else 24), dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return max(2 * a.numel() / wall_seconds(lambda: b.copy_(a)) for _ in range(repeats))


def measure(options: Options) -> list[Row]:
    """Returns all rows; none without an accelerator."""
    import torch

    if not torch.cuda.is_available():
        print("There is no accelerator, so nothing is measured.", file=sys.stderr)
        return []
    peak, speed = matrix_peak("cuda") / 1e12, bandwidth("cuda") / 1e12
    print(f"{torch.cuda.get_device_name()}: {peak:.0f} TFLOP/s in bfloat16, {speed:.2f} TB/s copied", file=sys.stderr)
    rows = []
    for size in ("m",) if options.quick else ("m", "l", "xl"):
        rounds = options.repeats(5, 15 if size != "xl" else 7)
        for case in cases(size):
            rows.extend(step_rows(case, POLICIES, rounds, options.seed))
        rows.append(decode_row(size, POLICIES, options.repeats(2, 5), options.seed, "cuda"))
    return rows


if __name__ == "__main__":
    run(measure, parse("GPU: moalign's stack against TRL and PEFT."), ("torch", "transformers", "trl", "peft"))
