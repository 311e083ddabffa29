"""`moalign run`: a study file is run, or continued, with progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import FAILED_TRIALS
from moalign.cli.machine import checked_device, quiet_models
from moalign.cli.options import STORE, AsJson, Device, Quiet, StoreFolder, StudyFile
from moalign.cli.output import command, print_json, say
from moalign.cli.study_file import load_study
from moalign.cli.tables import print_front
from moalign.errors import StudyChangedError

if TYPE_CHECKING:
    from moalign.front import Front
    from moalign.store import StudyStore

Fork = Annotated[
    bool, typer.Option("--fork", help="If the definition has changed, run it beside the old one, as NAME-2.")
]


def run(
    file: StudyFile,
    store: StoreFolder = STORE,
    device: Device = None,
    fork: Fork = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a study file, or continue where it stopped."""
    import moalign.driver as flow
    from moalign.progress import TerminalProgress

    started = time.monotonic()
    quiet_models()
    device = checked_device(device)
    study = load_study(file)
    with TerminalProgress(quiet=quiet, device=device) as progress:
        try:
            front = flow.run(study, store, on_change="fork" if fork else "refuse", callbacks=[progress], device=device)
        except StudyChangedError as error:
            error.add_note(f"To keep both: moalign run {file} --fork")
            raise
    finish(store, front, time.monotonic() - started, as_json)


def finish(store: Path, front: Front, seconds: float, as_json: bool) -> None:
    """Prints the outcome of a run; exits with 1 if trials failed."""
    from moalign.store import Store

    records = Store(store).study(front.study)
    failed = [t.number for t in records.trials() if t.state == "failed"]
    if as_json:
        print_json(outcome(records, front, failed, seconds), indent=None)
    else:
        print_front(front)
        say(f"\n{records.folder / 'report.html'}   next: {_next(front, failed, store)}")
    if failed:
        raise typer.Exit(FAILED_TRIALS)


def _next(front: Front, failed: list[int], store: Path) -> str:
    if failed:
        return command("retry", front.study, "--failed", store=store)
    if front.front_points:
        return command("show", front.study, front.knee().trial, store=store)
    return command("status", front.study, store=store)


def outcome(records: StudyStore, front: Front, failed: list[int], seconds: float) -> dict[str, Any]:
    """Returns the facts of a finished run by name."""
    volume = front.hypervolume()
    return {
        "study": front.study,
        "folder": str(records.folder),
        "report": str(records.folder / "report.html"),
        "points": len(front),
        "front_size": len(front.front_points),
        "failed": failed,
        "hypervolume": volume.value,
        "hypervolume_low": volume.low,
        "hypervolume_high": volume.high,
        "seconds": seconds,
    }
