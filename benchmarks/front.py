"""Fronts: moalign's checked functions against direct moocore calls, and points that arrive one by one.

The wrappers validate and state the direction; a row near one says that this costs nothing worth mentioning. All give
the same numbers, or nothing is timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import Options, Row, agree, interleaved, parse, ratio, run

DIRECT = "moocore, called directly"
RECOMPUTED = "moocore filter and hypervolume from scratch"
HISTORY = 100_000
SECONDS = 5.0
NEVER_SLOWER = 1 / 1.2
ARCHIVES = ((2, 1000, 40.0), (3, 1000, 1.7), (3, 5000, 1.7), (4, 500, 3.0))
NEWCOMERS = 100


def sphere(count: int, objectives: int, seed: int) -> Any:
    """Returns points of which none dominates another."""
    import numpy as np

    points = np.abs(np.random.default_rng(seed).standard_normal((count, objectives)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def direct_rows(objectives: int, count: int, rounds: int, seed: int, repeats: int) -> list[Row]:
    """Returns hypervolume and filter, on points that all survive and on points that mostly do not."""
    import moocore
    import numpy as np

    from moalign.front import hypervolume, non_dominated

    corner, rows = np.zeros(objectives), []
    sets = {"front": sphere(count, objectives, seed), "cube": np.random.default_rng(seed).random((count, objectives))}
    for kind, points in sets.items():
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "hypervolume": (
                lambda points=points: hypervolume(points, corner),
                lambda points=points: moocore.hypervolume(points, ref=corner, maximise=True),
            ),
            "filter": (
                lambda points=points: non_dominated(points),
                lambda points=points: moocore.is_nondominated(points, maximise=True),
            ),
        }
        for name, (ours, theirs) in pairs.items():
            agree(name, np.ravel(ours()).tolist(), np.ravel(theirs()).tolist(), 1e-9)
            what = f"{name}, {objectives} objectives, {count} points, {kind}"
            print(f"{what}:", file=sys.stderr)
            works = {"moalign": _repeated(ours, repeats), DIRECT: _repeated(theirs, repeats)}
            seconds = interleaved(works, rounds)
            rows.append(ratio(what, DIRECT, seconds[DIRECT], seconds["moalign"], NEVER_SLOWER))
    return rows


def archive_row(objectives: int, size: int, rounds: int, seed: int, floor: float) -> Row:
    """Returns the row of inserting into a full archive; every round inserts other points of the same front."""
    import moocore
    import numpy as np

    from moalign.front import Archive

    corner = np.zeros(objectives)
    points = sphere(size + NEWCOMERS * (rounds + 1), objectives, seed)
    archive, turn = Archive(corner), iter(range(rounds + 1))
    for row in points[:size]:
        archive.insert(row)
    agree("hypervolume", [archive.hypervolume], [moocore.hypervolume(points[:size], ref=corner, maximise=True)], 1e-9)

    def ours() -> None:
        start = size + NEWCOMERS * next(turn)
        for row in points[start : start + NEWCOMERS]:
            archive.insert(row)

    def theirs() -> None:  # a tenth of the work, at the archive's first size
        for more in range(NEWCOMERS // 10):
            some = points[: size + more]
            moocore.hypervolume(some[moocore.is_nondominated(some, maximise=True)], ref=corner, maximise=True)

    what = f"insert and hypervolume, {objectives} objectives, archive of {size}"
    print(f"{what} ({NEWCOMERS} points; recomputed: {NEWCOMERS // 10}):", file=sys.stderr)
    seconds = interleaved({"moalign": ours, RECOMPUTED: theirs}, rounds)
    return ratio(what, RECOMPUTED, seconds[RECOMPUTED], seconds["moalign"], floor, share=10)


def history_rows(rounds: int, seed: int, count: int = HISTORY) -> list[Row]:
    """Returns the time for a whole history as a share of five seconds; the last kind is the worst case."""
    import moocore
    import numpy as np

    from moalign.front import hypervolume_history

    draw = np.random.default_rng(seed)
    improving = sphere(count, 3, seed) * (np.linspace(0.5, 1, count) + 0.02 * draw.standard_normal(count))[:, None]
    rows = []
    kinds = {"improving": improving, "cube": draw.random((count, 3)), "all non-dominated": sphere(count, 3, seed)}
    for kind, points in kinds.items():
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            history = hypervolume_history(points, np.zeros(3))
            seconds.append(time.process_time() - start)
        agree("last", [history[-1]], [moocore.hypervolume(points, ref=np.zeros(3), maximise=True)], 1e-9)
        what = f"hypervolume history, 3 objectives, {count} points, {kind}"
        print(f"{what}: {min(seconds):.2f} s", file=sys.stderr)
        rows.append(ratio(what, f"{SECONDS:g} s", [SECONDS] * rounds, seconds, 1.0))
    return rows


def _repeated(work: Callable[[], Any], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            work()

    return repeated


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    rounds, rows = options.repeats(5, 15), []
    short = options.repeats(25, 75)  # rounds of some milliseconds, whose ratios scatter
    for objectives, count, repeats in ((2, 1000, 100), (3, 1000, 50), (4, 1000, 5), (2, 10_000, 10), (3, 10_000, 5)):
        rows += direct_rows(objectives, count, short, options.seed, repeats)
    rows += [archive_row(m, size, rounds, options.seed, floor) for m, size, floor in ARCHIVES]
    return rows + history_rows(options.repeats(2, 5), options.seed)


if __name__ == "__main__":
    run(measure, parse("Fronts: moalign against direct moocore calls."), ("moocore",))
