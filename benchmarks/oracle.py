"""The exact oracle for many weight vectors: moalign against a loop in numpy and written-out sums in chunks.

All give the expected rewards and the KL of every optimum, means over prompts; they must agree, or nothing is timed.
Further rows: a fine regular lattice, which has a form of its own; the distance to float64, also of products of bfloat16
pairs, which a CPU computes slower than float32; the memory that 10^5 weight vectors need; and, where there is an
accelerator, the same work on it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import Options, Row, agree, interleaved, parse, ratio, run, spread
from benchmarks.gpu import matrix_peak
from benchmarks.memory import peak_bytes

WEIGHTS, PROMPTS, CANDIDATES, BETA = 1000, 256, 64, 0.1
CHUNK = 32  # weight vectors whose probabilities are held at once by the written-out form
LOOP = "numpy, one weight vector after another"
EINSUM = f"torch einsum, {CHUNK} weight vectors at once"
FLOORS = {LOOP: 4.0, EINSUM: 2.0}
TOLERANCE = 2e-6  # reward units and nats
HALF_TOLERANCE = 1e-3  # of products of bfloat16 pairs: rewards at the worst prompt, mean KL
MEMORY = 64 * 2**20  # bytes
MANY = 100_000
SIDE = 300  # of the lattice: 45,451 weight vectors
LOOP_SHARE = 500  # weight vectors of them that the numpy loop really does; it does them one by one


def numpy_loop(rewards: Any, log_base: Any, weights: Any, beta: float) -> tuple[Any, Any]:
    """Returns (rewards [weights, objectives], KL [weights]) of the optima, computed one by one."""
    import numpy as np

    expected, kl = np.empty_like(weights), np.empty(len(weights), dtype=weights.dtype)
    for i, weight in enumerate(weights):
        scores = rewards @ (weight / beta)  # [prompts, candidates]
        logits = scores + log_base
        top = logits.max(1, keepdims=True)
        unnormalised = np.exp(logits - top)
        total = unnormalised.sum(1, keepdims=True)
        probabilities = unnormalised / total
        log_z = top[:, 0] + np.log(total[:, 0])
        expected[i] = np.einsum("pn,pnm->m", probabilities, rewards) / len(rewards)
        kl[i] = ((probabilities * scores).sum(1) - log_z).mean()
    return expected, kl


def chunked_einsum(rewards: Any, log_base: Any, weights: Any, beta: float) -> tuple[Any, Any]:
    """Returns the same as `numpy_loop`, as tensors, with the probabilities of some weight vectors at once."""
    import torch

    expected, kl = [], []
    for some in weights.split(CHUNK):
        scores = torch.einsum("wm,pnm->wpn", some / beta, rewards)
        logits = scores + log_base
        log_z = logits.logsumexp(-1, keepdim=True)
        probabilities = (logits - log_z).exp()
        expected.append(torch.einsum("wpn,pnm->wm", probabilities, rewards) / len(rewards))
        kl.append(((probabilities * scores).sum(-1) - log_z[..., 0]).mean(1))
    return torch.cat(expected), torch.cat(kl)


def oracle_rows(objectives: int, rounds: int, seed: int, weights: int = WEIGHTS, prompts: int = PROMPTS) -> list[Row]:
    """Returns moalign's oracle against both peers."""
    from moalign.oracle import oracle

    rewards, log_base, w = problem(seed, weights, objectives, prompts)
    arrays = rewards.numpy(), log_base.numpy(), w.numpy()
    works: dict[str, Callable[[], Any]] = {
        "moalign": lambda: oracle(rewards, w, BETA, log_base=log_base, per_prompt=False),
        LOOP: lambda: numpy_loop(*arrays, BETA),
        EINSUM: lambda: chunked_einsum(rewards, log_base, w, BETA),
    }
    mine = works["moalign"]()
    for peer in FLOORS:
        expected, kl = works[peer]()
        agree(f"expected rewards against {peer}", mine.rewards.flatten().tolist(), expected.flatten().tolist(), 1e-4)
        agree(f"KL against {peer}", mine.kl.tolist(), kl.tolist(), 1e-4)
    what = f"oracle, {objectives} objectives, {weights} weight vectors, {prompts} x {CANDIDATES} candidates"
    print(f"{what}:", file=sys.stderr)
    seconds = interleaved(works, rounds)
    return [ratio(what, peer, seconds[peer], seconds["moalign"], floor) for peer, floor in FLOORS.items()]


