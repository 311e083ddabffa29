"""Tuning: what a search over the fields of a method tried, what it reached, and which field mattered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import Tuning, contour_figure, importance_figure, search_figure, slice_figure
from moalign.figures.style import message_figure
from moalign.figures.text import number, visible
from moalign.figures.tuner import Tried, short_name
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, empty, graph, link, panel, select, table

_MOST_LINKS = 5


def _tuning(context: Context) -> Tuning | None:
    return Tuning.load(context.study.folder)


def _layout(context: Context) -> Sequence[Any]:
    tuning = _tuning(context)
    if tuning is None:
        found = f"{context.study.name}-tuning"
        where: Any = html.Code(visible(found))
        if found in context.library.names():
            where = link(found, context.state.link("/tuning", study=found, trials=None, within=None, trial=None))
        return [
            empty(
                "This study was not tuned.",
                "Slices, contours, importance and the history appear once fields of the method were searched.",
                html.Span([html.Code("moalign tune"), " and ", html.Code("moalign.tune(...)"),
                           " search, and write what they find into a study of its own, ", where, "."]),
            )
        ]  # fmt: skip
    rows = (len(tuning.fields) + 2) // 3
    return [
        html.Div(
            [
                card(graph("/tuning", "search", 300, "History of the search"), title="Search"),
                card(graph("/tuning", "importance", 300, "Importance of fields"), title="Importance"),
            ],
            className="two",
        ),
        card(
            graph("/tuning", "slices", 80 + 280 * max(rows, 1), "Slices"),
            title="Slices",
            note="Later trials are darker.",
        ),
        card(panel("/tuning", "controls", "controls"), graph("/tuning", "contour", 400, "Contour"), title="Contour"),
        card(panel("/tuning", "trials"), title="Trials of the search"),
    ]


def _pair(context: Context, tuning: Tuning) -> tuple[str, str]:
    names = [field.name for field in tuning.fields] or [""]
    return context.state.choice("x", names), context.state.choice("y", names, names[min(1, len(names) - 1)])


def _controls(context: Context) -> Any:
    tuning = _tuning(context)
    if tuning is None:
        return None
    names = {field.name: short_name(field.name) for field in tuning.fields}
    x, y = _pair(context, tuning)
    return [select("x", "x", names, x), select("y", "y", names, y)]


def _trials(context: Context) -> Any:
    tuning = _tuning(context)
    if tuning is None:
        return None
    known = set(context.library.names())
    measured = list(dict.fromkeys(n for t in tuning.trials for n in t.objectives if n != tuning.objective))
    rows = []
    for trial in sorted(tuning.trials, key=lambda t: -(t.value if t.value is not None else float("-inf")))[:30]:
        values = [visible(field.shown(trial.values[field.name])) for field in tuning.fields]
        reached = [number(trial.objectives.get(name)) for name in measured]
        state = visible(trial.state or "–") + (" · on the front" if trial.on_front else "")
        why, made = visible(trial.proposed_by or "–"), _made(context, trial, known)
        rows.append((str(trial.number), made, state, why, *values, *reached, number(trial.value)))
    fields = [short_name(field.name) for field in tuning.fields]
    header = ("trial", "policies", "state", "proposed by", *fields, *measured, tuning.objective)
    return table(header, rows, texts=(1, 2, 3))


def _made(context: Context, trial: Tried, known: set[str]) -> Any:
    """Returns links to what a trial of the search trained: a study, or policies of this one."""
    if trial.study in known:
        return link(trial.study, context.link("/", study=trial.study, trials=None, trial=None))
    if not trial.policies:
        return visible(trial.study or trial.source or "–")
    links = [link(str(policy), context.link(trial=policy)) for policy in trial.policies[:_MOST_LINKS]]
    more = ["…"] if len(trial.policies) > _MOST_LINKS else []
    return html.Span([part for one in links for part in (one, " ")] + more)


def _drawn(draw: Any) -> Any:
    def figure(context: Context) -> go.Figure:
        tuning = _tuning(context)
        return message_figure("", "This study was not tuned.") if tuning is None else draw(context, tuning)

    return figure


PAGE = Page(
    path="/tuning",
    name="Tuning",
    about="What the search tried, what it reached, and which field mattered.",
    layout=_layout,
    figures={
        "search": _drawn(lambda context, tuning: search_figure(tuning)),
        "importance": _drawn(lambda context, tuning: importance_figure(tuning)),
        "slices": _drawn(lambda context, tuning: slice_figure(tuning)),
        "contour": _drawn(lambda context, tuning: contour_figure(tuning, *_pair(context, tuning))),
    },
    panels={"controls": _controls, "trials": _trials},
    needs_front=False,
)
