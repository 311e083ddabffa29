"""Progress on a terminal and in a pipe: what is shown, how often, and what never is."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from moalign.errors import RewardError
from moalign.front import Front, Point
from moalign.progress import TerminalProgress, short_weights

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NAMES = ("helpful", "[red]brief[/red]\x1b[31m")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Records:
    name: str = "study"
    folder: Path = Path("runs/study")
    rows: list[Any] = field(default_factory=list)

    def trials(self, *, prompt_values: bool = True) -> list[Any]:
        return self.rows


def study(policies: int = 3) -> Any:
    return SimpleNamespace(
        weights=np.full((policies, 2), 0.5),
        policies=policies,
        problem=SimpleNamespace(names=NAMES),
        method=SimpleNamespace(),
    )


def step(number: int, *losses: float) -> Any:
    return SimpleNamespace(step=number, loss=np.array(losses or (0.5,)))


def point(trial: int, *values: float) -> Point:
    return Point(
        trial=trial, weights=np.array([0.2, 0.8]), values=np.array(values), standard_errors=np.array([0.1, 0.1]),
        kl=1.25, kl_standard_error=0.0,
    )  # fmt: skip


def front(*points: Point) -> Front:
    return Front(study="study", objectives=NAMES, points=points, reference_point=np.zeros(2))


def progress(clock: Clock | None = None, *, terminal: bool = False, **options: Any) -> tuple[TerminalProgress, Any]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, legacy_windows=False)
    return TerminalProgress(console=console, clock=clock or Clock(), **options), stream


def run_through(shown: TerminalProgress, clock: Clock, seconds_per_step: float = 1.0, steps: int = 150) -> None:
    shown.on_start(study(), Records())
    for number in range(1, steps + 1):
        clock.now += seconds_per_step
        shown.on_step("modpo", step(number), steps)
    for trial in range(3):
        shown.on_policy(point(trial, 1.0 + trial, 3.0 - trial))
        shown.on_front(front(*(point(t, 1.0 + t, 3.0 - t) for t in range(trial + 1))))
    shown.on_end(front(*(point(t, 1.0 + t, 3.0 - t) for t in range(3))))
    shown.close()


def test_a_pipe_gets_plain_lines_at_most_one_per_minute_and_one_per_policy() -> None:
    """150 steps of one second: lines at the first step and every 60 s after it, at steps 1, 61 and 121."""
    clock = Clock()
    shown, stream = progress(clock)
    run_through(shown, clock)
    lines = stream.getvalue().splitlines()
    assert not CONTROL.search(stream.getvalue())
    training = [line for line in lines if line.startswith("training modpo")]
    assert [re.search(r"step (\d+)/150", line).group(1) for line in training] == ["1", "61", "121"]  # type: ignore[union-attr]
    assert [line.split("  ")[0] for line in lines if "#" in line] == ["1/3", "2/3", "3/3"]
    assert lines[0].startswith("study   SimpleNamespace   2 objectives   3 policies")
    assert lines[-1].startswith("done  3 policies, 3 non-dominated") and lines[-1].endswith("runs/study")


def test_time_left_counts_only_steps_of_this_process() -> None:
    """A run resumed at step 40 of 100 takes 2 s per step: at step 71 there are 29 left, so 58 s."""
    clock = Clock()
    shown, stream = progress(clock)
    shown.on_start(study(), Records())
    for number in range(41, 72):
        clock.now += 2.0
        shown.on_step("modpo", step(number), 100)
    last = stream.getvalue().splitlines()[-1]
    assert "step 71/100" in last and "left 00:00:58" in last


def test_losses_of_a_stack_are_shown_as_mean_and_range() -> None:
    shown, stream = progress()
    shown.on_start(study(), Records())
    shown.on_step("modpo", step(1, 0.2, 0.4, 0.9), 5)
    assert "loss 0.500 (0.200 to 0.900)" in stream.getvalue()


def test_names_are_text_and_never_markup_or_terminal_codes() -> None:
    clock = Clock()
    shown, stream = progress(clock)
    run_through(shown, clock)
    assert "[red]brief[/red]\\x1b[31m" in stream.getvalue()


def test_a_terminal_gets_a_live_block_and_is_given_back() -> None:
    clock = Clock()
    shown, stream = progress(clock, terminal=True)
    run_through(shown, clock)
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden once and shown again
    assert " trials  " in text and "3/3" in text and "HV 6" in text
    assert "\\x1b[31m" in text and "\x1b[31m" not in text


def test_the_terminal_is_given_back_after_an_interruption() -> None:
    shown, stream = progress(terminal=True)
    with pytest.raises(KeyboardInterrupt), shown:
        shown.on_start(study(), Records())
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25h") == 1
    before = stream.getvalue()
    shown.close()  # again: nothing happens
    assert stream.getvalue() == before


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    clock = Clock()
    shown, stream = progress(clock, terminal=True)
    run_through(shown, clock)
    assert not CONTROL.search(stream.getvalue())


def test_quiet_shows_nothing() -> None:
    clock = Clock()
    shown, stream = progress(clock, terminal=True, quiet=True)
    run_through(shown, clock)
    assert stream.getvalue() == ""


def test_a_failed_trial_is_said_once_with_its_reason_and_the_command_to_see_it() -> None:
    records = Records(rows=[SimpleNamespace(number=0, state="failed", error="an old failure")])
    shown, stream = progress()
    shown.on_start(study(), records)
    shown.on_failure(1, RewardError("reward 'brief' returned NaN"))
    shown.on_policy(point(2, 1.0, 1.0))
    shown.on_end(front(point(2, 1.0, 1.0)))
    assert "1 failed earlier and stay so until: moalign retry study --failed" in stream.getvalue()
    failures = [line for line in stream.getvalue().splitlines() if line.startswith("failed")]
    assert failures == ["failed #1  reward 'brief' returned NaN  ->  moalign show study 1"]


def test_finished_policies_of_an_earlier_run_are_counted() -> None:
    records = Records(rows=[SimpleNamespace(number=n, state="done", error=None) for n in range(2)])
    shown, stream = progress()
    shown.on_start(study(3), records)
    shown.on_policy(point(2, 1.0, 1.0))
    assert "2 of 3 policies are done already" in stream.getvalue()
    assert "3/3  #2" in stream.getvalue()


def test_the_front_line_shows_growth() -> None:
    """(1, 3) alone has hypervolume 3 over the origin; with (2, 2) it is 1 * 3 + 1 * 2 = 5, so it grows by 2."""
    clock = Clock()
    shown, stream = progress(clock, terminal=True)
    shown.on_start(study(), Records())
    shown.on_front(front(point(0, 1.0, 3.0)))
    shown.on_front(front(point(0, 1.0, 3.0), point(1, 2.0, 2.0)))
    shown.close()
    assert "2 points   HV 5 (+2)   best helpful 2" in stream.getvalue()


def test_weights_are_short() -> None:
    assert short_weights([0.2, 0.8, 0.0]) == "(.20 .80 .00)"
    assert short_weights([1.0, 0.0]) == "(1.00 .00)"
