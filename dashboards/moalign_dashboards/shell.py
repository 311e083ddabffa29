"""What is around every page: navigation, study, state, selection, exports; and the drawer at the right."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from moalign.figures import StudyView, visible
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import link, select
from moalign_dashboards.state import State
from moalign_dashboards.words import Words

BEAT_MILLISECONDS = 2000


def frame(pages: tuple[Page, ...]) -> html.Div:
    """Returns the arrangement of everything; callbacks fill it."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="clock", interval=BEAT_MILLISECONDS),
            dcc.Store(id="beat"),
            dcc.Store(id="version"),
            dcc.Store(id="theme"),
            dcc.Store(id="look"),
            dcc.Store(id="settled"),
            dcc.Store(id="zoom"),
            dcc.Store(id="shape"),
            dcc.Store(id="drawer-key"),
            html.A("Skip to the page", href="#main", className="skip"),
            html.Nav(
                [
                    html.Div([html.Span("moalign", className="brand")], className="logo"),
                    html.Div(Words(id="navigation-words", tree=[]), id="navigation"),
                    html.Button("Dark", id="theme-button", type="button", className="theme", n_clicks=0),
                ],
                className="side",
                **{"aria-label": "Pages"},
            ),
            html.Div(
                [
                    html.Header(Words(id="top-words", tree=[]), id="top", className="top"),
                    html.Main(id="main", tabIndex=-1),
                ],
                className="middle",
            ),
            html.Aside(
                [Words(id="drawer-facts", tree=[]), html.Div(id="drawer-curve"), Words(id="drawer-texts", tree=[])],
                id="drawer",
                className="drawer",
                role="complementary",
                **{"aria-label": "Trial"},
            ),
            html.Div(id="live", className="hidden", role="status", **{"aria-live": "polite"}),
        ],
        className="app",
        id="app",
    )


def navigation(pages: tuple[Page, ...], state: State) -> list[Any]:
    """Returns the links to all pages, with what goes along from page to page."""
    return [
        link(page.name, state.link(page.path, page=None), "item current" if page.path == state.path else "item")
        for page in pages
    ]


def top(context: Context) -> list[Any]:
    """Returns the bar above a page: study, its state, the selection, and what can be taken away."""
    study, names = context.study, context.library.names()
    choices = {name: name for name in ([study.name] if study.name not in names else []) + names}
    left = [select("Study", "study", choices, study.name), _pulse(study)]
    return [html.Div(left, className="group"), html.Div([*_selection(context), _exports(context)], className="group")]


def _pulse(study: StudyView) -> html.Div:
    done, failed = study.count("done"), study.count("failed")
    words = [f"{done} of {len(study.trials)} policies"]
    words += [f"{failed} failed"] if failed else []
    return html.Div(
        [html.Span(study.progress, className=f"state {study.progress}"), html.Span(" · ".join(words))],
        className="pulse",
    )


def _selection(context: Context) -> list[Any]:
    selected = context.state.selected
    if selected is None or context.study.view is None:
        return []
    count = len(context.shown.trials)
    text = [html.B(f"{count}"), f" of {len(context.whole.trials)} selected"]
    return [
        link(
            [*text, html.Span("×", className="x")],
            context.link(trials=None, within=None),
            "chip filter",
            title="Show all",
        )
    ]


def _exports(context: Context) -> html.Details:
    study = context.study.name
    trials = context.state.options.get("trials")
    query = f"?trials={trials}" if trials else ""
    items = [
        html.A("CSV: policies shown", href=f"/export/{study}/front.csv{query}", download=""),
        html.A("JSON: policies shown", href=f"/export/{study}/front.json{query}", download=""),
        html.A("HTML: report, one file", href=f"/export/{study}/report.html{query}", download=""),
        html.Button("PNG: figures of this page", type="button", **{"data-image": "png"}),
        html.Button("SVG: figures of this page", type="button", **{"data-image": "svg"}),
    ]
    if context.study.view is None:
        items = items[3:]
    return html.Details([html.Summary("Export"), html.Div(items, className="menu")], className="exports", id="exports")


def gone(name: str | None, names: list[str], root: str, reason: str) -> html.Div:
    """Returns what is shown when the study of the address is not there."""
    body: list[Any] = [html.H2(f"There is no study “{visible(name or '')}” here (any more)."), html.P(visible(reason))]
    if names:
        body.append(html.P(["Studies in ", html.Code(visible(root)), ":"]))
        body.append(html.Ul([html.Li(link(visible(n), State().link("/", study=n))) for n in names]))
    return html.Div(body, className="empty")
