"""Users: where everybody stands between the prototypes, and who is served worst. Click a user for the comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import People, accuracy_figure, people_figure, utility_figure
from moalign.figures.people import User
from moalign.figures.style import message_figure
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, empty, fact, facts, graph, link, long_text, panel, table

_ANSWERS = 5


def _people(context: Context) -> People | None:
    return People.load(context.study.folder)


def _layout(context: Context) -> Sequence[Any]:
    people = _people(context)
    if people is None:
        return [
            empty(
                "No users are recorded with this study.",
                "Prototypes, the users between them and the accuracy per user appear once a model of users was fitted.",
                html.Span(["It reads ", html.Code(f"{context.study.folder / People.FILE}"), "; write it with ",
                           html.Code("moalign.facts.save_people(model, heldout, folder)"), "."]),
            )
        ]  # fmt: skip
    parts = [
        panel("/users", "facts"),
        html.Div(
            [
                card(graph("/users", "map", 460, "Users between prototypes"), title="Between the prototypes"),
                card(panel("/users", "user"), title="User", note="Click a user in a figure, or follow a name."),
            ],
            className="two",
        ),
        card(graph("/users", "accuracy", 320, "Accuracy per user"), title="Accuracy per user"),
    ]
    if people.utilities:
        parts.append(
            card(graph("/users", "utility", 360, "Utility per group"), title="What groups gain from each policy")
        )
    return [*parts, card(panel("/users", "table"), title="Worst served")]


def _facts(context: Context) -> Any:
    people = _people(context)
    if people is None:
        return None
    items = [fact("Users", str(len(people.users))), fact("Prototypes", str(len(people.prototypes)))]
    known = [user.accuracy.value for user in people.users if user.accuracy is not None]
    if known:
        items.append(fact("Mean accuracy", f"{sum(known) / len(known):.1%}", "over users, held-out comparisons"))
    if (worst := people.worst()) is not None and worst.accuracy is not None:
        items.append(fact("Worst user", f"{worst.accuracy.value:.1%}", worst.name))
    groups: dict[str, list[float]] = {}
    for user in people.users:
        if user.group is not None and user.accuracy is not None:
            groups.setdefault(user.group, []).append(user.accuracy.value)
    if groups:
        name, values = min(groups.items(), key=lambda item: sum(item[1]) / len(item[1]))
        items.append(fact("Worst group", f"{sum(values) / len(values):.1%}", name))
    return facts(items)


def _user(context: Context) -> Any:
    people = _people(context)
    chosen = context.state.options.get("user")
    user = next((u for u in people.users if u.name == chosen), None) if people else None
    if user is None or people is None:
        return html.P("Nobody is chosen.", className="note")
    rows = [(name, f"{share:.1%}") for name, share in zip(people.prototypes, user.mixture, strict=True)]
    parts: list[Any] = [html.H3(user.name), table(("prototype", "share"), rows, texts=(0,))]
    if user.accuracy is not None:
        parts.append(html.P(f"Accuracy {_accuracy(user)} on {user.comparisons} comparisons.", className="note"))
    for answer in user.answers[:_ANSWERS]:
        verdict = {True: "predicted", False: "not predicted", None: ""}[answer.agreed]
        parts.append(
            html.Article(
                [
                    html.Div(long_text(answer.prompt), className="prompt") if answer.prompt else None,
                    html.Div(long_text(answer.chosen), className="response"),
                    html.Details([html.Summary("rejected", className="note"), long_text(answer.rejected)]),
                    html.Span(verdict, className="chip quiet") if verdict else None,
                ],
                className="generation",
            )
        )
    return parts


def _accuracy(user: User) -> str:
    if user.accuracy is None:
        return "–"
    bounds = user.accuracy.low is not None and user.accuracy.high is not None
    return f"{user.accuracy.value:.0%}" + (f" [{user.accuracy.low:.0%}, {user.accuracy.high:.0%}]" if bounds else "")


def _table(context: Context) -> Any:
    people = _people(context)
    known = [user for user in people.users if user.accuracy is not None] if people else []
    known.sort(key=lambda user: user.accuracy.value if user.accuracy else 0.0)
    rows = []
    for user in known[:15]:
        main = max(range(len(user.mixture)), key=user.mixture.__getitem__)
        nearest = f"{people.prototypes[main]} {user.mixture[main]:.0%}" if people else ""
        name = link(user.name[:60], context.link(user=user.name))
        rows.append((name, user.group or "–", nearest, _accuracy(user), str(user.comparisons)))
    return table(("user", "group", "nearest prototype", "accuracy", "comparisons"), rows, texts=(0, 1, 2))


def _drawn(draw: Any) -> Any:
    def figure(context: Context) -> go.Figure:
        people = _people(context)
        return message_figure("", "No users are recorded with this study.") if people is None else draw(context, people)

    return figure


PAGE = Page(
    path="/users",
    name="Users",
    about="Prototypes, the users between them, and how well each is served.",
    layout=_layout,
    figures={
        "map": _drawn(lambda context, people: people_figure(people, context.state.options.get("user"))),
        "accuracy": _drawn(lambda context, people: accuracy_figure(people)),
        "utility": _drawn(lambda context, people: utility_figure(people)),
    },
    panels={"facts": _facts, "user": _user, "table": _table},
    needs_front=False,
)
