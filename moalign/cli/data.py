"""`moalign data`: what a data file holds, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.options import AsJson
from moalign.cli.output import print_json, say
from moalign.errors import DataError


def data(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV, Parquet or text file.")],
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="NAME", help="Of pairs, look at this objective only.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option("--attributes", metavar="A,B", help="Of ratings, the columns that hold them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report on a data file: counts, duplicates, contradictions, users, labels, lengths; refuse broken rows."""
    from moalign.data import data_report

    names = None if attributes is None else [name.strip() for name in attributes.split(",") if name.strip()]
    try:
        report = data_report(file, objective=objective, attributes=names)
    except DataError as error:
        if as_json:
            print_json({"problems": [line.strip() for line in str(error).splitlines()]})
        raise
    if as_json:
        print_json({**report.to_json(), "problems": []})
        return
    for name, words in report.lines():
        say(f"{name:<8}{words}")
