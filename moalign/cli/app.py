"""The command line's table of contents. What a command needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from moalign.cli.check import check
from moalign.cli.compare import compare
from moalign.cli.dashboard import dashboard
from moalign.cli.data import data
from moalign.cli.demo import demo
from moalign.cli.diagnose import diagnose
from moalign.cli.doctor import doctor
from moalign.cli.elicit import elicit
from moalign.cli.errors import Commands
from moalign.cli.execute import run
from moalign.cli.look import front, show
from moalign.cli.manage import export, init, report, retry
from moalign.cli.overview import ls, status
from moalign.cli.tune import tune

app = typer.Typer(
    name="moalign",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 with failed trials, 2 usage, 3 definition or data, 4 store, 130 interrupted.",
)
for command, panel in (
    (demo, "Start"),
    (compare, "Start"),
    (init, "Start"),
    (data, "Run"),
    (check, "Run"),
    (run, "Run"),
    (tune, "Run"),
    (retry, "Run"),
    (ls, "Look"),
    (status, "Look"),
    (front, "Look"),
    (show, "Look"),
    (diagnose, "Look"),
    (elicit, "Look"),
    (dashboard, "Look"),
    (report, "Take away"),
    (export, "Take away"),
    (doctor, "Repair"),
):
    app.command(rich_help_panel=panel)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from moalign import __version__

        print(f"moalign {__version__}")
        raise typer.Exit


@app.callback()
def moalign(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Multi-objective alignment of language models: sweeps of preference weights, trained as one stack.

    Start with `moalign demo`, or write a study with `moalign init NAME` and run it with `moalign run`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves Python with its exit code; the entry point `moalign`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no ± must not end a command
    app(arguments if arguments is None else list(arguments), prog_name="moalign")
