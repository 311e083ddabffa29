"""The output head: log-probs of given tokens under a frozen projection, forward and backward.

Half of the positions belong to completions, as where prompts and responses are equally long. TRL on a CPU scores every
position; on CUDA it skips the prompt's, which the second peer does here.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.common import Options, Row, agree, interleaved, parse, ratio, run

WIDTH, VOCABULARY, POSITIONS = 768, 49152, 512
CHUNK = 32768  # of the vocabulary, TRL's own setting
METRICS = ("log_probs", "entropy", "mean_logits", "is_top1")  # what its DPOTrainer asks for


def head_rows(width: int, vocabulary: int, positions: int, rounds: int, seed: int) -> list[Row]:
    """Returns the rows against TRL's kernel and against plain cross-entropy."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from trl.kernels import ChunkedLogProbFunction

    from moalign.policy.head import frozen_head_log_probs

    torch.manual_seed(seed)
    head = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
    states, target = torch.randn(positions, width), torch.randint(0, vocabulary, (positions,))
    outer = torch.randn(positions)  # the gradient that comes from the loss
    completion = slice(positions // 2)

    def trl(h: Tensor, y: Tensor) -> Tensor:
        return ChunkedLogProbFunction.apply(h, head.weight, None, y, 1.0, CHUNK, None, 1.0, METRICS)[0]

    def entropy(h: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(head(h), y, reduction="none")

    def ours(h: Tensor, y: Tensor) -> Tensor:
        return frozen_head_log_probs(h[None], head, y)[0]

    def both_ways(log_probs: Callable[[Tensor, Tensor], Tensor], part: slice) -> tuple[Tensor, Tensor]:
        h = states[part].clone().requires_grad_()
        value = log_probs(h, target[part])
        value.backward(outer[part])
        assert h.grad is not None
        return value.detach(), h.grad

    mine = both_ways(ours, completion)
    for peer in (trl, entropy):
        theirs = both_ways(peer, completion)
        for what, a, b in zip(("log-probs", "gradients"), mine, theirs, strict=True):
            agree(f"{what} of the head", a.flatten().tolist(), b.flatten().tolist(), 1e-3)
    whole = slice(None)
    works: dict[str, Callable[[], object]] = {
        "moalign": lambda: both_ways(ours, completion),
        "TRL, every position (its CPU path)": lambda: both_ways(trl, whole),
        "TRL, completion tokens only (its CUDA path)": lambda: both_ways(trl, completion),
        "cross_entropy, completion tokens only": lambda: both_ways(entropy, completion),
    }
    seconds = interleaved(works, rounds)
    what = f"output head, width {width}, vocabulary {vocabulary}, {positions} positions"
    floors = {"TRL, every position (its CPU path)": 4.0}
    return [ratio(what, p, seconds[p], seconds["moalign"], floors.get(p)) for p in works if p != "moalign"]


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    return head_rows(WIDTH, VOCABULARY, POSITIONS, options.repeats(3, 7), options.seed)


if __name__ == "__main__":
    run(measure, parse("Output head: log-probs and gradients of given tokens."), ("torch", "trl"))
