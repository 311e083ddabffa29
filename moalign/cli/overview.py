"""`moalign ls` and `status`: which studies a folder holds and how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.options import STORE, AsJson, StoreFolder
from moalign.cli.output import command, flat, number, plain, print_json, print_table, say
from moalign.errors import StoreError

if TYPE_CHECKING:
    from moalign.store import Store, StudyStore, TrialRecord

LAST_EVENTS = 5
EVENT_WIDTH = 100  # characters of an event's data


def ls(store: StoreFolder = STORE, as_json: AsJson = False) -> None:
    """List the studies of a folder."""
    from moalign.store import Store

    folder = Store(store)
    studies = [_summary(folder, name) for name in folder.names()]
    if as_json:
        print_json(studies)
    elif studies:
        print_table(
            ("study", "state", "done", "failed", "front", "hypervolume", "updated"),
            [
                (
                    s["study"],
                    s["state"],
                    f"{s['done']}/{s['trials']}",
                    str(s["failed"] or ""),
                    str(s["front_size"]),
                    number(s["hypervolume"], 4),
                    _when(s["updated"]),
                )
                for s in studies
            ],
            left=(0, 1),
        )
    else:
        say(f"no studies in {store}   next: moalign demo")


def status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The study last updated if left out.")] = None,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Show how far a study is, who is running it, and what went wrong."""
    from moalign.store import Store

    folder = Store(store)
    name = name or _last_updated(folder)
    records = folder.study(name)
    summary = _summary(folder, name)
    trials = records.trials(prompt_values=False)
    driver = records.driver()
    facts = {
        **summary,
        "driver": None if driver is None else str(driver),
        "states": {s: n for s in ("done", "evaluating", "training", "waiting", "failed") if (n := _count(trials, s))},
        "policies_per_minute": _rate(trials),
        "errors": {str(t.number): t.error for t in trials if t.state == "failed"},
        "events": [{"time": e.time, "kind": e.kind, "data": plain(e.data)} for e in records.events()[-LAST_EVENTS:]],
        "folder": str(records.folder),
    }
    if as_json:
        print_json(facts)
    else:
        _print_status(facts, store)


def _summary(folder: Store, name: str) -> dict[str, Any]:
    """Returns the line of `ls`; a study that cannot be read says so instead of hiding the others."""
    summary: dict[str, Any] = {
        "study": name, "state": "unreadable", "done": 0, "trials": 0, "failed": 0, "front_size": 0,
        "hypervolume": None, "updated": None,
    }  # fmt: skip
    try:
        records = folder.study(name)
        trials = records.trials(prompt_values=False)
        summary |= {
            "state": _state(records, trials),
            "done": _count(trials, "done"),
            "trials": len(trials),
            "failed": _count(trials, "failed"),
            "updated": _updated(records, trials),
            **_volume(records),
        }
    except StoreError as error:
        say(f"{type(error).__name__}: {error}", error=True)
    return summary


def _state(records: StudyStore, trials: Sequence[TrialRecord]) -> str:
    if records.driver() is not None:
        return "running"
    if trials and all(t.state in ("done", "failed") for t in trials):
        return "finished"
    return "stopped" if records.events("stopped") else "interrupted"


def _volume(records: StudyStore) -> dict[str, Any]:
    import numpy as np

    from moalign.front import hypervolume
    from moalign.results import load_front

    if records.reference() is None:
        return {}
    found = load_front(records)
    feasible = np.array([p.feasible for p in found.points], dtype=bool)
    volume = hypervolume(found.F[feasible], found.reference_point, unattained="ignore")
    return {"front_size": len(found.front_points), "hypervolume": volume}


def _updated(records: StudyStore, trials: Iterable[TrialRecord]) -> float | None:
    times = [t for trial in trials for t in (trial.started, trial.finished) if t is not None]
    return max([*times, *(e.time for e in records.events()[-1:])], default=None)


def _last_updated(folder: Store) -> str:
    names = folder.names()
    if not names:
        raise StoreError(f"There are no studies in {folder.root}. `moalign demo` makes one.")
    updated = {}
    for name in names:
        try:
            records = folder.study(name)
            updated[name] = _updated(records, records.trials(prompt_values=False)) or 0.0
        except StoreError:
            updated[name] = 0.0
    return max(names, key=updated.__getitem__)


def _count(trials: Iterable[TrialRecord], state: str) -> int:
    return sum(t.state == state for t in trials)


def _rate(trials: Iterable[TrialRecord]) -> float | None:
    """Returns how many policies were trained and judged per minute, from the first start to the last end."""
    done = [t for t in trials if t.state == "done"]
    span = max((t.finished or 0.0 for t in done), default=0.0) - min((t.started or 0.0 for t in done), default=0.0)
    return 60 * len(done) / span if span > 0 and all(t.started and t.finished for t in done) else None


def _print_status(facts: Mapping[str, Any], store: object) -> None:
    rate = facts["policies_per_minute"]
    say(f"{facts['study']}: {facts['state']}" + (f" on {facts['driver']}" if facts["driver"] else ""))
    say(f"trials   {facts['trials']}: " + "  ".join(f"{state} {n}" for state, n in facts["states"].items()))
    say(f"front    {facts['front_size']} points  hypervolume {number(facts['hypervolume'], 4)}")
    if rate is not None:
        say(f"rate     {number(rate)} policies per minute, training included")
    say(f"updated  {_when(facts['updated'])}   {facts['folder']}")
    for trial, error in facts["errors"].items():
        say(f"failed   #{trial}  {error}")
    for event in facts["events"]:
        data = "  ".join(f"{name} {value}" for name, value in flat(_rounded(event["data"])))
        say(f"event    {_when(event['time'])}  {event['kind']}  {data[:EVENT_WIDTH]}")
    say(f"next: {_next(facts, store)}")


def _next(facts: Mapping[str, Any], store: object) -> str:
    if facts["state"] == "interrupted":
        return "`moalign run` with the file of this study continues it"
    verb = ("retry", facts["study"], "--failed") if facts["errors"] else ("front", facts["study"])
    return command(*verb, store=store) if facts["done"] or facts["errors"] else "wait for the first policies"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
