"""Which method when: all of them on the embedded problem, same budget, three seeds, judged by the exact optimum.

    python studies/method_comparison.py --seeds 0 1 2 --save methods.jsonl --figure methods.html

takes a quarter of an hour a seed on one core. With --save several may run side by side, a seed or a method each; a last
run then finds what they have done and prints the table of `moalign compare`, and whether each figure holds on every
seed. Where one does not, the columns say why: little of the gain at equal KL is optimisation or data, a good gain at
equal KL with a small share is the wrong KL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import moalign as ma
from moalign.cli.compare import print_rows, write_figure
from moalign.comparison import STEPS, compare
from moalign.outcomes import Outcome, summary

FLOORS = {
    "MODPO": ("share", 0.90),
    "MORLHF": ("share", 0.90),
    "C-MORL": ("constrained", 0.90),
    "DPA": ("at_equal_kl", 0.80),
    "RiC": ("at_equal_kl", 0.80),
    "MaxMin": ("worst_group", 0.80),
}


def floors(outcomes: Sequence[Outcome]) -> list[tuple[str, list[float], bool]]:
    """Returns (what is demanded of a method on every seed, what was found, whether it holds)."""
    judged = []
    for method, (score, floor) in FLOORS.items():
        found = [float(getattr(o, score)) for o in outcomes if o.method == method]
        if found:
            judged.append((f"{method} {score} >= {floor:.2f}", found, min(found) >= floor))
    return judged


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and prints it; returns the exit code, 1 where a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="all when left out")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each of ten policies: the budget")
    parser.add_argument("--save", type=Path, help="file of outcomes: what it has is not run again")
    parser.add_argument("--figure", type=Path, help="HTML file for the overlay")
    asked = parser.parse_args(arguments)
    try:
        outcomes = [o for seed in asked.seeds for o in compare(seed, asked.methods, asked.steps, asked.save)]
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    print_rows(summary(outcomes))
    if asked.figure is not None:
        write_figure(asked.figure, outcomes)
    judged = floors(outcomes)
    for wanted, found, held in judged:
        print(f"{'holds' if held else 'FAILS':<7}{wanted}: {', '.join(f'{v:.2f}' for v in found)}")
    return 0 if all(held for _, _, held in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
