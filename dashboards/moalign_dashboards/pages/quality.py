"""Calibration and data: how far the reward models and the data behind them can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import Calibration, DataFacts, calibration_figure, labels_figure, quality_rows, visible
from moalign.figures.quality import Contradiction
from moalign.figures.style import message_figure
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, empty, graph, long_text, panel, table

_CONTRADICTIONS = 15
_NO_CALIBRATION = (
    "No reward model was judged.",
    "A reliability diagram appears once reward models were judged on held-out comparisons.",
)
_JUDGE = "Evaluation(pairs={objective: held-out pairs})"
_NO_DATA = (
    "No report on the data.",
    "Counts, labels, agreement and contradictory pairs appear once the training data were examined.",
)


def _calibration(context: Context) -> Calibration | None:
    return Calibration.load(context.study.folder)


def _data(context: Context) -> DataFacts | None:
    return DataFacts.load(context.study.folder)


def _layout(context: Context) -> Sequence[Any]:
    parts: list[Any] = []
    if _calibration(context) is None:
        parts.append(_missing(context, Calibration, *_NO_CALIBRATION, ", which a run writes with ", _JUDGE))
    else:
        parts.append(
            html.Div(
                [
                    card(graph("/quality", "calibration", 420, "Reliability diagram"), title="Reliability",
                         note="On the diagonal a reward model means what it says; below it is overconfident."),
                    card(panel("/quality", "rewards"), title="Reward models",
                         note="On pairs that nothing was learned from, with 95% intervals; log-loss in nats. Accuracy: "
                         "how often the preferred response has the higher reward. ECE: how far predicted probabilities "
                         "are from observed shares; the noise of few pairs alone gives some."),
                ],
                className="two",
            )
        )  # fmt: skip
    data = _data(context)
    if data is None:
        parts.append(_missing(context, DataFacts, *_NO_DATA, ", written when a study with preference pairs runs"))
    else:
        note = "Contradictory pairs were preferred in both directions; agreement is that of annotators."
        sets = card(panel("/quality", "sets"), title="Data sets", note=note)
        labels = card(graph("/quality", "labels", 420, "Labels"), title="Labels")
        parts.append(html.Div([sets, labels], className="two") if any(s.labels for s in data.sets) else sets)
        parts.append(panel("/quality", "contradictions"))
    return parts


def _missing(
    context: Context, model: type[Calibration] | type[DataFacts], title: str, line: str, how: str, code: str = ""
) -> Any:
    place = ["It reads ", html.Code(str(context.study.folder / model.FILE)), how, html.Code(code) if code else "", "."]
    return empty(title, line, html.Span(place))


def _rewards(context: Context) -> Any:
    calibration = _calibration(context)
    rows = quality_rows(calibration) if calibration else []
    return table(("reward", "accuracy (%)", "log-loss", "ECE (%)", "pairs"), rows, texts=(0,))


def _sets(context: Context) -> Any:
    data = _data(context)
    if data is None:
        return None
    rows = [
        (
            entry.name,
            f"{entry.rows:,}",
            f"{entry.duplicates:,}",
            f"{entry.contradictory:,}",
            "–" if entry.users is None else f"{entry.users:,}",
            "–" if entry.agreement is None else str(entry.agreement),
        )
        for entry in data.sets
    ]
    header = ("data set", "pairs", "duplicates", "contradictory", "users", "agreement")
    notes = [
        html.P([html.B(visible(s.name)), f": {'; '.join(s.notes)}."], className="note") for s in data.sets if s.notes
    ]
    return [table(header, rows, texts=(0,)), *notes]


def _contradictions(context: Context) -> Any:
    data = _data(context)
    found = [pair for entry in (data.sets if data else []) for pair in entry.contradictions][:_CONTRADICTIONS]
    if not found:
        return None
    return card(
        *map(_pair, found), title="Contradictory pairs", note="The same two answers, preferred in both directions."
    )


def _pair(pair: Contradiction) -> html.Article:
    sides = [
        html.Div([html.H3(f"{votes} vote{'s' * (votes != 1)}"), long_text(text)], className="answer")
        for text, votes in ((pair.first, pair.votes_first), (pair.second, pair.votes_second))
    ]
    return html.Article(
        [html.Div(long_text(pair.prompt), className="prompt"), html.Div(sides, className="sides")], className="pair"
    )


def _calibration_figure(context: Context) -> go.Figure:
    calibration = _calibration(context)
    return message_figure("", "No reward model was judged.") if calibration is None else calibration_figure(calibration)


def _labels_figure(context: Context) -> go.Figure:
    data = _data(context)
    return message_figure("", "No data were examined.") if data is None else labels_figure(data)


PAGE = Page(
    path="/quality",
    name="Calibration, data",
    about="How far the reward models, and the data behind them, can be trusted.",
    layout=_layout,
    figures={"calibration": _calibration_figure, "labels": _labels_figure},
    panels={"rewards": _rewards, "sets": _sets, "contradictions": _contradictions},
    needs_front=False,
)
