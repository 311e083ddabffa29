"""Users: where everybody stands between the prototypes, and which groups the policies serve worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import People, accuracy_figure, people_figure, utility_figure, visible
from moalign.figures.people import User, shown_utilities, worst_group
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
                "Prototypes, the users between them, and what each group of them gains from each policy.",
                html.Span(["A run fills it where the objectives are those of a model of people (",
                           html.Code("people.as_objectives()"), ") or groups (", html.Code("MaxMin"), ", ",
                           html.Code("GroupDPO"), "); accuracies need ", html.Code("Evaluation(comparisons=...)"),
                           "."]),
            )
        ]  # fmt: skip
    parts = [panel("/users", "facts")]
    if people.users:
        between = card(graph("/users", "map", 460, "Users between prototypes"), title="Between the prototypes")
        user = card(
            panel("/users", "user"),
            title="User",
            note="Click a user in a figure, or follow a name; at first the least predictable one.",
            class_name="limited",
        )
        parts.append(html.Div([between, user], className="two"))
    if people.utilities:
        utility = graph("/users", "utility", 380, "Utility per group; the table below holds the same numbers")
        note = "Mean over held-out prompts, bars are 95% intervals. Click a point to read what its policy answers."
        parts.append(card(utility, title="What groups gain from each policy", note=note))
        parts.append(card(panel("/users", "utilities"), title="Utilities"))
    if any(user.accuracy is not None for user in people.users):
        parts.append(card(graph("/users", "accuracy", 320, "Accuracy per user"), title="Accuracy per user"))
        parts.append(card(panel("/users", "table"), title="Least predictable users"))
    return parts


def _facts(context: Context) -> Any:
    people = _people(context)
    if people is None:
        return None
    items = [fact("Users", str(len(people.users))), fact("Prototypes", str(len(people.prototypes)))]
    if not people.users:
        items = [fact("Groups", str(len(people.prototypes)), "the objectives of the study")]
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
        items.append(fact("Least predictable group", f"{sum(values) / len(values):.1%}", name))
    served = {trial: found for trial, found in shown_utilities(people).items() if trial is not None}
    if served:
        best = max(served, key=lambda trial: min(utility.value for utility in served[trial].values()))
        group = worst_group(served[best])
        note = f"its worst-off group {group} has {served[best][group]}"
        items.append(fact("Fairest policy", f"trial {best}", note))
    return facts(items)


def _chosen(context: Context, people: People) -> User | None:
    """Returns the user of the address; the least predictable one without."""
    name = context.state.options.get("user")
    return next((user for user in people.users if user.name == name), people.worst())


def _user(context: Context) -> Any:
    people = _people(context)
    user = _chosen(context, people) if people else None
    if user is None or people is None:
        return html.P("Nobody is chosen.", className="note")
    rows = [(name, f"{share:.1%}") for name, share in zip(people.prototypes, user.mixture, strict=True)]
    parts: list[Any] = [html.H3(visible(user.name)), table(("prototype", "share"), rows, texts=(0,))]
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


def _utilities(context: Context) -> Any:
    people = _people(context)
    shown = shown_utilities(people, context.state.selected) if people else {}
    groups = sorted({group for utilities in shown.values() for group in utilities})
    rows = []
    for trial, utilities in shown.items():
        name = "reference" if trial is None else link(str(trial), context.link(trial=trial), "trial")
        values = [str(utilities[group]) if group in utilities else "–" for group in groups]
        rows.append((name, *values, worst_group(utilities)))
    return table(("policy", *groups, "worst-off group"), rows, texts=(len(groups) + 1,))


def _map(context: Context, people: People) -> go.Figure:
    chosen = _chosen(context, people)
    return people_figure(people, chosen.name if chosen else None)


def _drawn(draw: Any) -> Any:
    def figure(context: Context) -> go.Figure:
        people = _people(context)
        return message_figure("", "No users are recorded with this study.") if people is None else draw(context, people)

    return figure


PAGE = Page(
    path="/users",
    name="Users",
    about="Prototypes, the users between them, and what groups of them gain from each policy.",
    layout=_layout,
    figures={
        "map": _drawn(_map),
        "accuracy": _drawn(lambda context, people: accuracy_figure(people)),
        "utility": _drawn(lambda context, people: utility_figure(people, context.state.selected)),
    },
    panels={"facts": _facts, "user": _user, "table": _table, "utilities": _utilities},
    needs_front=False,
)
