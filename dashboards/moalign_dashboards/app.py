"""The application: pages fill named figures and panels from the address and the records, and nothing else."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, html, no_update

from moalign.errors import MoalignError, StoreError
from moalign.figures import recoloured, visible
from moalign.figures.style import DARK, message_figure
from moalign_dashboards import arrange, exports, guard, scripts, shell
from moalign_dashboards.context import Context
from moalign_dashboards.drawer import Drawer, drawer
from moalign_dashboards.library import Library
from moalign_dashboards.pages import PAGES
from moalign_dashboards.state import State as Address
from moalign_dashboards.words import tree, words

_LOG = logging.getLogger("moalign_dashboards")
_PAGE_OF = {page.path: page for page in PAGES}


def create_app(
    root: str | Path = "runs", *, votes: str | Path | None = None, access: guard.Access | None = None
) -> Dash:
    """Returns the dashboard of a folder of studies.

    Args:
        root: the folder; studies in it are only read.
        votes: folder for the votes of blind comparisons; beside `root` when None, never inside.
        access: where a server of it answers, and to whom; None: on 127.0.0.1, to everybody on this machine.

    Raises:
        StoreError: `root` is a file, or `votes` lies inside it.
    """
    root = Path(root)
    folder = root.absolute().parent / f"{root.absolute().name}-votes" if votes is None else Path(votes).absolute()
    if root.absolute() == folder or root.absolute() in folder.parents:
        raise StoreError(f"{folder} lies inside {root}, which the dashboard never writes to. Choose another folder.")
    library = Library(root)
    app = Dash(
        "moalign_dashboards",
        title="moalign",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        suppress_callback_exceptions=True,
        serve_locally=True,
        enable_mcp=False,
        pages_folder="",
        on_error=_report,
    )
    app.layout = shell.frame(PAGES)
    scripts.serve(app)
    _browser_callbacks(app)
    _server_callbacks(app, library, folder)
    exports.routes(app.server, library, folder)
    threading.Thread(target=_read_ahead, args=(library,), daemon=True).start()
    guard.protect(app.server, app.csp_hashes, access or guard.Access())
    return app


def _read_ahead(library: Library) -> None:
    """Reads the study and draws the pages that are shown first, while the browser is still opening."""
    try:
        for name in library.names()[:1]:
            here = Context(library, Address(), library.view(name), library.root)
            for page in reversed(PAGES[:2]):
                for draw in page.figures.values():
                    draw(here)
    except MoalignError:
        pass  # the page says it


def _report(error: Exception) -> None:
    _LOG.error("A part of the page failed: %s", visible(repr(error)), exc_info=error)


def _browser_callbacks(app: Dash) -> None:
    """What the browser does itself, so that it answers at once; see assets/dashboard.js."""
    graphs = {"type": "graph", "page": ALL, "name": ALL}
    url = Output("url", "pathname", allow_duplicate=True), Output("url", "search", allow_duplicate=True)
    for name, prop in (("clicked", "clickData"), ("selected", "selectedData"), ("brushed", "restyleData")):
        app.clientside_callback(
            ClientsideFunction("moalign", name), *url, Input(graphs, prop), prevent_initial_call=True
        )
    app.clientside_callback(
        ClientsideFunction("moalign", "zoomed"),
        Output("zoom", "data"),
        Input(graphs, "relayoutData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("moalign", "settled"),
        Output("settled", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
    )
    app.clientside_callback(ClientsideFunction("moalign", "look"), Output("look", "data"), Input("url", "search"))
    app.clientside_callback(
        ClientsideFunction("moalign", "beat"), Output("beat", "data"), Input("clock", "n_intervals")
    )
    app.clientside_callback(
        ClientsideFunction("moalign", "theme"), Output("theme", "data"), Input("theme-button", "n_clicks")
    )
    app.clientside_callback(
        ClientsideFunction("moalign", "arranged"),
        Output("live", "children"),
        Input("main", "children"),
        Input("drawer-facts", "tree"),
    )


def _server_callbacks(app: Dash, library: Library, votes: Path) -> None:
    def context(path: str | None, search: str | None) -> Context:
        state = Address.read(path, search)
        names = library.names() if state.study is None else []
        name = state.study or (names[0] if names else None)
        if name is None:
            raise StoreError(f"There are no studies in {library.root}.")
        return Context(library, state, library.view(name), votes)

    address = Input("url", "pathname"), Input("url", "search")
    # A click on a policy is answered by the drawer alone; the rest of the page follows when the drawer is there.
    settled = Input("settled", "data"), State("url", "pathname"), State("url", "search")

    @app.callback(Output("version", "data"), Input("beat", "data"), *settled, State("version", "data"))
    def version(_: Any, __: Any, path: str, search: str, known: str | None) -> Any:
        try:
            here = context(path, search)
        except StoreError:
            found = "none:" + ",".join(library.names())
        else:
            found = " ".join(library.version(n) for n in (here.study.name, *here.state.overlays))
        return no_update if found == known else found

    @app.callback(
        Output("navigation-words", "tree"), Output("top-words", "tree"), Output("main", "children"),
        Output("shape", "data"), *settled, Input("version", "data"), State("shape", "data"),
    )  # fmt: skip
    def frame(at: Any, path: str, search: str, _: Any, shape: str | None) -> Any:
        if at is None:
            return (no_update,) * 4
        state = Address.read(path, search)
        pages = tree(shell.navigation(PAGES, state))
        try:
            here = context(path, search)
        except StoreError as error:
            return pages, [], words(arrange.without_study(library, state, str(error))), "none"
        known = f"{state.path} {here.study.name} {here.study.view is not None} {here.study.objectives}"
        known += f" {bool(here.study.view and here.study.view.trials)}"
        page = _PAGE_OF.get(state.path)
        if page is not None and not page.needs_front:  # arranged by the files beside the records
            known += library.beside(here.study.name)
        if known == shape:
            return pages, tree(shell.top(here)), no_update, no_update
        return pages, tree(shell.top(here)), words(arrange.arranged(page, here)), known

    @app.callback(
        Output("drawer-facts", "tree"), Output("drawer-curve", "children"), Output("drawer-texts", "tree"),
        Output("drawer", "className"), Output("drawer-key", "data"),
        *address, Input("version", "data"), Input("theme", "data"), State("drawer-key", "data"),
    )  # fmt: skip
    def side(path: str, search: str, _: Any, theme: str | None, key: Any) -> Any:
        try:
            here = context(path, search)
            trial = here.state.trial
            record = here.library.records(here.study.name).trial(trial) if trial is not None else None
            wanted = [here.study.name, trial, record.state if record else "", theme, here.state.options, path]
            if wanted == key:
                return (no_update,) * 5
            content = drawer(here, theme or "light")
        except StoreError as error:
            asked = Address.read(path, search).trial is not None
            content, wanted = Drawer([html.P(visible(str(error)))] if asked else ()), None
        look = "drawer open" if content.facts else "drawer"
        return tree(content.facts), content.curve, tree(content.texts), look, wanted

    graph, panel = ({"type": kind, "page": MATCH, "name": MATCH} for kind in ("graph", "panel"))

    @app.callback(
        Output(graph, "figure"),
        Input("look", "data"),
        Input("version", "data"),
        Input("theme", "data"),
        State("url", "search"),
        State("url", "pathname"),
        State("zoom", "data"),
        State(graph, "id"),
    )
    def figure(
        look: str | None, _: Any, theme: str | None, search: str, path: str, zooms: Any, which: dict[str, str]
    ) -> Any:
        if which["page"] != path or theme is None or look is None:
            return no_update
        try:
            here = context(path, search)
            drawn = _PAGE_OF[path].figures[which["name"]](here)
        except MoalignError as error:
            drawn = message_figure("", visible(str(error)).replace("<", "‹"))
        _zoom(drawn, (zooms or {}).get(f"{path} {which['name']}"))
        drawn.update_layout(uirevision=f"{path} {which['name']}", height=None, autosize=True)
        plain = drawn.to_plotly_json()
        return recoloured(plain, DARK) if theme == "dark" else plain

    @app.callback(
        Output(panel, "tree"), *settled, Input("version", "data"), State(panel, "id"),
    )  # fmt: skip
    def fill(at: Any, path: str, search: str, _: Any, which: dict[str, str]) -> Any:
        if at is None or which["page"] != path:
            return no_update
        try:
            return tree(_PAGE_OF[path].panels[which["name"]](context(path, search)))
        except MoalignError as error:
            return tree(html.P(visible(str(error)), className="note"))


def _zoom(figure: go.Figure, kept: Any) -> None:
    """Gives a new drawing the ranges and the camera that a user had chosen; the browser reports them as it likes."""
    ranges: dict[str, list[float]] = {}
    for part, value in kept.items() if isinstance(kept, dict) else ():
        axis, _, rest = part.partition(".")
        if rest == "camera" and isinstance(value, dict) and axis in figure.layout:
            figure.layout[axis].camera = value
        elif rest == "range" and isinstance(value, list):
            ranges[axis] = value
        elif rest in ("range[0]", "range[1]"):
            ranges.setdefault(axis, [0.0, 0.0])[int(rest[-2])] = value
    for axis, ends in ranges.items():
        if re.fullmatch(r"[xy]axis\d*", axis) and axis in figure.layout:
            figure.layout[axis].update(range=ends, autorange=False)
