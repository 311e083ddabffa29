"""`tuning.json` in the folder of a tuning, for people and the dashboard; and settings as JSON and back.

The file is `moalign.figures.Tuning`: what was searched, what every trial had and reached, and what mattered.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moalign.errors import DefinitionError, StoreError
from moalign.figures import tuner as page
from moalign.front import hypervolume
from moalign.store import StudyStore, write_json_atomic
from moalign.study import Study
from moalign.tuning.insight import HYPERVOLUME, importance
from moalign.tuning.space import Choice, Space
from moalign.tuning.trial import Trial
from moalign.tuning.tuner import Tuner

FILE = page.Tuning.FILE


def write(records: StudyStore, tuner: Tuner, numbers: Mapping[tuple[int, float], list[int]]) -> None:
    """Writes tuning.json into the study's folder, whole or not at all."""
    facts(tuner, numbers).save(records.folder)


def facts(tuner: Tuner, numbers: Mapping[tuple[int, float], list[int]]) -> page.Tuning:
    """Returns the content of tuning.json.

    With several objectives the value of a trial is the hypervolume that its policy dominates alone.

    Args:
        tuner: with its trials.
        numbers: (trial, fidelity) -> numbers of the policies in the store.
    """
    corner, several = tuner.reference_point, len(tuner.objectives) > 1
    front, volumes = {t.number for t in tuner.front()}, _volumes(tuner)
    fields = _fields(tuner)
    trials = [
        page.Tried(
            number=t.number,
            values=dict(zip((f.name for f in fields), _positions(tuner, t), strict=True)),
            value=_value(tuner, t),
            state=t.state,
            policies=[n for (trial, _), own in numbers.items() if trial == t.number for n in own],
            objectives={} if t.result is None else dict(t.result.values),
            columns={} if t.result is None else dict(t.result.columns),
            rungs=[page.Rung(fidelity=o.fidelity, values=dict(o.values)) for o in t.observations],
            so_far=volumes[t.number] if t.result is not None else None,
            on_front=t.number in front,
            source=t.source,
            proposed_by=t.proposed_by,
            acquisition=t.acquisition,
            error=t.error,
        )
        for t in tuner.trials
    ]
    enough = sum(t.result is not None for t in tuner.trials) >= tuner.initial
    kinds = (HYPERVOLUME, *tuner.objectives) if several else tuner.objectives
    shares = {of: importance(tuner, of) for of in kinds} if enough else {}
    return page.Tuning(
        objective=HYPERVOLUME if several else tuner.objectives[0],
        fields=fields,
        trials=trials,
        importance={of: {n: s.share for n, s in found.items()} for of, found in shares.items()},
        importance_sd={of: {n: s.sd for n, s in found.items()} for of, found in shares.items()},
        reference_point=None if corner is None else corner.tolist(),
        limits=dict(tuner.limits),
    )


def _fields(tuner: Tuner) -> list[page.Field]:
    """Returns the fields of all dimensions: of weights one per objective, of others one."""
    found = []
    for name, dimension in tuner.space.dimensions.items():
        described = dimension.describe()
        if described["kind"] == "simplex":
            count = described["objectives"]
            own = tuner.objectives if len(tuner.objectives) == count else range(count)
            found += [page.Field(name=f"{name}: {of}", low=0.0, high=1.0) for of in own]
        elif described["kind"] == "choice":
            options = described["options"]
            found.append(page.Field(name=name, low=0.0, high=len(options) - 1.0, options=options))
        else:
            low, high = float(described["low"]), float(described["high"])
            found.append(page.Field(name=name, low=low, high=high, log=described["log"]))
    return found


def _positions(tuner: Tuner, trial: Trial) -> list[float]:
    """Returns the settings of a trial as the numbers of `_fields`."""
    found: list[float] = []
    for name, dimension in tuner.space.dimensions.items():
        value = trial.settings[name]
        if isinstance(dimension, Choice):
            found.append(float(np.argmax(dimension.encode(value))))
        else:
            found += map(float, value if isinstance(value, (tuple, list)) else (value,))
    return found


def _value(tuner: Tuner, trial: Trial) -> float | None:
    if trial.result is None:
        return None
    values, corner = np.array([trial.result.values[name] for name in tuner.objectives]), tuner.reference_point
    if len(values) == 1:
        return float(values[0])
    return None if corner is None else float(np.prod(np.maximum(values - corner, 0)))


