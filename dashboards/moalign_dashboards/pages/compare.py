"""Compare: two policies on the same prompts, side by side; blind if wished, with votes in a file of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html

from moalign.figures import Comparison, compare, difference, visible, win_figure
from moalign.figures.comparison import Paired
from moalign.figures.style import message_figure
from moalign.figures.text import between, number, rounded
from moalign.store import load_generations
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, graph, link, long_text, panel, segments, select, switch, table
from moalign_dashboards.votes import CHOICES, read_votes, swapped, votes_file

_PAIRS = 12  # on one page
_MOST_MARKED = 4000  # characters; longer texts are compared without marks
_BALLOT = {"left": "Left is better", "tie": "Equal", "right": "Right is better", "neither": "Both bad"}


def _layout(context: Context) -> Sequence[Any]:
    search = dcc.Input(
        id="compare-search",
        type="search",
        placeholder="Search prompts and answers",
        value=context.state.options.get("find", ""),
        debounce=False,
    )
    wins = graph("/compare", "wins", 90 + 42 * len(context.study.objectives), "Win rates with intervals")
    return [
        panel("/compare", "controls", "controls"),
        html.Div(
            [card(wins, title="Win rate", note="95% Wilson interval over prompts; a tie is half a win."),
             card(panel("/compare", "summary"), title="In numbers")],
            className="two",
        ),
        html.Div(search, className="controls search", **{"data-search": ""}),
        card(panel("/compare", "pairs"), title="Side by side"),
    ]  # fmt: skip


def _trials(context: Context) -> tuple[int, int]:
    """The two trials of the address, or two that differ most: the best of the first and of the last objective."""
    view = context.whole
    a, b = context.state.number("a"), context.state.number("b")
    a = a if a in view.trials else view.trials[int(view.values[:, 0].argmax())]
    if b not in view.trials:
        b = view.trials[int(view.values[:, -1].argmax())]
    if a == b and len(view.trials) > 1:
        b = next(trial for trial in view.trials if trial != a)
    return a, b


def _comparison(context: Context) -> Comparison:
    a, b = _trials(context)
    records = context.library.records(context.study.name)
    return compare(load_generations(records, a), load_generations(records, b), context.study.objectives)


def _blind(context: Context) -> bool:
    return context.state.on("blind", False)


def _controls(context: Context) -> Any:
    a, b = _trials(context)
    names = {str(trial): f"trial {trial}" for trial in context.whole.trials[:2000]}
    sorts = {"disagreement": "Disagreement", "order": "Prompt order"}
    sort = context.state.choice("sort", sorts)
    on = _blind(context)
    exchange = link("swap", context.link(a=b, b=a))
    sorting = segments("Sort by", sorts, sort, {key: context.link(sort=key, page=None) for key in sorts})
    return [
        select("A", "a", names, str(a)),
        exchange,
        select("B", "b", names, str(b)),
        None if on else sorting,  # the order by disagreement would tell which is which
        switch("blind", on, context.link(blind=None if on else "1", page=None)),
    ]


def _wins(context: Context) -> go.Figure:
    if _blind(context):
        return message_figure("", "Hidden while the comparison is blind.")
    a, b = _trials(context)
    if a == b:
        return message_figure("", "Choose two different policies.")
    found = _comparison(context)
    if not found.pairs:
        return message_figure("", "These trials share no prompts.")
    return win_figure(found, f"trial {a}", f"trial {b}")


def _summary(context: Context) -> Any:
    if _blind(context):
        return _ballots(context)
    a, b = _trials(context)
    if a == b:
        return html.P("A policy has nothing over itself.", className="note")
    found, view = _comparison(context), context.whole
    rows = []
    for j, name in enumerate(found.objectives):
        win, gain = found.wins[name], found.gains[name]
        values = [rounded(view.values[context.row_of[trial], j], (gain.high - gain.low) / 2) for trial in (a, b)]
        rate = f"{win.value:.0%}" if win.value == win.value else "–"
        rows.append((name, *values, between(gain.low, gain.value, gain.high), rate))
    kl = [number(view.kl[context.row_of[trial]], 3) for trial in (a, b)]
    rows.append(("KL (nats)", *kl, "", ""))
    header = ("objective", f"A: trial {a}", f"B: trial {b}", "A − B [95%]", "A wins")
    note = f"{len(found.pairs)} pairs of answers to {found.prompts} prompts."
    return [table(header, rows, texts=(0,)), html.P(note, className="note")]


def _ballots(context: Context) -> Any:
    path = votes_file(context.votes, context.study.name)
    a, b = _trials(context)
    votes = [v for v in read_votes(context.votes, context.study.name) if {v.get("left"), v.get("right")} == {a, b}]
    counts = [(f"trial {trial}", str(sum(v.get("winner") == trial for v in votes))) for trial in sorted((a, b))]
    counts += [
        (words, str(sum(v.get("choice") == key for v in votes)))
        for key, words in _BALLOT.items()
        if key not in ("left", "right")
    ]
    return [
        html.P("Which side is which is drawn anew for every pair, and told after the vote.", className="note"),
        table(("preferred", "votes"), counts, texts=(0,)),
        html.P(
            ["Votes are added to ", html.Code(visible(str(path))), "; the store stays untouched."], className="note"
        ),
    ]


def _pairs(context: Context) -> Any:
    if len(set(_trials(context))) == 1:
        only = len(context.whole.trials) == 1
        words = (
            "One policy is evaluated so far; a second one can be compared with it." if only else "Both are the same."
        )
        return html.P(words, className="note")
    found = _comparison(context)
    if not found.pairs:
        return html.P("These trials share no prompts, or no texts were recorded for them.", className="note")
    wanted = context.state.options.get("find", "").casefold()
    pairs = [pair for pair in found.pairs if not wanted or wanted in _all_text(pair)]
    blind = _blind(context)
    if context.state.choice("sort", ("disagreement", "order")) == "disagreement" and not blind:
        pairs.sort(key=lambda pair: -pair.disagreement)
    if not pairs:
        return html.P(f"Nothing holds “{visible(wanted)}”.", className="note")
    pages = (len(pairs) - 1) // _PAIRS + 1
    page = min(context.state.number("page") or 0, pages - 1)
    a, b = _trials(context)
    show = [
        _blind_pair(context, pair, a, b) if blind else _open_pair(pair, a, b)
        for pair in pairs[page * _PAIRS : (page + 1) * _PAIRS]
    ]
    moves: list[Any] = [html.Span(f"{page * _PAIRS + 1}–{min((page + 1) * _PAIRS, len(pairs))} of {len(pairs)}")]
    moves += [link("‹ previous", context.link(page=page - 1))] if page > 0 else []
    moves += [link("next ›", context.link(page=page + 1))] if page + 1 < pages else []
    return [*show, html.Div(moves, className="pager")]


def _all_text(pair: Paired) -> str:
    parts = (pair.a.get("prompt"), pair.a.get("response"), pair.b.get("response"))
    return "\n".join(str(part) for part in parts).casefold()


def _open_pair(pair: Paired, a: int, b: int) -> html.Article:
    texts = str(pair.a.get("response", "")), str(pair.b.get("response", ""))
    marked = difference(*texts) if max(map(len, texts)) <= _MOST_MARKED else None
    sides = []
    for side, (letter, trial, row) in enumerate((("A", a, pair.a), ("B", b, pair.b))):
        body = long_text(texts[side]) if marked is None else _marked(marked[side])
        sides.append(
            html.Div(
                [html.H3(f"{letter} · trial {trial}"), body, _rewards(row, pair, 1 if side == 0 else -1)],
                className="answer",
            )
        )
    return html.Article([_prompt(pair), html.Div(sides, className="sides")], className="pair")


def _blind_pair(context: Context, pair: Paired, a: int, b: int) -> html.Article:
    prompt, sample = pair.a.get("prompt_index"), pair.a.get("sample")
    turned = swapped(context.study.name, a, b, prompt, sample)
    rows = (pair.b, pair.a) if turned else (pair.a, pair.b)
    sides = [
        html.Div([html.H3(name), long_text(str(row.get("response", "")))], className="answer")
        for name, row in zip(("Left", "Right"), rows, strict=True)
    ]
    buttons = [
        html.Button(_BALLOT[key], type="button", className="vote", **{"data-vote": key})
        for key in _BALLOT
        if key in CHOICES
    ]
    outcome = html.Span(className="outcome", role="status")
    facts = {"study": context.study.name, "a": a, "b": b, "prompt": prompt, "sample": sample}
    return html.Article(
        [_prompt(pair), html.Div(sides, className="sides"), html.Div([*buttons, outcome], className="ballot")],
        className="pair",
        key=json.dumps(facts),
        **{"data-pair": json.dumps(facts)},
    )


def _prompt(pair: Paired) -> html.Div:
    return html.Div(long_text(str(pair.a.get("prompt", ""))), className="prompt")


def _marked(pieces: Sequence[tuple[str, str]]) -> Any:
    if not pieces:
        return html.Pre("(empty)", className="missing")
    return html.Pre(
        [html.Mark(visible(text)) if kind == "changed" and text.strip() else visible(text) for kind, text in pieces],
        dir="auto",
    )


def _rewards(row: Mapping[str, Any], pair: Paired, sign: int) -> html.Div:
    chips = []
    for (name, value), gap in zip((row.get("rewards") or {}).items(), pair.differences, strict=False):
        better = " better" if sign * gap > 0 else ""
        chips.append(html.Span([visible(str(name)), " ", html.B(number(value, 3))], className=f"chip{better}"))
    return html.Div(chips, className="chips")


PAGE = Page(
    path="/compare",
    name="Compare",
    about="Two policies on the same prompts, side by side.",
    layout=_layout,
    figures={"wins": _wins},
    panels={"controls": _controls, "summary": _summary, "pairs": _pairs},
)
