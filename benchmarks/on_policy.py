"""On-policy training: CPU time of one step of one policy, sampling included.

Every competitor samples the same number of responses of the same length to the same prompts, scores them by the same
function and takes one KL-penalised leave-one-out step. Samples differ by chance, so what must agree is their number of
tokens, within a tenth: random models hardly ever stop by themselves.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.common import Options, Row, Stretches, agree, all_closed, interleaved, parse, ratio, run
from benchmarks.workload import SIZES, model, prompts, tokenizer

POLICIES = 8
PROMPTS, SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 4, 4, 48, 48
BETA = 0.05
CHECKED_STEPS = 2
FLOORS = {"TRL RLOOTrainer + PEFT": 2.0, "lean transformers + PEFT loop": 1.5}


def even_words(prompts: Sequence[Any], completions: Sequence[str], **others: Any) -> list[float]:
    """A reward: the share of a response's words t<i> whose number is even."""
    words = [completion.split() for completion in completions]
    return [sum(word[-1] in "02468" for word in row) / max(1, len(row)) for row in words]


def step_rows(size_name: str, policies: int, rounds: int, seed: int) -> list[Row]:
    """Returns one row per competitor."""
    from benchmarks import on_policy_peers, ours

    size = SIZES[size_name]
    base, words = model(size, seed), tokenizer(size.vocabulary)
    ask = prompts(PROMPTS, size.vocabulary, PROMPT_TOKENS, seed)
    steps = CHECKED_STEPS + rounds
    tokens: dict[str, list[float]] = {name: [] for name in ("moalign", *FLOORS)}
    trl, lean = FLOORS
    shape = {"samples": SAMPLES, "new_tokens": NEW_TOKENS}
    works = {
        "moalign": Stretches(
            ours.on_policy_steps(
                base,
                words,
                ask,
                [BETA * 1.1**k for k in range(policies)],
                even_words,
                steps,
                seed,
                tokens["moalign"],
                **shape,
            )  # fmt: skip
        ),
        trl: Stretches(on_policy_peers.trl_steps(base, words, ask, even_words, steps, BETA, tokens[trl], **shape)),
        lean: Stretches(on_policy_peers.lean_steps(base, words, ask, even_words, steps, BETA, tokens[lean], **shape)),
    }
    what = f"on-policy policy-step, {size_name}, {PROMPTS} prompts x {SAMPLES} samples, K={policies}"
    with all_closed(works):
        print(f"{what}:", file=sys.stderr)
        for work in works.values():
            for _ in range(CHECKED_STEPS):
                work()
        for name in FLOORS:
            agree(f"tokens sampled against {name}", tokens["moalign"], tokens[name], 0.1 * max(tokens[name]))
        seconds = interleaved(works, rounds, warm_up=0)
    gc.collect()
    return [ratio(what, peer, seconds[peer], seconds["moalign"], floor, policies) for peer, floor in FLOORS.items()]


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    rows = step_rows("s", POLICIES, options.repeats(3, 7), options.seed)
    if options.full:
        rows += step_rows("m", POLICIES, options.repeats(3, 3), options.seed)
    return rows


if __name__ == "__main__":
    run(measure, parse("On-policy steps: a stack of policies against one run each."), ("torch", "transformers", "trl"))
