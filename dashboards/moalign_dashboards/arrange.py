"""What stands on a page: its own arrangement, or what is said while there is nothing to arrange."""

from __future__ import annotations

from typing import Any

from dash import html

from moalign_dashboards import shell
from moalign_dashboards.context import Context, Page
from moalign_dashboards.library import Library
from moalign_dashboards.parts import empty
from moalign_dashboards.state import State


def arranged(page: Page | None, here: Context) -> list[Any]:
    """Returns a page with its title; the reason instead where no policy has been evaluated."""
    if page is None:
        return [empty("There is no such page.", "Choose one at the left.")]
    title = html.Div([html.H1(page.name), html.P(page.about)], className="title")
    if page.needs_front and (here.study.view is None or not here.study.view.trials):
        return [title, _waiting(here)]
    return [title, *page.layout(here)]


def _waiting(here: Context) -> Any:
    progress = here.study.progress
    if progress == "running":
        return empty("The first policies are still being trained.", "This page fills by itself when one is evaluated.")
    if progress == "failed":
        return empty(
            "All policies of this study failed.",
            "The overview says why.",
            command=f"moalign retry {here.study.name} --failed",
        )
    return empty(
        "No policy of this study has been evaluated.",
        "Run its file again: it continues where it stopped.",
        command="moalign run studies/NAME.py",
    )


def without_study(library: Library, state: State, reason: str) -> Any:
    """Returns what is shown when the study of the address cannot be."""
    names = library.names()
    if state.study is None and not names:
        return empty(
            "No studies yet",
            f"{library.root.absolute()} holds none. This page notices when the first one appears.",
            command="moalign demo",
        )
    return shell.gone(state.study, names, str(library.root), reason)
