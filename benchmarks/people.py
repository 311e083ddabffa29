"""What moalign knows of people: accuracies on held-out answers against the simpler models they must beat.

Persona preferences (studies/personas_pal.py): PAL-A, PAL-B and the EM mixture against one reward for everybody. Votes
of Polis (studies/polis_groups.py): PAL against the means of statements. The rows of reward models on HelpSteer2 and of
best-of-n under label noise are those of their own scripts. Values are accuracies (or what the row says), the mean over
seeds with the worst and the best seed; a floor holds only if the worst seed reaches it. Real data come from the places
the studies name; without them their rows are left out, with a line on standard error.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.common import Options, Row, parse

SEEDS = (0, 1, 2)
BUDGET = 15.0  # CPU seconds of a fit, one thread
ONE_REWARD, MEAN = "one reward for everybody", "statement's mean vote"
GROUP_MEAN = "mean of the published group"
FLOORS = {"seen": 0.93, 5: 0.90, 10: None, 20: 0.93, 50: None, "ARI": 0.9}
POLIS_FLOORS = {MEAN: 0.764, GROUP_MEAN: 0.797}


def over_seeds(what: str, peer: str, values: Sequence[float], floor: float | None = None) -> Row:
    """Returns the row of one figure: mean, worst and best seed."""
    return Row(what, peer, *(round(v, 4) for v in (statistics.fmean(values), min(values), max(values))), floor=floor)


def persona_rows(seeds: Sequence[int], embed: Any = None, **sizes: Any) -> list[Row]:
    """Returns rows of each model: seen users, new users by answers given, recovered groups, and time."""
    import moalign as ma
    from studies import personas_pal as personas

    embed = embed or personas.minilm()
    models = {
        ONE_REWARD: ma.rewards.Mixture(groups=1),
        "EM mixture": ma.rewards.Mixture(groups=3),
        "PAL-A": ma.rewards.IdealPoint(prototypes=3),
        "PAL-B": ma.rewards.IdealPoint(prototypes=3, form="B"),
    }
    found: dict[str, list[Any]] = {name: [] for name in models}
    for seed in seeds:
        population = personas.build(seed=seed, **sizes)
        if seed == seeds[0]:
            embed([text for _, text in (*population.seen.items, *population.new_heldout.items)])  # cached for all
        for name, model in models.items():
            found[name].append(personas.study(population, model, embed))
            print(f"  seed {seed}  {name:<25} {found[name][-1]}", file=sys.stderr, flush=True)
    single = found.pop(ONE_REWARD)
    rows = [over_seeds("personas, one reward, seen users", "", [r.seen for r in single])]
    for name, results in found.items():
        what = f"personas, {name}"
        peer = f"{ONE_REWARD} ({statistics.fmean(r.seen for r in single):.3f})"
        rows.append(over_seeds(f"{what}, seen users", peer, [r.seen for r in results], FLOORS["seen"]))
        for n in results[0].new:
            label = f"{what}, new users after {n} answers"
            rows.append(over_seeds(label, peer, [r.new[n] for r in results], FLOORS[n]))
        rows.append(over_seeds(f"{what}, ARI of groups", "chance (0)", [r.rand_index for r in results], FLOORS["ARI"]))
        spare = [BUDGET / r.seconds for r in results]
        rows.append(over_seeds(f"{what}, fit within budget, times", f"{BUDGET:g} CPU seconds", spare, 1.0))
    return rows


def polis_rows(seeds: Sequence[int], source: Any = None, settings: Any = None) -> list[Row]:
    """Returns rows of held-out votes, of participants seen and new."""
    from moalign.data import polis
    from studies import polis_groups as votes

    source = source or polis(votes.folder(None))
    found = []
    for seed in seeds:
        found.append(votes.study(votes.build(source, seed=seed), settings))
        print(f"  seed {seed}  {found[-1]}", file=sys.stderr, flush=True)
    means = {MEAN: [r.statement_mean for r in found], GROUP_MEAN: [r.group_mean for r in found]}
    rows = [
        over_seeds("Polis, sign of held-out votes", f"{peer} ({statistics.fmean(values):.3f})",
                   [r.seen for r in found], max(POLIS_FLOORS[peer], *values))
        for peer, values in means.items()
    ]  # fmt: skip
    known = statistics.fmean(r.new_statement_mean for r in found)
    for n in found[0].new:
        what = f"Polis, new participants after {n} votes"
        floor = max(r.new_statement_mean for r in found)
        rows.append(over_seeds(what, f"{MEAN} ({known:.3f})", [r.new[n] for r in found], floor))
    return rows


def measure(options: Options) -> list[Row]:
    """Returns all rows; those that lack their data or package are named on standard error."""
    import torch

    torch.set_num_threads(options.threads)
    seeds = [options.seed + seed for seed in SEEDS]
    rows = part("personas", lambda: persona_rows(seeds))
    rows += part("Polis", lambda: polis_rows(seeds[:1] if options.quick else seeds))
    for name in ("helpsteer2", "best_of_n"):
        rows += part(name, lambda name=name: importlib.import_module(f"benchmarks.{name}").rows(options.quick))
    return rows


def part(name: str, rows: Callable[[], list[Row]]) -> list[Row]:
    """Returns the rows, or none where data or a package is absent."""
    from moalign.errors import DataError, DefinitionError

    print(f"{name}:", file=sys.stderr, flush=True)
    try:
        return rows()
    except (DataError, DefinitionError, ModuleNotFoundError) as error:
        print(f"  left out: {error}", file=sys.stderr, flush=True)
        return []


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as aligned text."""
    cells = [("what", "against", "mean (worst-best seed)", "floor", "")]
    for row in rows:
        verdict = "" if row.floor is None else "holds" if row.low >= row.floor else "BELOW"
        value = f"{row.value:.3f} ({row.low:.3f}-{row.high:.3f})"
        cells.append((row.what, row.peer, value, "" if row.floor is None else f"{row.floor:.3f}", verdict))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def main(options: Options) -> None:
    """Measures and prints; with --json nothing but the rows goes to standard output."""
    import contextlib

    with contextlib.redirect_stdout(sys.stderr):
        rows = measure(options)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.as_json else table(rows))


if __name__ == "__main__":
    main(parse("People: PAL, mixtures and reward models on real answers, held-out accuracy."))
