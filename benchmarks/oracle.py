"""The exact oracle for many weight vectors: moalign against a loop in numpy and written-out sums in chunks.

All give the expected rewards and the KL of every optimum, means over prompts; they must agree, or nothing is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import Options, Row, agree, interleaved, parse, ratio, run

WEIGHTS, PROMPTS, CANDIDATES, BETA = 1000, 256, 64, 0.1
CHUNK = 32  # weight vectors whose probabilities are held at once by the written-out form
LOOP = "numpy, one weight vector after another"
EINSUM = f"torch einsum, {CHUNK} weight vectors at once"
FLOORS = {LOOP: 4.0, EINSUM: 2.0}


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
    import torch

    from moalign.oracle import oracle

    draw = torch.Generator().manual_seed(seed)
    rewards = torch.randn(prompts, CANDIDATES, objectives, generator=draw)
    log_base = torch.randn(prompts, CANDIDATES, generator=draw).log_softmax(-1)
    w = torch.rand(weights, objectives, generator=draw) + 0.01
    w = w / w.sum(1, keepdim=True)
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


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    repeats = options.repeats(7, 25)
    return [row for objectives in (2, 3, 5) for row in oracle_rows(objectives, repeats, options.seed)]


if __name__ == "__main__":
    run(measure, parse("Oracle: moalign against numpy and einsum."), ("torch",))
