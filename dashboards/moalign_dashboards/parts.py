"""The pieces that pages are made of. Texts are children, which the browser shows as text, never as markup."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from dash import dcc, html

from moalign.figures import CONFIG, visible
from moalign_dashboards.words import Words

_LONG_CELL = 20  # characters of a cell beyond which the mouse shows the whole text
_SHORT = 280  # characters of a text before "show all"
GRAPH_CONFIG: dict[str, Any] = {
    **CONFIG,
    "modeBarButtonsToRemove": ["zoomIn2d", "zoomOut2d", "autoScale2d"],
    "toImageButtonOptions": {"scale": 2, "filename": "moalign"},
}


def graph(page: str, name: str, height: int, label: str) -> html.Div:
    """Returns the place of a named figure; keys zoom and move it while it has the focus, see assets/keys.js."""
    holder = dcc.Graph(
        id={"type": "graph", "page": page, "name": name},
        config=GRAPH_CONFIG,
        style={"height": f"{height}px"},
        responsive=True,
        figure={"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "height": height}},
    )
    more = {"aria-label": label, "aria-keyshortcuts": "+ - 0 ArrowLeft ArrowRight ArrowUp ArrowDown"}
    return html.Div(holder, className="graph", role="group", tabIndex=0, **more)


def panel(page: str, name: str, class_name: str = "") -> html.Div:
    """Returns the place of a named panel."""
    return html.Div(Words(id={"type": "panel", "page": page, "name": name}, tree=[]), className=class_name)


def card(*children: Any, title: str | None = None, note: str | None = None, class_name: str = "") -> html.Section:
    """Returns a framed part of a page."""
    head = [html.H2(title)] if title else []
    head += [html.P(note, className="note")] if note else []
    return html.Section([*head, *children], className=f"card {class_name}".strip())


def fact(name: str, value: str, note: str = "") -> html.Div:
    """Returns a headline number."""
    return html.Div(
        [
            html.Dt(visible(name)),
            html.Dd(visible(value), className="long" if len(value) > 14 else ""),
            html.Dd(visible(note), className="note"),
        ],
        className="fact",
    )


def facts(items: Iterable[html.Div]) -> html.Dl:
    """Returns a row of headline numbers."""
    return html.Dl(list(items), className="facts")


def link(children: Any, href: str, class_name: str = "", **more: Any) -> dcc.Link:
    """Returns a link inside the dashboard."""
    return dcc.Link(
        visible(children) if isinstance(children, str) else children, href=href, className=class_name, **more
    )


def segments(name: str, choices: Mapping[str, str], current: str, hrefs: Mapping[str, str]) -> html.Div:
    """Returns a choice between few: labels by value, the current value, and the address of each."""
    items = [
        link(visible(label), hrefs[value], "segment current" if value == current else "segment")
        for value, label in choices.items()
    ]
    return html.Div([html.Span(name, className="name"), html.Div(items, className="segments")], className="control")


def switch(name: str, on: bool, href: str) -> dcc.Link:
    """Returns something that is on or off."""
    state = "on" if on else "off"
    return link(
        [html.Span(className="box"), f"{name}", html.Span(f" ({state})", className="hidden")], href, f"switch {state}"
    )


def select(name: str, option: str, choices: Mapping[str, str], current: str) -> html.Label:
    """Returns a choice between many; the script writes it into the address."""
    items = [html.Option(visible(label), value=value, selected=value == current) for value, label in choices.items()]
    field = html.Select(items, key=f"{option}={current}", **{"data-option": option, "data-current": current})
    return html.Label([html.Span(name, className="name"), field], className="control")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], texts: Sequence[int] = (), class_name: str = "") -> Any:
    """Returns a table; columns at the positions `texts` are aligned left."""

    def cell(column: int, value: Any, kind: Callable[..., Any]) -> Any:
        class_name = "text" if column in texts else ""
        if not isinstance(value, str):
            return kind(value, className=class_name)
        return kind(
            visible(value), className=class_name, **({"title": visible(value)} if len(value) > _LONG_CELL else {})
        )

    head = html.Thead(html.Tr([cell(i, name, partial(html.Th, scope="col")) for i, name in enumerate(header)]))
    body = html.Tbody([html.Tr([cell(i, value, html.Td) for i, value in enumerate(row)]) for row in rows])
    return html.Div(html.Table([head, body], className=class_name), className="scroll")


def long_text(text: str, empty: str = "(empty)") -> Any:
    """Returns untrusted text as it is, shortened with "show all"."""
    clean = visible(text)
    if not clean:
        return html.Pre(empty, className="missing", dir="auto")
    if len(clean) <= _SHORT:
        return html.Pre(clean, dir="auto")
    summary = html.Summary([html.Pre(f"{clean[:_SHORT]}…", dir="auto"), html.Span("show all", className="more")])
    return html.Details([summary, html.Pre(clean, dir="auto")], className="long-text")


def empty(title: str, *lines: Any, command: str | None = None) -> html.Div:
    """Returns what a page shows when there is nothing to show: why, and what to do."""
    body = [html.H2(title), *(html.P(line) for line in lines)]
    if command:
        body.append(copyable(command))
    return html.Div(body, className="empty")


def copyable(text: str) -> html.Div:
    """Returns a command line with a button that copies it."""
    copy = html.Button("copy", className="copy", type="button", **{"data-copy": text})
    return html.Div([html.Code(visible(text)), copy], className="command")


def when(seconds: float | None) -> str:
    """Returns a time of this machine's clock."""
    return "–" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Returns "3 min 20 s"."""
    whole = max(int(round(seconds)), 0)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60:02d} min"


def plain(value: Any) -> str:
    """Returns a value of a definition as one line of text."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
