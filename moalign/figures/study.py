"""What a study's records show at one moment, and its report: read from the store, drawn by the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import plotly.graph_objects as go

from moalign.figures.course import HistoryBand, history_band
from moalign.figures.people import People, utility_figure
from moalign.figures.quality import Calibration, calibration_figure
from moalign.figures.view import FrontView, OracleCurve, front_view
from moalign.front import Front, front_of_records
from moalign.store import EventRecord, Holder, StudyStore, TrialRecord, load_generations

Progress: TypeAlias = Literal["empty", "running", "finished", "failed", "stopped", "interrupted"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class StudyView:
    """A study as its records stood when they were read.

    Attributes:
        name, folder: of the study.
        objectives: names in axis order.
        progress: where it stands; "failed" if it ended without any policy.
        driver: who is running it.
        trials: all of them, by number.
        events: all of them, in order.
        front, view: of the finished policies; None before the reference policy is judged.
        limits: bounds of the study's evaluation by name.
        info, definition: what ran.
    """

    name: str
    folder: Path
    objectives: tuple[str, ...]
    progress: Progress
    driver: Holder | None
    trials: tuple[TrialRecord, ...]
    events: tuple[EventRecord, ...]
    front: Front | None
    view: FrontView | None
    limits: Mapping[str, float]
    info: Mapping[str, Any]
    definition: Mapping[str, Any]

    @cached_property
    def history(self) -> HistoryBand | None:
        """The hypervolume as policies came in, with its band; None before the first one is evaluated."""
        return history_band(self.front) if self.front is not None and len(self.front) else None

    @property
    def updated(self) -> float | None:
        """When something last happened, seconds since 1970."""
        times = [t for trial in self.trials for t in (trial.started, trial.finished) if t is not None]
        return max([*times, *(event.time for event in self.events)], default=None)

    def count(self, state: str) -> int:
        """Returns how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)


def study_view(records: StudyStore) -> StudyView:
    """Returns what the records of a study show now.

    Raises:
        StoreError: the study was deleted or cannot be read.
    """
    events = tuple(records.events())
    trials = tuple(records.trials())
    finished = [trial for trial in trials if trial.state == "done"]
    driver, reference = records.driver(), records.reference()
    corner = [e.data["values"] for e in events if e.kind == "reference_point"]
    limits = _limits(records.description)
    front = None
    if reference is not None and corner:
        names = records.info["objectives"]
        front = front_of_records(records.name, names, finished, reference=reference, reference_point=corner[-1])
    return StudyView(
        name=records.name,
        folder=records.folder,
        objectives=tuple(records.info.get("objectives", ())),
        progress=_progress(trials, events, driver),
        driver=driver,
        trials=trials,
        events=events,
        front=front,
        view=None if front is None else front_view(front, oracle_curve(events), limits=limits),
        limits=limits,
        info=records.info,
        definition=records.description,
    )


def oracle_curve(events: Iterable[EventRecord]) -> OracleCurve | None:
    """Returns the exact optimum that was recorded with a study, if any."""
    stored = [event.data for event in events if event.kind == "oracle"]
    if not stored:
        return None
    arrays = {name: np.array(stored[-1][name], dtype=np.float64) for name in ("weights", "values", "kl")}
    return OracleCurve(**arrays, label=str(stored[-1]["label"]))


def write_study_report(records: StudyStore, front: Front, path: Path) -> Path:
    """Writes the study's report as one HTML file; an oracle front recorded with the study is drawn, too."""
    from moalign.figures.report import write_report

    notes = [str(e.data["text"]) for e in records.events("note")]
    notes += [f"Stopped early: {e.data['reason']}" for e in records.events("stopped")]
    failed = [t for t in records.trials(prompt_values=False) if t.state == "failed"]
    notes += [f"Trial {t.number} failed: {t.error}" for t in failed]
    return write_report(
        path,
        front,
        title=records.name,
        config={"study": records.name, **records.info, "definition": records.description},
        generations={p.trial: load_generations(records, p.trial) for p in front.points},
        oracle=oracle_curve(records.events("oracle")),
        summary=None,
        notes=notes,
        more=_beside(records.folder),
    )


def _beside(folder: Path) -> list[tuple[str, str, go.Figure]]:
    """Returns the figures of what lies beside the records: the calibration of rewards and the utilities of groups."""
    found = []
    if (calibration := Calibration.load(folder)) is not None:
        caption = "Held-out pairs: on the diagonal a reward means what it says; below it is overconfident."
        found.append(("Calibration of the rewards", caption, calibration_figure(calibration)))
    if (people := People.load(folder)) is not None and people.utilities:
        caption = "Mean over held-out prompts with 95% intervals; rings mark the group that a policy serves worst."
        found.append(("What groups gain from each policy", caption, utility_figure(people)))
    return found


def _progress(trials: tuple[TrialRecord, ...], events: tuple[EventRecord, ...], driver: Holder | None) -> Progress:
    if driver is not None:
        return "running"
    if not trials:
        return "empty"
    states = {trial.state for trial in trials}
    if states == {"failed"}:
        return "failed"
    if states <= {"done", "failed"}:
        return "finished"
    return "stopped" if any(event.kind == "stopped" for event in events) else "interrupted"


def _limits(definition: Mapping[str, Any]) -> Mapping[str, float]:
    evaluation = definition.get("evaluation")
    limits = evaluation.get("limits") if isinstance(evaluation, Mapping) else None
    if not isinstance(limits, Mapping):
        return {}
    return {str(name): float(bound) for name, bound in limits.items() if isinstance(bound, (int, float))}