def save_trials(tuner: Tuner, path: str | Path) -> None:
    """Writes all trials of an own ask-and-tell loop as JSON, whole or not at all."""
    rows = [plain_settings(dataclasses.asdict(trial)) for trial in tuner.trials]
    write_json_atomic(path, {"format": 1, "search": tuner.space.describe(), "trials": rows})


def load_trials(tuner: Tuner, path: str | Path) -> None:
    """Takes saved trials into a new tuner, which then asks what the saved one would have asked.

    Raises:
        StoreError: the file cannot be read, or was saved by a tuner with another search.
        DefinitionError: the tuner has trials already.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        search, rows = content["search"], content["trials"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} holds no trials of a tuner: {error!r}.") from None
    if search != json.loads(json.dumps(tuner.space.describe())):
        raise StoreError(f"{path} was saved by a tuner with another search. Use the same dimensions and limits.")
    if tuner.trials:
        raise DefinitionError("load_trials needs a tuner without trials; make a new one.")
    for row in rows:
        where = {name: row.get(name) for name in ("source", "proposed_by", "acquisition")}
        trial = tuner.adopt(settings_from(row["settings"], tuner.space), **where)
        for seen in row["observations"]:
            tuner.tell(trial.number, seen["values"], seen["columns"], fidelity=seen["fidelity"])
        if row["state"] == "failed":
            tuner.fail(trial.number, row["error"])
        elif row["state"] == "dropped":
            tuner.drop(trial.number)


def plain_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an event's data with its settings as JSON."""
    return {**data, "settings": {name: plain(value) for name, value in data["settings"].items()}}


def settings_from(stored: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Returns settings from their JSON: options of a choice by their text, weights as tuples."""
    found: dict[str, Any] = {}
    for name, value in stored.items():
        dimension = space.dimensions[name]
        if isinstance(dimension, Choice):
            value = next(option for option in dimension.options if plain(option) == value)
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def settings_by_policy(records: StudyStore) -> dict[int, Mapping[str, Any]]:
    """Returns the settings of every policy of a tuning at the full budget, by its number; empty for other studies."""
    asked = {event.data["trial"]: event.data["settings"] for event in records.events("asked")}
    found: dict[int, Mapping[str, Any]] = {}
    first = 0
    for event in records.events("policies"):
        for number in range(first, first + len(event.data["weights"])):
            if event.data["fidelity"] == 1 and event.data["trial"] in asked:
                found[number] = asked[event.data["trial"]]
        first += len(event.data["weights"])
    return found


def known_settings(
    records: StudyStore, own: Mapping[str, Any] | None, weights: tuple[float, ...], study: Study, space: Space
) -> dict[str, Any] | None:
    """Returns what another study's policy has for the tuned names; None where that is unknown or out of range.

    A tuned study says it itself; a plain one in its definition, where a field that it does not have is the default.
    """
    found: dict[str, Any] = {}
    for name, dimension in space.dimensions.items():
        if name == "weights":
            value: Any = weights
        elif own is not None and name in own:
            value = own[name]
        else:
            value = records.description
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
        facts = dimension.describe()
        if isinstance(dimension, Choice):
            value = next((option for option in dimension.options if plain(option) == value), None)
        elif "low" in facts and not (isinstance(value, (int, float)) and facts["low"] <= value <= facts["high"]):
            value = None
        if value is None:
            return None
        found[name] = value
    return found


def _volumes(tuner: Tuner) -> list[float]:
    """Returns the hypervolume (with one objective the best value) after each trial."""
    found, corner = [], tuner.reference_point
    results = {t.number for t in tuner.results}
    rows: list[list[float]] = []
    for trial in tuner.trials:
        if trial.number in results and trial.result is not None:
            rows.append(list(trial.result.values.values()))
        if len(tuner.objectives) == 1:
            found.append(max((row[0] for row in rows), default=0.0))
        else:
            found.append(
                hypervolume(np.array(rows), corner, unattained="ignore") if rows and corner is not None else 0.0
            )
    return found


def plain(value: Any) -> Any:
    """Returns a setting as JSON: numbers, texts, lists; other options by their name or text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return str(getattr(value, "__name__", value))


def short(value: Any) -> str:
    """Returns a setting as a cell of a table."""
    shown = plain(value)
    if isinstance(shown, list):
        return "(" + " ".join(f"{v:.2f}" for v in shown) + ")"
    return f"{shown:.3g}" if isinstance(shown, float) else str(shown)
