"""How everything here is measured and shown: options, interleaved rounds, ratios, rows. Only the standard library.

Protocol: all competitors live in one process and take turns, in an order that rotates from round to round; ratios are
taken within a round, so a busy neighbour on the machine slows both sides of a ratio alike. Time is the CPU time of
the process, which with one thread is what the work costs, whoever else is running. A row is a ratio, larger is
better for moalign: median over the rounds, with smallest and largest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final


class Disagreement(Exception):
    """Two implementations that should compute the same numbers do not; their times must not be compared."""


@final
@dataclass(frozen=True)
class Row:
    """One comparison: how many times better moalign is than `peer` at `what`, and the least that is promised."""

    what: str
    peer: str
    value: float
    low: float
    high: float
    floor: float | None = None

    @property
    def verdict(self) -> str:
        if self.floor is None:
            return ""
        return "holds" if self.value >= self.floor else "BELOW"


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        quick: smaller work, under 90 seconds on one core.
        full: also the larger models.
        as_json: print rows only, as JSON.
        threads: of every numerical library.
        rounds: measured rounds; None leaves it to the script.
        seed: of models, data and adapters.
        save: file of what long trainings came to; what it has is not run again.
    """

    quick: bool = False
    full: bool = False
    as_json: bool = False
    threads: int = 1
    rounds: int | None = None
    seed: int = 0
    save: Path | None = None

    def repeats(self, quick: int, usual: int) -> int:
        """Returns the number of measured rounds."""
        return self.rounds or (quick if self.quick else usual)


def parse(description: str, arguments: Sequence[str] | None = None, saves: bool = False) -> Options:
    """Returns the options of a benchmark script, and fixes the number of threads before any library starts its own.

    Args:
        description: of the script.
        arguments: of the command line; the process's own when None.
        saves: whether the script has trainings that are worth keeping.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less work, under 90 seconds on one core")
    parser.add_argument("--full", action="store_true", help="also the larger models (minutes)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print nothing but a JSON array of rows")
    parser.add_argument("--threads", type=int, default=1, help="threads of the numerical libraries (default 1)")
    parser.add_argument("--rounds", type=int, help="measured rounds")
    parser.add_argument("--seed", type=int, default=0, help="of models, data and adapters (default 0)")
    if saves:
        parser.add_argument(
            "--save", type=Path, metavar="FILE", help="keep outcomes there; what it has is not run again"
        )
    options = Options(**vars(parser.parse_args(arguments)))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["TQDM_DISABLE"] = "1"
    return options


def run(measure: Callable[[Options], list[Row]], options: Options, packages: Sequence[str] = ()) -> None:
    """Measures and prints the rows; whatever the libraries print on the way goes to standard error."""
    print(header(options, packages), file=sys.stderr if options.as_json else sys.stdout, flush=True)
    started = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        rows = measure(options)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    if options.as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(table(rows))
    print(f"{wall:.0f} s wall, {cpu:.0f} s CPU in this process; load {_load()}", file=sys.stderr)


def header(options: Options, packages: Sequence[str]) -> str:
    """Returns one paragraph on what is measured where."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("moalign", "numpy", *packages))
    size = "quick" if options.quick else "full" if options.full else "usual"
    rounds = options.rounds or "the script's own number of"
    return (
        f"{size} size, {options.threads} thread(s), seed {options.seed}, {rounds} rounds after one warm-up; CPU time, "
        f"ratios within a round, median (min-max)\n{versions}; Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} cores, load {_load()}"
    )


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as aligned text, with floors and whether they hold."""
    cells = [("what", "against", "times better", "floor", "")]
    for row in rows:
        value = f"{row.value:.2f} ({row.low:.2f}-{row.high:.2f})"
        cells.append((row.what, row.peer, value, "" if row.floor is None else f"{row.floor:g}", row.verdict))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Returns the CPU time that `work` takes in this process, all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[Callable[[], Any]], float] = cpu_seconds,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Returns seconds per round of each work; all take turns, and another one starts each round."""
    names = list(works)
    for _ in range(warm_up):
        for name in names:
            works[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(clock(works[name]))
    for name, values in seconds.items():
        print(f"  {statistics.median(values):9.4f} s  {name}", file=sys.stderr, flush=True)
    return seconds


def ratio(
    what: str, peer: str, theirs: Sequence[float], ours: Sequence[float], floor: float | None, share: float = 1.0
) -> Row:
    """Returns the row for peer / moalign, round by round.

    Args:
        what, peer: the row's names.
        theirs, ours: seconds (or bytes) per round.
        floor: the least that is promised, or None.
        share: how many times the peer's work one round of moalign does (policies trained at once, say).
    """
    middle, low, high = (round(v, 3) for v in spread([share * a / b for a, b in zip(theirs, ours, strict=True)]))
    return Row(what, peer, middle, low, high, floor)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns median, smallest and largest."""
    return statistics.median(values), min(values), max(values)


def agree(what: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> None:
    """Refuses to go on when two sequences differ anywhere by more than `tolerance`, or in length.

    Raises:
        Disagreement: with both sequences.
    """
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=False)]
    if len(ours) != len(theirs) or not differences or not all(d <= tolerance for d in differences):
        shown = [[round(float(v), 6) for v in values] for values in (ours, theirs)]
        raise Disagreement(f"{what}: moalign {shown[0]}, peer {shown[1]}, tolerance {tolerance:g}. Nothing was timed.")


class _Closed(BaseException):
    """Unwinds a paused work that nobody will continue."""


@final
class Stretches:
    """Runs `work(pause)` piece by piece: each call goes on to the next `pause()`.

    A training loop that only knows how to run to its end can so be interleaved with others step by step. The work
    lives in a thread of its own, but never runs while the caller does.
    """

    def __init__(self, work: Callable[[Callable[[], None]], object]) -> None:
        self._work = work
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._over = self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self) -> None:
        """Runs to the next pause, or to the end.

        Raises:
            RuntimeError: the work is over.
            BaseException: whatever the work raised.
        """
        if self._over:
            raise RuntimeError("The work is over; give it more steps.")
        self._turn.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the work where it pauses and frees what it holds."""
        if not self._over:
            self._closing = True
            self._turn.release()
        self._thread.join()

    def _pause(self) -> None:
        self._back.release()
        self._turn.acquire()
        if self._closing:
            raise _Closed

    def _run(self) -> None:
        self._turn.acquire()
        try:
            if not self._closing:
                self._work(self._pause)
        except _Closed:
            pass
        except BaseException as error:  # handed to the caller, in whose thread it belongs
            self._error = error
        finally:
            self._over = True
            self._back.release()


@contextlib.contextmanager
def all_closed(works: Mapping[str, Stretches]) -> Iterator[Mapping[str, Stretches]]:
    """Closes the works at the end, whatever happens."""
    try:
        yield works
    finally:
        for work in works.values():
            work.close()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
