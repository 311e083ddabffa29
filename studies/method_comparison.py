"""Which method when: all of them with the same budget, on the embedded problem or on a real language model.

    python studies/method_comparison.py --seeds 0 1 2 --save methods.jsonl --figure methods.html
    python studies/method_comparison.py --problem tinystories --seeds 0 1

The embedded problem takes a quarter of an hour a seed on one core. With --save several may run side by side, a seed or
a method each; a last run then finds what they have done and prints the table of `moalign compare`, and whether each
figure holds on every seed. Where one does not, the columns say why: little of the gain at equal KL is optimisation or
data, a good gain at equal KL with a small share is the wrong KL.

The stories of `studies/tinystories.py` are judged by samples, see `studies/story_methods.py`, and take three quarters
of an hour a seed. Their trainings are kept in --store, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import moalign as ma
from moalign.cli.compare import print_rows, write_figure
from moalign.comparison.embedded import STEPS, compare
from moalign.comparison.exact import optimum_curve
from moalign.comparison.outcomes import Outcome, summary
from moalign.demo import toy_facts
from moalign.threads import one_thread
from studies import story_methods as stories

FLOORS = {
    "MODPO": ("share", 0.90),
    "MORLHF": ("share", 0.90),
    "C-MORL": ("constrained", 0.90),
    "DPA": ("at_equal_kl", 0.80),
    "RiC": ("at_equal_kl", 0.80),
    "MaxMin": ("worst_group", 0.80),
}


def floors(outcomes: Sequence[Outcome]) -> list[tuple[str, str, bool]]:
    """Returns (what is demanded of a method on every seed, what was found, whether it holds)."""
    judged = []
    for method, (score, floor) in FLOORS.items():
        found = [float(getattr(o, score)) for o in outcomes if o.method == method]
        if found:
            values = ", ".join(f"{v:.2f}" for v in found)
            judged.append((f"{method} {score} >= {floor:.2f}", values, min(found) >= floor))
    return judged


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and prints it; returns the exit code, 1 where a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=["embedded", "tinystories"], default="embedded")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="all when left out")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each of ten policies: the budget")
    parser.add_argument("--figure", type=Path, help="HTML file for the overlay")
    parser.add_argument("--save", type=Path, help="embedded: file of outcomes, what it has is not run again")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="tinystories: trainings are kept there")
    parser.add_argument("--model", help="tinystories: folder of stories260K")
    parser.add_argument("--data", help="tinystories: folder of the stories")
    asked = parser.parse_args(arguments)
    try:
        with one_thread():
            judged = on_stories(asked) if asked.problem == "tinystories" else on_embedded(asked)
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    for wanted, found, held in judged:
        print(f"{'holds' if held else 'FAILS':<7}{wanted}: {found}")
    return 0 if all(held for _, _, held in judged) else 1


def on_embedded(asked: argparse.Namespace) -> list[tuple[str, str, bool]]:
    """Compares methods on the embedded problem, prints the table and returns the floors."""
    outcomes = [o for seed in asked.seeds for o in compare(seed, asked.methods, asked.steps, asked.save, tell)]
    print_rows(summary(outcomes))
    if asked.figure is not None:
        write_figure(asked.figure, outcomes, optimum_curve(toy_facts(asked.seeds[0])))
    return floors(outcomes)


def on_stories(asked: argparse.Namespace) -> list[tuple[str, str, bool]]:
    """Compares methods on stories, prints the table and returns the floors."""
    arena = stories.Arena(asked.model, asked.data, asked.store / "_comparison")
    outcomes = [o for seed in asked.seeds for o in arena.compare(seed, asked.methods, asked.steps, tell)]
    stories.print_outcomes(outcomes)
    if asked.figure is not None:
        write_figure(asked.figure, outcomes, arena.optimum_curve(), "best reweighting of base samples, mean")
    return stories.floors(outcomes)


def tell(method: str, seed: int) -> None:
    print(f"seed {seed}: {method}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
