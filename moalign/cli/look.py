"""`moalign front` and `show`: the policies of a study and what they answer. Nothing here loads a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName, TrialNumber
from moalign.cli.output import command, flat, measured, number, print_csv, print_json, say
from moalign.cli.tables import print_front
from moalign.errors import DefinitionError

if TYPE_CHECKING:
    from moalign.front import Front, Point
    from moalign.store import StudyStore, TrialRecord


class Format(StrEnum):
    """How the front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def front(
    name: StudyName,
    format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="WEIGHTS", help="Only the policy nearest to .4,.5,.1 or helpful=1."),
    ] = None,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Show all policies of a study, and which of them are on the front."""
    from moalign.front import tables
    from moalign.results import load_front
    from moalign.store import Store

    found = load_front(Store(store).study(name))
    chosen = None if at is None else _nearest(found, at)
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
    from moalign.store import Store, load_generations

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


def _nearest(found: Front, at: str) -> Point:
    try:
        return found.nearest(_weights(at, found.objectives))
    except DefinitionError as error:
        raise usage(str(error), "--at") from None


def _weights(text: str, objectives: Sequence[str]) -> Any:
    """Returns ".4,.5,.1" as a list and "helpful=.4,brief=.6" as a dictionary with the others at 0."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if any("=" in part for part in parts):
            named = dict(part.rsplit("=", 1) for part in parts)
            return {**dict.fromkeys(objectives, 0.0), **{n.strip(): float(w) for n, w in named.items()}}
        return [float(part) for part in parts]
    except ValueError:
        raise usage(
            f"{text!r} is no list of weights. Write one number per objective ({', '.join(objectives)}) or names: "
            f"{objectives[0]}=1",
            "--at",
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
        kl = "unknown" if facts["kl"] is None else measured(facts["kl"], facts["kl_standard_error"] or 0.0)
        say(f"KL       {kl} nats per response to the reference policy")
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
        f"{n} {measured(v, e)}" for n, v, e in zip(found.objectives, point.values, point.standard_errors, strict=True)
    ]
    say(f"#{point.trial}  w={short_weights(point.weights)}  {'  '.join(values)}  KL {number(point.kl)}")
    say(f"next: {command('show', found.study, point.trial, store=store)}")