def problem(seed: int, weights: int, objectives: int = 3, prompts: int = PROMPTS) -> tuple[Any, Any, Any]:
    """Returns normal rewards, base log-probabilities and random weights."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    rewards = torch.randn(prompts, CANDIDATES, objectives, generator=draw)
    log_base = torch.randn(prompts, CANDIDATES, generator=draw).log_softmax(-1)
    w = torch.rand(weights, objectives, generator=draw) + 0.01
    return rewards, log_base, w / w.sum(1, keepdim=True)


def lattice_row(rounds: int, seed: int, side: int = SIDE) -> Row:
    """Returns the row of a regular lattice over three objectives; the loop is timed on some weights and scaled up."""
    import torch

    from moalign.oracle import oracle
    from moalign.weights import grid

    rewards, log_base, _ = problem(seed, 1)
    w = torch.as_tensor(grid(3, side)).float()
    some = w[:: -(-len(w) // LOOP_SHARE)].contiguous()
    works: dict[str, Callable[[], Any]] = {
        "moalign": lambda: oracle(rewards, w, BETA, log_base=log_base, per_prompt=False),
        LOOP: lambda: numpy_loop(rewards.numpy(), log_base.numpy(), some.numpy(), BETA),
    }
    mine, (expected, kl) = works["moalign"](), works[LOOP]()
    step = -(-len(w) // LOOP_SHARE)
    agree("rewards on the lattice", mine.rewards[::step].flatten().tolist(), expected.flatten().tolist(), 1e-4)
    agree("KL on the lattice", mine.kl[::step].tolist(), kl.tolist(), 1e-4)
    what = f"oracle on a regular lattice, 3 objectives, {len(w)} weight vectors, {PROMPTS} x {CANDIDATES} candidates"
    print(f"{what} (the loop: {len(some)} of them):", file=sys.stderr)
    seconds = interleaved(works, rounds)
    return ratio(what, LOOP, seconds[LOOP], seconds["moalign"], 12.0, share=len(w) / len(some))


def precision_row(seed: int, device: str = "cpu") -> Row:
    """Returns how many times nearer to float64 than promised rewards and KL are; low and high over problems."""
    import torch

    from moalign.oracle import oracle

    errors = []
    for objectives in (2, 3, 5):
        rewards, log_base, w = (t.to(device) for t in problem(seed, WEIGHTS, objectives))
        single, double = (
            oracle(rewards.to(t), w.to(t), BETA, log_base=log_base.to(t), per_prompt=False)
            for t in (torch.float32, torch.float64)
        )
        pairs = ((single.rewards, double.rewards), (single.kl, double.kl))
        errors.append(max(float((a - b).abs().max()) for a, b in pairs))
        print(f"largest difference to float64, {objectives} objectives: {errors[-1]:.1e}", file=sys.stderr)
    what = "oracle, float32 against float64" + (", accelerator" if device != "cpu" else "")
    return ratio(what, f"{TOLERANCE:g}", [TOLERANCE] * 3, errors, 1.0)


def half_rows(rounds: int, seed: int) -> list[Row]:
    """Returns how near bfloat16 pairs are to float64, and their time against float32's."""

    from moalign.oracle import oracle

    errors = []
    for objectives in (2, 5, 3):
        rewards, log_base, w = problem(seed, WEIGHTS, objectives)
        half = oracle(rewards, w, BETA, log_base=log_base, half=True)
        exact = oracle(rewards.double(), w.double(), BETA, log_base=log_base.double())
        pairs = ((half.prompt_rewards, exact.prompt_rewards), (half.kl, exact.kl))
        errors.append(max(float((a - b).abs().max()) for a, b in pairs))
        print(f"largest difference of bfloat16 pairs, {objectives} objectives: {errors[-1]:.1e}", file=sys.stderr)
    works = {
        name: lambda half=half: oracle(rewards, w, BETA, log_base=log_base, per_prompt=False, half=half)
        for name, half in (("bfloat16 pairs", True), ("float32", False))
    }
    seconds = interleaved(works, rounds)
    what = f"oracle in bfloat16 pairs, 3 objectives, {WEIGHTS} weight vectors, {PROMPTS} x {CANDIDATES} candidates"
    return [
        ratio("oracle, bfloat16 pairs against float64", f"{HALF_TOLERANCE:g}", [HALF_TOLERANCE] * 3, errors, 1.0),
        ratio(what, "the same in float32", seconds["float32"], seconds["bfloat16 pairs"], None),
    ]


