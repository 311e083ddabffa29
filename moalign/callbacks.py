"""Objects that watch a run. Any object with some of these methods is a callback:

    on_start(study, records)            before anything is computed
    on_step(training, record, steps)    after every optimiser step of a stack
    on_stage(text)                      before something that may take a while and has no steps
    on_policy(point)                    after a policy was evaluated
    on_failure(trial, error)            when a policy could not be evaluated; the study goes on
    on_front(front)                     after each group of policies, with all points so far
    on_end(front)                       at the end

A callback that fails is reported once and then left out; only `StopStudy` ends a run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, final

from moalign.errors import DefinitionError, MoalignError, MoalignWarning, StopStudy

EVENTS = ("on_start", "on_stage", "on_step", "on_policy", "on_failure", "on_front", "on_end")


@final
class Notifier:
    """Calls callbacks; a failing one is reported once and never stops the study."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = list(callbacks)
        strangers = [c for c in self.callbacks if not any(hasattr(c, event) for event in EVENTS)]
        if strangers:
            raise DefinitionError(f"Callback {strangers[0]!r} has none of the methods {', '.join(EVENTS)}.")

    def __call__(self, event: str, *args: Any) -> None:
        for callback in list(self.callbacks):
            method = getattr(callback, event, None)
            if method is None:
                continue
            try:
                method(*args)
            except StopStudy:
                raise
            except Exception as error:
                self.callbacks.remove(callback)
                warnings.warn(
                    f"Callback {type(callback).__name__}.{event} failed and is left out from here on: {error!r}",
                    MoalignWarning,
                    stacklevel=2,
                )


@final
class EarlyStop:
    """Ends the study when an indicator of the front has not improved for `patience` evaluated policies.

    Args:
        indicator: name of a `Front` method, such as "hypervolume".
        patience: evaluated policies without improvement.
        smallest_gain: what counts as improvement.
    """

    def __init__(self, indicator: str = "hypervolume", *, patience: int = 5, smallest_gain: float = 0.0) -> None:
        if patience < 1:
            raise DefinitionError(f"EarlyStop patience must be >= 1, got {patience}.")
        self.indicator, self.patience, self.smallest_gain = indicator, patience, smallest_gain
        self.best, self.since, self.seen = float("-inf"), 0, 0

    def on_front(self, front: Any) -> None:
        value = getattr(front, self.indicator)()
        value = float(getattr(value, "value", value))
        new, self.seen = len(front) - self.seen, len(front)
        if value > self.best + self.smallest_gain:
            self.best, self.since = value, 0
            return
        self.since += new
        if self.since >= self.patience:
            raise StopStudy(f"{self.indicator} has not improved for {self.since} policies (best {self.best:.4g}).")


@final
class TensorBoard:
    """Writes losses per step and rewards per policy for TensorBoard.

    Args:
        folder: log folder.

    Raises:
        MoalignError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MoalignError("TensorBoard needs its package: pip install 'moalign[trackers]'") from error
        self.writer = SummaryWriter(folder)

    def on_step(self, training: str, record: Any, steps: int) -> None:
        losses = {str(i): v for i, v in enumerate(record.loss.tolist())}
        self.writer.add_scalars(f"{training}/loss", losses, record.step)
        self.writer.add_scalar(f"{training}/learning_rate", float(record.learning_rate.max()), record.step)

    def on_policy(self, point: Any) -> None:
        for index, value in enumerate(point.values.tolist()):
            self.writer.add_scalar(f"reward/{index}", value, point.trial)
        self.writer.add_scalar("kl_nats", point.kl, point.trial)

    def on_end(self, front: Any) -> None:
        self.writer.add_scalar("hypervolume", front.hypervolume().value, len(front))
        self.writer.close()
