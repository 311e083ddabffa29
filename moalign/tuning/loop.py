"""The batches of a tuning: what was asked is written down before it is trained, and never asked or trained twice."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import MoalignError, ModelError, StopStudy, StoreError
from moalign.front import hypervolume
from moalign.session import Session
from moalign.store import StudyStore, TrialRecord
from moalign.study import Study
from moalign.tuning import record
from moalign.tuning.halving import Halving
from moalign.tuning.insight import HYPERVOLUME
from moalign.tuning.settings import WEIGHTS, method_with
from moalign.tuning.trial import Trial
from moalign.tuning.tuner import Tuner

Target: TypeAlias = Literal["objectives", "hypervolume"]
ASKED, POLICIES = "asked", "policies"  # kinds of events
KL = "kl"


@final
class Loop:
    """The batches of one tuning: every step looks first whether the records hold it already."""

    def __init__(self, session: Session, tuner: Tuner, target: Target, halving: Halving | None) -> None:
        self.session, self.tuner, self.target, self.halving = session, tuner, target, halving
        self.records: StudyStore = session.records
        self.offset = len(tuner.trials)  # trials known from earlier studies
        self.numbers: dict[tuple[int, float], list[int]] = {}
        self.weights: list[list[float]] = []
        for event in self.records.events(POLICIES):
            self._enter(event.data)

    def go(self, trials: int, batch: int, limit: float | None) -> None:
        """Runs batches until there are `trials` trials or the time is over."""
        started = time.monotonic()
        recorded: dict[int, list[Mapping[str, Any]]] = {}
        for event in self.records.events(ASKED):
            recorded.setdefault(event.data["batch"], []).append(event.data)
        done = 0
        for place in range(trials):
            known = recorded.get(place, [])
            if not known and (done >= trials or (limit is not None and time.monotonic() - started > limit)):
                break
            asked = self._asked(place, known, min(batch, trials - done))
            self._run(asked)
            done += len(asked)
            record.write(self.records, self.tuner, self.numbers)

    def _asked(self, place: int, known: Sequence[Mapping[str, Any]], count: int) -> list[Trial]:
        """Returns the trials of a batch: as recorded, completed by new ones only if none was trained yet."""
        asked = [self._adopted(data) for data in known]
        while len(asked) < count and not any((t.number, f) in self.numbers for t in asked for f in self._fidelities()):
            trial = self.tuner.ask()
            data = {"batch": place, "trial": trial.number, "settings": trial.settings}
            data |= {"proposed_by": trial.proposed_by, "acquisition": trial.acquisition}
            self.records.add_event(ASKED, record.plain_settings(data))
            asked.append(trial)
        return asked

    def _adopted(self, data: Mapping[str, Any]) -> Trial:
        settings = record.settings_from(data["settings"], self.tuner.space)
        why = {name: data.get(name) for name in ("proposed_by", "acquisition")}  # older records do not say
        return self.tuner.adopt(settings, **why)

    def _run(self, batch: list[Trial]) -> None:
        for fidelity in self._fidelities():
            self._train(batch, fidelity)
            for trial in batch:
                self._tell(trial, fidelity)
            batch = self._survivors([t for t in batch if self._state(t) == "asked"], fidelity)

    def _train(self, batch: Sequence[Trial], fidelity: float) -> None:
        """Trains the policies of all trials at one budget; those whose settings allow it as one stack."""
        stacks: list[list[tuple[Any, int]]] = []
        for trial in batch:
            method = self._method(trial, fidelity)
            rows = [(method, number) for number in self._policies(trial, fidelity)]
            same = next((stack for stack in stacks if _together(stack[0][0], method)), None)
            if same is None:
                stacks.append(rows)
            else:
                same.extend(rows)
        for stack in stacks:
            self._train_stack(stack)

    def _train_stack(self, rows: list[tuple[Any, int]]) -> None:
        """Trains policies of several settings together; if that breaks down, each of the settings alone."""
        methods, numbers = [method for method, _ in rows], [number for _, number in rows]
        distinct = [m for i, m in enumerate(methods) if m not in methods[:i]]
        weights = np.array([self.weights[n] for n in numbers])
        try:
            self.session.train(numbers, methods[0], weights, methods if len(distinct) > 1 else None)
        except (ModelError, StopStudy, StoreError):
            raise
        except MoalignError as error:  # a loss that is not finite, or weights that the method refuses
            for method in distinct if len(distinct) > 1 else ():
                self._train_stack([row for row in rows if row[0] == method])
            for number in numbers if len(distinct) == 1 else ():
                self.records.set_state(number, "failed", error=str(error))
                self.session.notify("on_failure", number, error)

    def _method(self, trial: Trial, fidelity: float) -> Any:
        method: Any = method_with(self.session.study, trial.settings)
        if fidelity == 1:
            return method
        steps = max(1, math.ceil(fidelity * method.training.steps))
        return dataclasses.replace(method, training=dataclasses.replace(method.training, steps=steps))

    def _policies(self, trial: Trial, fidelity: float) -> list[int]:
        """Returns the store's numbers of a trial's policies at one budget, made on first use."""
        if (trial.number, fidelity) not in self.numbers:
            own = [list(trial.settings[WEIGHTS])] if WEIGHTS in trial.settings else self.session.study.weights.tolist()
            data = {"trial": trial.number, "fidelity": fidelity, "weights": own}
            self.records.add_event(POLICIES, data)
            self._enter(data)
        self.records.add_trials(self.weights, self.session.study.problem.names)
        return self.numbers[trial.number, fidelity]

    def _enter(self, data: Mapping[str, Any]) -> None:
        first = len(self.weights)
        self.weights += [list(map(float, row)) for row in data["weights"]]
        self.numbers[data["trial"], data["fidelity"]] = list(range(first, len(self.weights)))

    def _tell(self, trial: Trial, fidelity: float) -> None:
        policies = [self.records.trial(n) for n in self.numbers[trial.number, fidelity]]
        failed = [p for p in policies if p.state == "failed"]
        if failed:
            self.tuner.fail(trial.number, failed[0].error or "failed")
        elif self.target == HYPERVOLUME:
            self.tuner.tell(trial.number, self._volume(policies), fidelity=fidelity)
        else:
            values = dict(zip(self.tuner.objectives, policies[0].values or (), strict=True))
            columns = {KL: policies[0].kl or 0.0, **policies[0].columns, **short_of(self.session.study, values)}
            self.tuner.tell(trial.number, values, columns, fidelity=fidelity)

    def _volume(self, policies: Sequence[TrialRecord]) -> float:
        corner = np.array(self.records.events("reference_point")[-1].data["values"])
        points = np.array([p.values for p in policies if p.feasible]).reshape(-1, len(corner))
        return hypervolume(points, corner, unattained="ignore")

    def _survivors(self, batch: list[Trial], fidelity: float) -> list[Trial]:
        """Returns the trials that go on to the next budget; the others are dropped."""
        if self.halving is None or fidelity == 1 or not batch:
            return batch
        rows: list[list[float]] = []
        for trial in batch:
            [seen] = [o for o in self.tuner.trials[trial.number].observations if o.fidelity == fidelity]
            rows.append(list(seen.values.values()))
        values: FloatArray = np.array(rows)
        kept = set(self.halving.survivors(values))
        for place, trial in enumerate(batch):
            if place not in kept:
                self.tuner.drop(trial.number)
        return [trial for place, trial in enumerate(batch) if place in kept]

    def _state(self, trial: Trial) -> str:
        return self.tuner.trials[trial.number].state

    def _fidelities(self) -> tuple[float, ...]:
        return (1.0,) if self.halving is None else self.halving.fidelities


def _together(one: Any, other: Any) -> bool:
    """Returns whether two methods train as one stack."""
    return one == other or (hasattr(one, "stacks_with") and one.stacks_with(other))


def missing(objective: str) -> str:
    """Returns the name of the column that says how far an objective is below its lower limit."""
    return f"{objective} below its limit"


def short_of(study: Study, values: Mapping[str, float]) -> dict[str, float]:
    """Returns by how much values miss the lower limits, by column; negative where they are met."""
    return {missing(n): bound - values[n] for n, bound in study.evaluation.limits.items() if n != KL}
