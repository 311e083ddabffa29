"""Progress of a run on a terminal: a live block where there is one, plain lines otherwise. A callback of `run`.

    with TerminalProgress() as progress:
        run(study, store="runs", callbacks=[progress])

Everything goes to stderr, so that what a program prints as its result can be piped. Names of studies and objectives are
shown as text: control characters written out, never as markup.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from moalign.figures.text import measured, visible
from moalign.front import hypervolume

PLAIN_SECONDS = 60.0  # between two lines of a training where there is no terminal
LIVE_SECONDS = 0.2  # between two readings of a loss, which may wait for an accelerator
BAR = 24  # characters


@final
class TerminalProgress:
    """Shows what a run does and how long it will take.

    Args:
        quiet: show nothing at all.
        device: shown in the first line.
        console: where to print; stderr when None. Colours follow the terminal and NO_COLOR.
        clock: seconds, for tests.
        policies: how many are going to be trained, where the study does not say.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        device: str | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        policies: int | None = None,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._quiet, self._device, self._clock, self._policies = quiet, device, clock, policies
        self._live: Live | None = None
        self._started = clock()
        self._records: Any = None
        self._objectives: tuple[str, ...] = ()
        self._done = self._total = 0
        self._failed: set[int] = set()
        self._volume: float | None = None
        self._front_line = self._step_line = ""
        self._task = _Task("", 0, self._started)
        self._seen = self._started  # when something was last reported
        self._said = float("-inf")

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ callbacks

    def on_model_step(self, step: int, steps: int, loss: float) -> None:
        """Shows the training of the embedded language model, which comes before the study."""
        self._on_step("training the tiny language model", step, steps, lambda: f"loss {loss:.3f}")

    def on_start(self, study: Any, records: Any) -> None:
        """Shows what is going to run, and how much of it is done already."""
        self._records, self._objectives = records, study.problem.names
        trials = records.trials(prompt_values=False)
        self._total = self._policies or study.policies
        self._done = sum(t.state == "done" for t in trials)
        self._failed = {t.number for t in trials if t.state == "failed"}
        facts = [records.name, type(study.method).__name__, f"{len(self._objectives)} objectives"]
        facts += [f"{self._total} policies", *([self._device] if self._device else [])]
        self._say("   ".join(facts))
        if self._done:
            self._say(f"{self._done} of {self._total} policies are done already")
        if self._failed:
            self._say(f"{len(self._failed)} failed earlier and stay so until: moalign retry {records.name} --failed")
        self._begin("preparing", 0)

    def on_stage(self, text: str) -> None:
        """Shows what is being done where there are no steps to count."""
        self._step_line = text
        if self._live is None:
            self._say(text)

    def on_failure(self, trial: int, error: Exception) -> None:
        """Shows that a policy could not be judged, and where to look."""
        self._failed.add(trial)
        self._say(f"failed #{trial}  {error}  ->  moalign show {self._records.name} {trial}")

    def on_step(self, training: str, record: Any, steps: int) -> None:
        """Shows the step, the loss of the stack, and the time left of this training."""
        self._on_step(f"training {training}", record.step, steps, lambda: _losses(record.loss.tolist()))
        if record.step == steps:
            self._begin("evaluation", 0)

    def on_policy(self, point: Any) -> None:
        """Shows a policy that was just judged."""
        if self._task.name != "evaluation":  # the training was finished by an earlier run
            self._begin("evaluation", 0)
        self._task.steps = self._task.steps or self._total - self._done - len(self._failed)
        self._done += 1
        self._task.step += 1
        values = [
            f"{name} {_measured(value, error)}"
            for name, value, error in zip(self._objectives, point.values, point.standard_errors, strict=True)
        ]
        line = f"#{point.trial}  w={short_weights(point.weights)}  {'  '.join(values)}  KL {point.kl:.2f}"
        self._step_line, self._seen = line, self._clock()
        if self._live is None:
            self._say(f"{self._done}/{self._total}  {line}")

    def on_front(self, front: Any) -> None:
        """Shows the hypervolume so far, its growth, and the best value of each objective."""
        feasible = np.array([p.feasible for p in front.points])
        volume = hypervolume(front.F[feasible], front.reference_point, unattained="ignore")
        growth = "" if self._volume is None else f" ({volume - self._volume:+.3g})"
        self._volume = volume
        best = "   ".join(f"best {n} {v:.3g}" for n, v in zip(front.objectives, front.F.max(axis=0), strict=True))
        self._front_line = f"{int(front.non_dominated().sum())} points   HV {volume:.4g}{growth}   {best}"

    def on_end(self, front: Any) -> None:
        """Shows the outcome and where it lies."""
        self._stop_live()
        failed = f", {len(self._failed)} failed" if self._failed else ""
        members = int(front.non_dominated().sum())
        self._say(
            f"done  {len(front)} policies, {members} non-dominated{failed}, HV {front.hypervolume()}, "
            f"{_duration(self._clock() - self._started)}  ->  {self._records.folder}"
        )

    def close(self) -> None:
        """Gives the terminal back; nothing happens when it was never taken."""
        self._stop_live()

    # -------------------------------------------------------------------------------------------------------- drawing

    def _begin(self, name: str, steps: int) -> None:
        self._task = _Task(name, steps, self._seen)
        self._step_line, self._said = "", float("-inf")
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        if self._live is None and terminal and not self._quiet:
            self._live = Live(
                get_renderable=self._block,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what a reward prints must not leave a pipe for the terminal
            )
            self._live.start()
            atexit.register(self._stop_live)  # it hides the cursor

    def _on_step(self, name: str, step: int, steps: int, facts: Callable[[], str]) -> None:
        now = self._seen = self._clock()
        if self._task.name != name:
            self._begin(name, steps)
            self._task.first = step
        self._task.step = step
        if self._quiet or now - self._said < (PLAIN_SECONDS if self._live is None else LIVE_SECONDS):
            return
        self._said = now
        self._step_line = f"step {step}/{steps}  {facts()}"
        if self._live is None:
            self._say(f"{name}  {self._step_line}  {self._task.times(now)}")

    def _block(self) -> Group:
        lines = []
        if self._total:
            full = BAR * (self._done + len(self._failed)) // self._total
            failed = f"   failed {len(self._failed)}" if self._failed else ""
            lines.append(f" trials  {'=' * full}{'-' * (BAR - full)}  {self._done}/{self._total}{failed}")
        if self._front_line:
            lines.append(f" front   {self._front_line}")
        lines.append(f" {self._task.name}  {self._task.times(self._clock())}   {self._step_line}")
        return Group(*(Text(visible(line), no_wrap=True, overflow="ellipsis") for line in lines))

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(Text(visible(line)), soft_wrap=True)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            atexit.unregister(self._stop_live)


@final
class _Task:
    """Something with steps that takes time; the rate is that of the steps seen, not of those from an earlier run."""

    def __init__(self, name: str, steps: int, started: float) -> None:
        self.name, self.steps, self.started = name, steps, started
        self.first = self.step = 0

    def times(self, now: float) -> str:
        elapsed, seen = now - self.started, self.step - self.first
        if not seen or not self.steps:
            return _duration(elapsed)
        return f"{_duration(elapsed)} left {_duration(elapsed / seen * (self.steps - self.step))}"


def short_weights(weights: Any) -> str:
    """Returns preference weights as "(.20 .60 .20)"."""
    return "(" + " ".join(f"{w:.2f}".removeprefix("0") for w in weights) + ")"


def _losses(losses: list[float]) -> str:
    mean = sum(losses) / len(losses)
    return f"loss {mean:.3f}" + (f" ({min(losses):.3f} to {max(losses):.3f})" if len(losses) > 1 else "")


def _measured(value: float, error: float) -> str:
    return measured(value, error).replace("−", "-").replace(" ± ", "±")


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
