"""Searches for preference weights on the embedded problem: how many policies each needs, and what each reaches.

Training is a look-up in a pool of policies that were trained once as one stack and are judged exactly (`pool.py`); a
search sees values with the noise of an evaluation, and the oracle-guided one predicts from samples of the base model on
the training prompts. With --quick the pool holds the exact optima, as perfect training would make it.

"Policies needed" is the lattice's number of policies over the search's, at the hypervolume of the lattice's policies.
What no search can beat is shown beside it: the best subset of the pool, found greedily and by exchanges with all values
known. Where even that needs more than 60 % of the lattice's policies, the row carries no floor.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from benchmarks.common import Options, Row, parse, run
from benchmarks.pool import Pool, exact_pool, trained_pool

LATTICES = {10: 3, 15: 4, 28: 6}  # policies: steps, lattices that are part of the pool
BATCH = 3
NEEDED = 1 / 0.6  # the promise: at most 60 % of the lattice's policies
OF_POSSIBLE = 0.85  # of the best subset's saving


def volumes(search: Any, pool: Pool, corner: Any, seed: int, most: int) -> list[float]:
    """Returns the exact hypervolume after each policy that a search trains, up to `most` policies."""
    import numpy as np

    from moalign.demo import BETA
    from moalign.search import History

    rng = np.random.default_rng([seed, 6])
    predict = pool.sampled_oracle(seed) if search.needs_oracle else None
    rows: list[int] = []
    asked, measured = np.zeros((0, 3)), np.zeros((0, 3))
    while len(rows) < most:
        history = History(
            weights=asked,
            values=measured,
            errors=np.tile(pool.errors, (len(rows), 1)),
            kl=pool.kl[rows],
            reference_point=corner,
            kl_strength=BETA,
            predict=predict,
            pool=pool.weights,
            seed=seed,
        )
        proposed = search.propose(history, min(search.batch, most - len(rows)))
        if not len(proposed):
            break
        new = pool.nearest(proposed)
        rows += new
        asked = np.concatenate([asked, proposed])
        measured = np.concatenate([measured, pool.measured(new, rng)])
    return [volume(pool, rows[: n + 1], corner) for n in range(len(rows))]


def volume(pool: Pool, rows: Any, corner: Any) -> float:
    """Returns the exact hypervolume of some policies."""
    from moalign.front import hypervolume

    return hypervolume(pool.values[rows], corner, unattained="ignore")


def best_subset(pool: Pool, corner: Any, wanted: float, most: int) -> int:
    """Returns the fewest policies of the pool, all values known, that reach a hypervolume."""
    import numpy as np

    from moalign.search.guided import plan

    for count in range(1, most + 1):
        if volume(pool, plan(pool.values, np.zeros((0, 3)), corner, count), corner) >= wanted:
            return count
    return most


def lattice_rows(pool: Pool, steps: int) -> list[int]:
    from moalign.weights import grid

    return pool.nearest(grid(3, steps))


def needed(found: list[float], wanted: float) -> int:
    """Returns after how many policies the volume was reached; one more than were trained if never."""
    return next((n for n, v in enumerate(found, 1) if v >= wanted - 1e-12), len(found) + 1)


def needed_rows(pools: list[Pool], seeds: range, kind: str) -> list[Row]:
    """Returns how many policies the oracle-guided search needs, and how many the best subset would."""
    from moalign.search import OracleGuided

    rows = []
    for name in pools[0].corners:
        for size, steps in LATTICES.items():
            savings, possible = [], []
            for pool in pools:
                corner = pool.corners[name]
                wanted = volume(pool, lattice_rows(pool, steps), corner)
                best = best_subset(pool, corner, wanted, size)
                for seed in seeds:
                    search = OracleGuided(trials=size, batch=BATCH)
                    savings.append(size / needed(volumes(search, pool, corner, seed, size), wanted))
                    possible.append(size / best)
            attainable = statistics.median(possible) >= NEEDED
            what = f"policies needed, {kind}, {name}: lattice of {size}"
            rows.append(_row(what, "lattice / oracle-guided", savings, NEEDED if attainable else None))
            rows.append(_row(what, "lattice / best subset, all values known", possible, None))
            shares = [a / b for a, b in zip(savings, possible, strict=True)]
            rows.append(_row(what, "oracle-guided's saving / best subset's", shares, OF_POSSIBLE))
    return rows


def equal_rows(pools: list[Pool], seeds: range, kind: str, size: int = 15) -> list[Row]:
    """Returns the hypervolume of each search over the lattice's, at an equal number of trained policies."""
    from moalign import search

    rows = []
    makers = (search.OracleGuided, search.HypervolumeGuided, search.LargestGap, search.OptimisticSupport,
              search.Dirichlet)  # fmt: skip
    for name in pools[0].corners:
        for make in makers:
            ratios = []
            for pool in pools:
                corner = pool.corners[name]
                against = volume(pool, lattice_rows(pool, LATTICES[size]), corner)
                ratios += [volumes(make(trials=size, batch=BATCH), pool, corner, s, size)[-1] / against for s in seeds]
            guided = make in (search.OracleGuided, search.HypervolumeGuided)
            what = f"hypervolume of {size} policies, {kind}, {name}"
            rows.append(_row(what, f"{make.__name__} / lattice", ratios, 1.0 if guided else None))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def real_row(seed: int) -> Row:
    """Returns the hypervolume of six policies trained in two rounds over that of the lattice of ten, for real."""
    from dataclasses import replace

    from moalign.demo import compare_with_oracle, toy_facts, toy_study
    from moalign.driver import run as run_study
    from moalign.search import OracleGuided

    facts = toy_facts(seed)
    lattice = toy_study(seed, steps=100, samples=8)
    lattice = replace(lattice, evaluation=replace(lattice.evaluation, reference_point="auto"))
    guided = replace(lattice, name="guided", weights=None, search=OracleGuided(trials=6, batch=3))
    found = []
    corner = None
    for study in (guided, lattice):
        front = run_study(study)
        corner = front.reference_point
        found.append(compare_with_oracle(study, front, facts).hypervolume)
    assert corner is not None
    what = "hypervolume, studies trained for real (100 steps), default reference point"
    return _row(what, "oracle-guided, 6 policies in two rounds / lattice of 10", [found[0] / found[1]], 1.0)


def _row(what: str, peer: str, values: list[float], floor: float | None) -> Row:
    middle, low, high = (round(v, 3) for v in (statistics.median(values), min(values), max(values)))
    return Row(what, peer, middle, low, high, floor)


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    first = options.seed
    if options.quick:
        pools, kind = [exact_pool(first)], "exact optima"
        return needed_rows(pools, range(3), kind) + equal_rows(pools, range(1), kind)
    pools, kind = [trained_pool(first + i) for i in range(3)], "trained policies"
    return needed_rows(pools, range(3), kind) + equal_rows(pools, range(2), kind) + [real_row(first)]


if __name__ == "__main__":
    run(measure, parse("Searches for preference weights on the embedded problem."), ("torch", "botorch"))
