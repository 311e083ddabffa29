"""`moalign dashboard`: look at the studies of a folder in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moalign.cli.options import STORE
from moalign.cli.output import say


def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of studies, or of one study.")] = STORE,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; the first free one from 8050.")
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option("--votes", metavar="DIR", help="Folder for blind votes; DIR-votes beside DIR if left out."),
    ] = None,
) -> None:
    """Look at studies in a browser: fronts, texts, comparisons. Reads only; answers on 127.0.0.1 only."""
    from moalign_dashboards import Server, create_app

    study = ""
    if (folder / "study.json").is_file():  # one study: its folder is the parent
        folder, study = folder.resolve().parent, f"?study={folder.resolve().name}"
    server = Server(create_app(folder, votes=votes), port)
    say(f"dashboard of {folder}: {server.address}{study}   (Ctrl-C ends it)")
    try:
        server.run()
    except KeyboardInterrupt:
        say("ended")
