"""`moalign ls`, `status`, `front` and `show`: what lies in a folder of results. Nothing here writes or loads a model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName, TrialNumber
from moalign.cli.output import command, flat, measured, number, plain, print_csv, print_json, print_table, say
from moalign.cli.tables import print_front
from moalign.errors import StoreError

if TYPE_CHECKING:
    from moalign.front import Front, Point
    from moalign.store import Store, StudyStore, TrialRecord

LAST_EVENTS = 5


class Format(str, Enum):
    """How the front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


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
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A study; the one last updated if left out.")] = None,
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


def front(
    name: StudyName,
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="WEIGHTS", help="Only the policy nearest to these weights: .4,.5,.1 or helpful=1."),
    ] = None,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Show all policies of a study, and which of them are on the front."""
    from moalign.front import tables
    from moalign.results import load_front
    from moalign.store import Store

    found = load_front(Store(store).study(name))
    chosen = found.nearest(_weights(at, found.objectives)) if at is not None else None
    if as_json or format is Format.json:
        content = found.to_json()
        if chosen is not None:
            content = next(p for p in content["points"] if p["trial"] == chosen.trial)
        print_json(content)
    elif format is Format.csv:
        rows = [i for i, p in enumerate(found.points) if chosen is None or p is chosen]
        print_csv({column: [cells[i] for i in rows] for column, cells in tables.columns(found).items()})
    elif chosen is not None:
        _print_point(found, chosen, store)
    else:
        print_front(found)


def show(
    name: StudyName,
    trial: TrialNumber,
    config: Annotated[bool, typer.Option("--config", help="Print every value that ran.")] = False,
    generations: Annotated[int, typer.Option("--generations", "-g", min=0, help="How many responses to print.")] = 10,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Show one policy: weights, rewards, KL, and what it answered."""
    from moalign.results import load_generations
    from moalign.store import Store

    records = Store(store).study(name)
    record = records.trial(trial)
    texts = sorted(load_generations(records, trial), key=lambda row: (row["sample"], row["prompt_index"]))[:generations]
    facts = _trial_facts(records, record)
    ran = {"study": records.name, **records.info, "definition": records.description} if config else {}
    if as_json:
        print_json({**facts, "generations": texts, **({"config": ran} if config else {})})
        return
    _print_trial(facts)
    for row in flat(ran):
        say(f"{row[0]} = {row[1]}")
    for text in texts:
        _print_generation(text)


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
    return str(max(names, key=lambda name: _summary(folder, name)["updated"] or 0.0))


def _count(trials: Iterable[TrialRecord], state: str) -> int:
    return sum(t.state == state for t in trials)


def _rate(trials: Iterable[TrialRecord]) -> float | None:
    """Returns how many policies were judged per minute, over all that are done."""
    finished = sorted(t.finished for t in trials if t.state == "done" and t.finished is not None)
    if len(finished) < 2 or finished[-1] <= finished[0]:
        return None
    return 60 * (len(finished) - 1) / (finished[-1] - finished[0])


def _weights(text: str, objectives: Sequence[str]) -> Any:
    """Returns ".4,.5,.1" as a list and "helpful=.4,brief=.6" as a dictionary with the others at 0."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if any("=" in part for part in parts):
            named = dict(part.rsplit("=", 1) for part in parts)
            return {**dict.fromkeys(objectives, 0.0), **{n.strip(): float(w) for n, w in named.items()}}
        return [float(part) for part in parts]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of weights. Write one number per objective ({', '.join(objectives)}) or names: "
            f"{objectives[0]}=1",
            param_hint="--at",
        ) from None


def _trial_facts(records: StudyStore, record: TrialRecord) -> dict[str, Any]:
    names: Sequence[str] = records.info["objectives"]

    def by_name(values: Sequence[float] | None) -> Mapping[str, float] | None:
        return None if values is None else dict(zip(names, values, strict=False))

    return {
        "study": records.name,
        "trial": record.number,
        "state": record.state,
        "error": record.error,
        "weights": by_name(record.weights),
        "values": by_name(record.values),
        "standard_errors": by_name(record.standard_errors),
        "kl": record.kl,
        "kl_standard_error": record.kl_standard_error,
        "feasible": record.feasible,
        "columns": dict(record.columns),
        "folder": str(records.trial_folder(record.number)),
    }


def _print_trial(facts: Mapping[str, Any]) -> None:
    weights = "  ".join(f"{name} {number(w)}" for name, w in facts["weights"].items())
    say(f"trial {facts['trial']} of {facts['study']}: {facts['state']}")
    if facts["error"]:
        say(f"error    {facts['error']}")
    say(f"weights  {weights}")
    if facts["values"] is not None:
        rewards = [f"{n} {measured(v, facts['standard_errors'][n])}" for n, v in facts["values"].items()]
        say(f"rewards  {'  '.join(rewards)}")
        say(f"KL       {measured(facts['kl'], facts['kl_standard_error'])} nats per response to the reference policy")
        say("columns  " + "  ".join(f"{n} {number(v)}" for n, v in facts["columns"].items()))
        say(f"folder   {facts['folder']}" + ("" if facts["feasible"] else "   outside the limits"))


def _print_generation(row: Mapping[str, Any]) -> None:
    """Prints a response; each line of a text is marked, so that no text can pass for output of the command."""
    rewards = "  ".join(f"{name} {number(value)}" for name, value in row["rewards"].items())
    end = "" if row["finished"] else "  cut off at the length limit"
    say(f"\nprompt {row['prompt_index']}  {rewards}  KL {number(row['kl'])}  {row['tokens']} tokens{end}")
    for mark, text in (("<", row["prompt"]), (">", row["response"])):
        for line in str(text).split("\n"):
            say(f"  {mark} {line}")


def _print_point(found: Front, point: Point, store: object) -> None:
    from moalign.progress import short_weights

    values = [
        f"{n} {measured(v, e)}"
        for n, v, e in zip(found.objectives, point.values, point.standard_errors, strict=True)
    ]
    say(f"#{point.trial}  w={short_weights(point.weights)}  {'  '.join(values)}  KL {number(point.kl)}")
    say(f"next: {command('show', found.study, point.trial, store=store)}")


def _print_status(facts: Mapping[str, Any], store: object) -> None:
    rate = facts["policies_per_minute"]
    say(f"{facts['study']}: {facts['driver'] and 'running on ' + facts['driver'] or facts['state']}")
    say(f"trials   {facts['trials']}: " + "  ".join(f"{state} {n}" for state, n in facts["states"].items()))
    say(f"front    {facts['front_size']} points  hypervolume {number(facts['hypervolume'], 4)}")
    if rate is not None:
        say(f"rate     {number(rate)} policies judged per minute")
    say(f"updated  {_when(facts['updated'])}   {facts['folder']}")
    for trial, error in facts["errors"].items():
        say(f"failed   #{trial}  {error}")
    for event in facts["events"]:
        data = "  ".join(f"{n} {v}" for n, v in flat(event["data"]))
        say(f"event    {_when(event['time'])}  {event['kind']}  {data[:100]}")
    verb = ("retry", facts["study"], "--failed") if facts["errors"] else ("front", facts["study"])
    say(f"next: {command(*verb, store=store)}")


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
