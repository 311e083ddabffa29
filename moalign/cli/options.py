"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.output import STANDARD_STORE

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Study file, such as studies/NAME.py.")]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a study; `moalign ls` lists them.")]
TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="Number of a trial of the study.")]
StoreFolder = Annotated[Path, typer.Option("--store", metavar="DIR", help="Folder of all results.")]
Device = Annotated[
    str | None, typer.Option("--device", help="torch device, such as cpu or cuda:1; an accelerator if there is one.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the outcome.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print strict JSON on stdout.")]

STORE = Path(STANDARD_STORE)
