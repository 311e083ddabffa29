"""Start-up: what a user waits for before anything happens. CPU time of fresh processes, in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.common import Options, Row, interleaved, parse, ratio, run

TARGET = 0.2  # seconds for `moalign --help`
PEER = "from trl import DPOTrainer"


def commands() -> dict[str, list[str]]:
    """Returns the command lines of moalign by what they show."""
    beside = shutil.which("moalign", path=str(Path(sys.executable).parent)) or shutil.which("moalign")
    call = [beside] if beside else [sys.executable, "-c", "from moalign.cli import main; main()"]
    return {"moalign --help": [*call, "--help"], "import moalign": [sys.executable, "-c", "import moalign"]}


def child_seconds(command: Sequence[str]) -> float:
    """Returns the CPU time of a fresh process, system time included.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None  # a pipe was asked for
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.decode(errors='replace')[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def startup_rows(peer: Sequence[str], rounds: int) -> list[Row]:
    """Returns moalign's commands against the peer's import, and against the target."""
    lines = {**commands(), PEER: list(peer)}
    works = {name: partial(child_seconds, line) for name, line in lines.items()}
    seconds = interleaved(works, rounds, clock=lambda work: float(work()))
    rows = [ratio(name, PEER, seconds[PEER], seconds[name], 25.0) for name in commands()]
    target = [TARGET] * rounds
    return [*rows, ratio("moalign --help", f"target of {TARGET} s", target, seconds["moalign --help"], 1.0)]


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    return startup_rows([sys.executable, "-c", PEER], options.repeats(3, 9))


if __name__ == "__main__":
    run(measure, parse("Start-up: moalign's commands against importing TRL's trainer."), ("trl", "transformers"))