def extra_bytes(seed: int, weights: int) -> int:
    """Returns what the oracle adds to the peak memory of this process, its result included."""
    from moalign.oracle import oracle

    rewards, log_base, w = problem(seed, weights)
    oracle(rewards[:2], w[:2], BETA, log_base=log_base[:2], per_prompt=False)  # libraries load on first use
    before = peak_bytes()
    oracle(rewards, w, BETA, log_base=log_base, per_prompt=False)
    return peak_bytes() - before


def memory_row(rounds: int, seed: int, weights: int = MANY) -> Row:
    """Returns the row of the memory for many weights, each round in a process of its own."""
    code = f"from benchmarks.oracle import extra_bytes; print(extra_bytes({seed}, {weights}))"
    found = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.append(max(1.0, float(done.stdout)))
        print(f"extra memory for {weights} weight vectors: {found[-1] / 2**20:.0f} MB", file=sys.stderr)
    what = f"extra memory of the oracle, {weights} weight vectors, {PROMPTS} x {CANDIDATES} candidates"
    return ratio(what, "64 MB", [MEMORY] * rounds, found, 1.0)


def accelerator_rows(rounds: int, seed: int) -> list[Row]:
    """Returns the rows of the accelerator against the numpy loop of the same machine; none without one. Wall time."""
    import torch

    from moalign.oracle import oracle

    if not torch.cuda.is_available():
        return []
    rewards, log_base, w = problem(seed, MANY)
    on_device = [t.cuda() for t in (rewards, log_base, w)]

    def ours(half: bool = False) -> None:
        oracle(on_device[0], on_device[2], BETA, log_base=on_device[1], per_prompt=False, half=half)
        torch.cuda.synchronize()

    def wall(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    works = {
        "moalign": ours,
        "moalign in bfloat16 pairs": lambda: ours(half=True),
        LOOP: lambda: numpy_loop(*(t.numpy() for t in (rewards, log_base, w[:LOOP_SHARE])), BETA),
    }
    seconds = interleaved(works, rounds, clock=wall)
    name = torch.cuda.get_device_name()
    what = f"oracle on {name}, 3 objectives, {MANY} weight vectors, {PROMPTS} x {CANDIDATES} candidates"
    mine, half = seconds["moalign"], seconds["moalign in bfloat16 pairs"]
    # per weight, prompt and candidate: M multiply-adds for the score, one exponential, M + 1 multiply-adds for the sums
    flops, peak = MANY * PROMPTS * CANDIDATES * 15, matrix_peak("cuda", "float32")
    shares = [flops / s / peak for s in mine]
    return [
        ratio(what, LOOP, seconds[LOOP], mine, 50.0, share=MANY / LOOP_SHARE),
        ratio(f"{what}, bfloat16 pairs", "the same in float32", mine, half, None),
        Row(what, "absolute: weight vectors per second", *spread([MANY / s for s in mine])),
        Row(what, f"share of the measured float32 matrix peak, {peak / 1e12:.3g} TFLOP/s", *spread(shares)),
        precision_row(seed, "cuda"),
    ]


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    repeats = options.repeats(7, 25)
    rows = [row for objectives in (2, 3, 5) for row in oracle_rows(objectives, repeats, options.seed)]
    rows += [lattice_row(options.repeats(3, 9), options.seed), precision_row(options.seed)]
    rows += half_rows(options.repeats(3, 9), options.seed)
    rows += [memory_row(options.repeats(1, 3), options.seed), *accelerator_rows(options.repeats(3, 9), options.seed)]
    return rows


if __name__ == "__main__":
    run(measure, parse("Oracle: moalign against numpy and einsum."), ("torch",))
