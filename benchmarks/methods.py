"""How near every method comes to the exact optimum.

Usual size: the embedded problem, three seeds, one budget for all methods (`moalign compare`), every policy judged on
all replies to held-out prompts; half an hour a seed on one core. With --save FILE it may run in pieces, and finds what
`moalign compare --save FILE` has trained. With --quick a problem whose responses are single words, by the same
measures: there methods with an exact optimum of their own have to come within 5 % of it. The usual size also trains
the best method on a real language model, two seeds at ten minutes each, where `studies/tinystories.py` finds its model;
what is trained is kept beside FILE.

A row is a share of what the exact optimum gains, median over seeds with the smallest and the largest; for stored
policies, the number of a lattice's policies over the method's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Options, Row, parse, run
from benchmarks.one_token import small_methods, small_problem, small_share

LATTICE_SHARE = "share of the gain in w . R - beta KL, mean over weights / exact optimum"
AT_EQUAL_KL = "gain in w . R, mean over weights / exact optimum of equal KL"
WORST_GROUP = "gain of the worst group / exact maximin optimum"
FLOORS: dict[str, tuple[str, str, float | None]] = {  # method: (score, what it is, least)
    "MODPO": ("share", LATTICE_SHARE, 0.9),
    "MORLHF": ("share", LATTICE_SHARE, 0.9),
    "Soups": ("share", LATTICE_SHARE, None),
    "C-MORL": ("constrained", "share of the gain under each extension's bounds / exact constrained optimum", 0.9),
    "DPA": ("at_equal_kl", AT_EQUAL_KL, 0.8),
    "RiC": ("at_equal_kl", AT_EQUAL_KL, 0.8),
    "MaxMin": ("worst_group", WORST_GROUP, 0.8),
    "GroupDPO": ("worst_group", WORST_GROUP, None),  # knows votes, not rewards
}
LATTICE = 10  # policies of MODPO and MORLHF
WITHIN = 0.95  # of the optimum's gain, on the small problem
SMALL = {name: (*FLOORS[name][:2], WITHIN) for name in ("MODPO", "MORLHF", "C-MORL", "MaxMin")}
SMALL["GroupDPO"] = ("loss", "fall of the largest group loss / exact minimax of the group losses", WITHIN)


def embedded_rows(seeds: Sequence[int], save: Path | None = None) -> list[Row]:
    """Returns the rows of the embedded problem at the full budget."""
    from moalign.comparison.embedded import compare

    found = [
        outcome
        for seed in seeds
        for outcome in compare(
            seed, list(FLOORS), save=save, on_method=lambda name, seed: print(name, seed, file=sys.stderr)
        )
    ]
    rows = []
    for method, (score, peer, floor) in FLOORS.items():
        rows.append(_row(method, peer, [getattr(o, score) for o in found if o.method == method], floor))
    for method in ("C-MORL", "DPA", "RiC"):
        stored = [LATTICE / o.policies for o in found if o.method == method]
        rows.append(_row(f"{method}, policies stored", f"lattice of {LATTICE}", stored, 1.0))
    return rows


def small_rows(seeds: Sequence[int]) -> list[Row]:
    """Returns the rows of the small problem."""
    problems = [small_problem(seed) for seed in seeds]
    rows = []
    for method in small_methods():
        _, peer, floor = {**FLOORS, **SMALL}[method]
        shares = [small_share(method, small) for small in problems]
        rows.append(_row(f"{method}, one-token responses", peer, shares, floor))
    return rows


def story_rows(seeds: Sequence[int], store: Path) -> list[Row]:
    """Returns the rows of the best method on a real language model: its share, and the gates of its worst policy.

    None where the model and the stories are not to be found (`studies/tinystories.py` says where they are looked for).
    """
    from moalign import DefinitionError
    from studies import story_methods as stories

    try:
        arena = stories.Arena(store=store)
    except DefinitionError as error:
        print(error, file=sys.stderr)
        return []
    found = [outcome for seed in seeds for outcome in arena.compare(seed, ["Soups"])]
    what, of_samples = "Soups on stories", "gain of the best reweighting of base samples of equal KL"
    loss, unknown = ([max(o.worst[name], 1e-9) for o in found] for name in ("reference_loss", "unknown"))
    return [
        _row(what, of_samples, [o.at_equal_kl[0] for o in found], stories.SHARE),
        _row(f"{what}, loss", f"{stories.LOSS} nats", [stories.LOSS / v for v in loss], 1.0),
        _row(f"{what}, unknown words", f"{stories.UNKNOWN:.0%}", [stories.UNKNOWN / v for v in unknown], 1.0),
    ]


def _row(what: str, peer: str, values: Sequence[float], floor: float | None) -> Row:
    middle, low, high = (round(v, 3) for v in (statistics.median(values), min(values), max(values)))
    return Row(what, peer, middle, low, high, floor)


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    seeds = range(options.seed, options.seed + options.repeats(2, 3))
    if options.quick:
        return small_rows(seeds)
    store = Path("runs") if options.save is None else options.save.parent
    return small_rows(seeds) + embedded_rows(seeds, options.save) + story_rows(seeds[:2], store / "_comparison")


if __name__ == "__main__":
    options = parse("How near every method comes to the exact optimum.", saves=True)
    run(measure, options, ("torch", "transformers"))
