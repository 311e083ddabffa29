"""Evaluating a sweep: greedy decoding of K policies at once against `generate()` on one merged model after another.

Both sides start from texts and end with texts; merging is not timed. Tokens must be equal, or nothing is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import Disagreement, Options, Row, interleaved, parse, ratio, run
from benchmarks.workload import RESERVED, SIZES, model, pairs, prompts, tokenizer

POLICIES = 8
PROMPTS = 4
TOKENS = 24
PEER = "generate() on merged models, one by one"


def decode_rows(size_name: str, policies: int, tokens: int, rounds: int, seed: int) -> list[Row]:
    """Returns the rows for a stack of `policies` and for a single one."""
    from benchmarks import ours, peers
    from moalign import Policy
    from moalign.policy.engine import Engine

    size = SIZES[size_name]
    base, words = never_stopping(model(size, seed)), tokenizer(size.vocabulary)
    engine = Engine(Policy(base, words), seed=seed, device="cpu")
    stack = ours.random_stack(engine, pairs(1, size.vocabulary, seed=seed), policies, seed)
    alone = stack.select([0])
    merged = peers.merged_models(base, [stack.deltas(k) for k in range(policies)])
    ask = prompts(PROMPTS, size.vocabulary, seed=seed)
    _check(ours.greedy(engine, ask, stack, tokens), [peers.greedy(one, words, ask, tokens)[0] for one in merged])
    works: dict[str, Callable[[], object]] = {
        "moalign, stacked": lambda: ours.greedy(engine, ask, stack, tokens),
        "moalign, K=1": lambda: ours.greedy(engine, ask, alone, tokens),
        "peer": lambda: [peers.greedy(one, words, ask, tokens) for one in merged],
        "peer, K=1": lambda: peers.greedy(merged[0], words, ask, tokens),
    }
    what = f"greedy decoding, {size_name}, {PROMPTS} prompts x {tokens} tokens"
    print(f"{what}, K={policies}:", file=sys.stderr)
    seconds = interleaved(works, rounds)
    return [
        ratio(f"{what}, K={policies}", PEER, seconds["peer"], seconds["moalign, stacked"], 2.5),
        ratio(f"{what}, K=1", PEER, seconds["peer, K=1"], seconds["moalign, K=1"], None),
    ]


def never_stopping(base: Any) -> Any:
    """Returns the model with a head that never favours a special token, so that all responses have full length."""
    import torch

    with torch.no_grad():
        base.get_output_embeddings().weight[:RESERVED] = 0  # logit 0, and some of many random logits are positive
    return base


def _check(ours: list[list[Any]], theirs: list[list[list[int]]]) -> None:
    """Refuses to time decoders that differ.

    Raises:
        Disagreement: tokens differ, or all policies say the same.
    """
    mine = [[list(generation.ids) for generation in policy] for policy in ours]
    if mine != theirs:
        wrong = [k for k, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
        raise Disagreement(f"Greedy tokens of policies {wrong} differ from generate(). Nothing was timed.")
    if len(mine) > 1 and all(policy == mine[0] for policy in mine):
        raise Disagreement("All policies gave the same tokens, so their agreement shows little. Use larger adapters.")


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for size in ("s", "m") if options.full else ("s",):
        rows.extend(decode_rows(size, POLICIES, TOKENS, options.repeats(3, 7), options.seed))
    return rows


if __name__ == "__main__":
    run(measure, parse("Decoding: moalign's stack against generate()."), ("torch", "transformers"))
