"""Which of moalign's own settings buys what: CPU time of a policy-step against a single plain policy.

No peer and no floor: the rows say what stacking, chunks of policies, half precision and fewer adapted layers change.
Settings that promise the same numbers must give the same losses, or nothing is timed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, final

from benchmarks.common import Options, Row, Stretches, agree, all_closed, interleaved, parse, ratio, run
from benchmarks.workload import SIZES, Size, model, pairs, tokenizer

PAIRS_PER_STEP = 4
BETA = 0.1
CHECKED_STEPS = 2
TOLERANCE = 1e-4
PLAIN = "one policy, all layers, float32"


@final
@dataclass(frozen=True)
class Variant:
    """Settings to compare with a single plain policy.

    Attributes:
        policies: trained at once.
        training: further arguments of `ours.settings`.
        dtype: of the base and the activations.
        exact: the first policy's losses are those of the plain one.
    """

    policies: int = 1
    training: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    exact: bool = True


def variants(size: Size) -> dict[str, Variant]:
    """Returns the settings to compare."""
    found = {
        PLAIN: Variant(),
        "stack of 2": Variant(2),
        "stack of 8": Variant(8),
        "stack of 8, one policy per chunk": Variant(8, {"tokens_per_chunk": 1}),
        "stack of 8, all in one chunk": Variant(8, {"tokens_per_chunk": 1 << 30}),
        "stack of 4, bfloat16": Variant(4, dtype="bfloat16", exact=False),
    }
    for name, top in (("half", size.layers // 2), ("quarter", max(1, size.layers // 4))):
        found[f"stack of 4, top {name} of the layers"] = Variant(4, {"layers": top}, exact=False)
    return found


def ablation_rows(size_name: str, rounds: int, seed: int, chosen: dict[str, Variant] | None = None) -> list[Row]:
    """Returns one row per variant."""
    from benchmarks import ours

    size = SIZES[size_name]
    base, words = model(size, seed), tokenizer(size.vocabulary)
    batch = pairs(PAIRS_PER_STEP, size.vocabulary, seed=seed)
    chosen = chosen or variants(size)
    losses: dict[str, list[list[float]]] = {name: [] for name in chosen}
    works = {}
    for name, variant in chosen.items():
        betas = [BETA * 1.1**k for k in range(variant.policies)]
        training = ours.settings(CHECKED_STEPS + rounds, len(batch), **variant.training)
        works[name] = Stretches(
            ours.steps(base, words, batch, betas, training, seed, losses[name], dtype=variant.dtype)
        )
    with all_closed(works):
        for work in works.values():
            for _ in range(CHECKED_STEPS):
                work()
        first = {name: [row[0] for row in values] for name, values in losses.items()}
        for name, variant in chosen.items():
            if variant.exact:
                agree(f"losses of '{name}'", first[name], first[PLAIN], TOLERANCE)
        print(f"{size_name}, per step of the whole stack:", file=sys.stderr)
        seconds = interleaved(works, rounds, warm_up=0)
    what = f"policy-step, {size_name}"
    return [
        ratio(f"{what}, {name}", PLAIN, seconds[PLAIN], seconds[name], None, variant.policies)
        for name, variant in chosen.items()
        if name != PLAIN
    ]


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for size in ("s", "m") if options.full else ("s",):
        rows.extend(ablation_rows(size, options.repeats(2, 5), options.seed))
    return rows


if __name__ == "__main__":
    run(measure, parse("Ablation: what moalign's own settings change."), ("torch", "transformers"))
