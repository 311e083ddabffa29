"""`moalign dashboard`: look at the studies of a folder in a browser."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE
from moalign.cli.output import say
from moalign.errors import MoalignError

_HOST = "127.0.0.1"
_TOKEN_BYTES = 24


def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of studies, or of one study.")] = STORE,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port; the first free one from 8050 if left out.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="NAME", help="Name or address to answer on; others than this machine need --token."
        ),
    ] = _HOST,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            envvar="MOALIGN_DASHBOARD_TOKEN",
            show_envvar=True,
            help="Secret that every browser must show once; `new` draws one.",
        ),
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option("--votes", metavar="DIR", help="Folder for blind votes; DIR-votes beside DIR if left out."),
    ] = None,
) -> None:
    """Look at studies in a browser: fronts, texts, comparisons. Reads only; on 127.0.0.1 unless told otherwise."""
    from moalign_dashboards import Access, Server, create_app

    try:
        access = Access(host=host, token=secrets.token_urlsafe(_TOKEN_BYTES) if token == "new" else token)
    except MoalignError as error:
        raise usage(str(error), "--host / --token") from None
    study = None
    if (folder / "study.json").is_file():  # one study: its folder is the parent
        folder, study = folder.resolve().parent, folder.resolve().name
    server = Server(create_app(folder, votes=votes, access=access), port)
    say(f"dashboard of {folder}: {server.link(study)}   (Ctrl-C ends it)")
    if not access.is_local:
        say("Others on the way can read along, because http is not encrypted; across networks use ssh -L.")
    try:
        server.run()
    except KeyboardInterrupt:
        say("ended")
