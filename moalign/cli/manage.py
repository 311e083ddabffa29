"""`moalign init`, `report`, `export` and `retry`: what is written, and where."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName, TrialNumber
from moalign.cli.output import command, print_json, say
from moalign.errors import DefinitionError

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def init(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new study and its file.")]) -> None:
    """Write studies/NAME.py: commented, ready to run on the embedded problem, easy to point at your own model."""
    name = name.removesuffix(".py")
    if not FILE_NAME.fullmatch(name):
        raise usage(f"{name!r} names a file and a folder of results; use letters, digits, '_' and '-'.", "NAME")
    template = resources.files("moalign").joinpath("templates", "study.py.txt").read_text(encoding="utf-8")
    file = Path("studies") / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:  # "x" never overwrites
            stream.write(template.replace("STUDY_NAME", name))
    except FileExistsError:
        raise DefinitionError(
            f"{file} exists already and stays as it is. Choose another name, or edit that file."
        ) from None
    say(f"wrote {file}   next: {command('run', file)}")


def report(
    name: StudyName,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT.html", help="Where to write; the study's own report if left out.")
    ] = None,
    store: StoreFolder = STORE,
) -> None:
    """Write the study's report: one HTML file that needs no network."""
    from moalign.figures.study import write_study_report
    from moalign.publish import REPORT
    from moalign.results import load_front
    from moalign.store import Store

    records = Store(store).study(name)
    path = records.folder / REPORT if out is None else out
    if path.is_dir():
        raise usage(f"{path} is a folder. Name the file to write, such as {path / REPORT}.", "OUT.html")
    write_study_report(records, load_front(records), path)
    say(str(path))


def export(
    name: StudyName,
    trial: TrialNumber,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    store: StoreFolder = STORE,
) -> None:
    """Write a trial's policy as an ordinary PEFT adapter with model card and checksums."""
    from moalign.publish import export_policy
    from moalign.store import Store

    records = Store(store).study(name)
    records.trial(trial)
    say(str(export_policy(records, trial, folder)))


def retry(
    name: StudyName,
    failed: Annotated[bool, typer.Option("--failed", help="Failed trials (no others can be retried).")] = True,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Make failed trials wait again; the next run of the study file judges them anew."""
    from moalign.store import Store

    records = Store(store).study(name)
    with records.drive():
        numbers = records.reset_failed()
    if as_json:
        print_json({"study": name, "trials": list(numbers)})
    elif numbers:
        say(f"waiting again: {', '.join(map(str, numbers))}   next: moalign run with the file of this study")
    else:
        say(f"no failed trials in study {name}")
