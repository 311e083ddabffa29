"""Users and prototypes: where users stand between the prototypes, and how well each is served.

The file `people.json`, written by whoever fits a model of users (an ideal-point model, groups of annotators).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import plotly.graph_objects as go
import pydantic

from moalign.arrays import FloatArray
from moalign.figures.sidecar import Fact, Sidecar
from moalign.figures.style import BLUE, GREY, LIGHT, ORANGE, SCALE, VERMILLION, message_figure, on_card, themed
from moalign.figures.text import label

_STRICT = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
_MOST_BARS = 60


class Answer(pydantic.BaseModel):
    """One comparison that a user made; texts are untrusted."""

    model_config = _STRICT

    prompt: str
    chosen: str
    rejected: str
    agreed: bool | None = None  # whether the model of users prefers `chosen`, too


class User(pydantic.BaseModel):
    """One user: the mixture of prototypes, the accuracy on held-out comparisons, some comparisons."""

    model_config = _STRICT

    name: str
    mixture: list[float]  # one share per prototype, sum 1
    accuracy: Fact | None = None  # in [0, 1]
    comparisons: int = 0
    group: str | None = None
    answers: list[Answer] = []


class GroupUtility(pydantic.BaseModel):
    """What one group gains from one policy."""

    model_config = _STRICT

    group: str
    trial: int | None  # None is the reference policy
    utility: Fact  # reward units


class People(Sidecar):
    """Everybody.

    Attributes:
        prototypes: their names, one per entry of a mixture.
        users: in any order.
        places: of the prototypes in a plane of the preference space; None spreads them on a circle.
        utilities: of groups under policies of the study.
    """

    FILE: ClassVar[str] = "people.json"

    prototypes: list[str]
    users: list[User]
    places: list[tuple[float, float]] | None = None
    utilities: list[GroupUtility] = []

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.prototypes)
        if not count:
            raise ValueError("prototypes is empty")
        if self.places is not None and len(self.places) != count:
            raise ValueError(f"{len(self.places)} places for {count} prototypes")
        for user in self.users:
            if len(user.mixture) != count or min(user.mixture) < -1e-6 or abs(sum(user.mixture) - 1) > 1e-3:
                raise ValueError(f"the mixture of user {user.name!r} is not {count} shares >= 0 with sum 1")
        return self

    def worst(self) -> User | None:
        """Returns the user of lowest held-out accuracy."""
        known = [user for user in self.users if user.accuracy is not None]
        return min(known, key=lambda user: user.accuracy.value if user.accuracy else 1.0, default=None)


def people_places(people: People) -> tuple[FloatArray, FloatArray]:
    """Returns prototypes [prototypes, 2] and users [users, 2] in a plane; a user is the mixture of the prototypes."""
    count = len(people.prototypes)
    if people.places is not None:
        corners = np.array(people.places, dtype=np.float64)
    elif count == 2:
        corners = np.array([[-1.0, 0.0], [1.0, 0.0]])
    else:
        angles = np.pi / 2 - 2 * np.pi * np.arange(count) / count
        corners = np.column_stack([np.cos(angles), np.sin(angles)]) * (count > 1)
    mixtures = np.array([user.mixture for user in people.users], dtype=np.float64).reshape(-1, count)
    return corners, mixtures @ corners


def people_figure(people: People, chosen: str | None = None, height: int = 460) -> go.Figure:
    """Returns the map: prototypes as corners, users between them, coloured by accuracy where it is known."""
    if not people.users:
        return message_figure("", "There are no users yet.")
    corners, places = people_places(people)
    span = max(float(np.ptp(corners)), 1e-9)
    shifts = _apart(places, 0.022 * span)
    places = places + shifts
    known = [user.accuracy.value if user.accuracy else None for user in people.users]
    figure = go.Figure()
    outline = [*corners.tolist(), corners[0].tolist()]
    x, y = zip(*outline, strict=True)
    figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line={"color": LIGHT.grid}, hoverinfo="skip", showlegend=False))
    marker: dict[str, object] = {"size": 9, "color": BLUE, "line": {"width": 1, "color": LIGHT.page}}
    if all(value is not None for value in known):
        bar = {
            "orientation": "h",
            "y": -0.02,
            "yanchor": "top",
            "thickness": 12,
            "outlinewidth": 0,
            "tickformat": ".0%",
        }
        bar |= {"title": {"text": "accuracy on held-out comparisons", "side": "top", "font": {"size": 12}}}
        lowest = min(0.5, *(value for value in known if value is not None))
        marker |= {"cmin": lowest, "cmax": 1.0}
        marker |= {"color": known, "colorscale": list(SCALE), "colorbar": bar, "showscale": True}
    texts = [_user_text(people, user) for user in people.users]
    dots = go.Scatter(x=places[:, 0], y=places[:, 1], mode="markers", marker=marker)
    links = [[user.name] for user in people.users]
    figure.add_trace(dots.update(name="user", customdata=links, hovertext=texts, hoverinfo="text"))
    stars = {"symbol": "diamond", "size": 15, "color": ORANGE, "line": {"width": 1.2, "color": LIGHT.text}}
    names = [label(name) for name in people.prototypes]
    far = 0.07 * span + float(np.linalg.norm(shifts, axis=1).max())  # the corners themselves belong to users
    outside = corners + _outwards(corners) * far
    middle = corners.mean(axis=0)
    inwards = [
        "center" if abs(x - middle[0]) < 0.1 * span else "right" if x < middle[0] else "left" for x in corners[:, 0]
    ]
    sides = [f"{'top' if y >= middle[1] else 'bottom'} {side}" for y, side in zip(corners[:, 1], inwards, strict=True)]
    prototypes = go.Scatter(x=outside[:, 0], y=outside[:, 1], mode="markers+text", text=names, marker=stars)
    figure.add_trace(prototypes.update(textposition=sides, name="prototype", hoverinfo="text", hovertext=names))
    rows = [row for row, user in enumerate(people.users) if user.name == chosen]
    if rows:
        ring = {"symbol": "circle-open", "size": 19, "color": VERMILLION, "line": {"width": 2.5, "color": VERMILLION}}
        at = places[rows]
        figure.add_trace(
            go.Scatter(x=at[:, 0], y=at[:, 1], mode="markers", marker=ring, name="chosen", hoverinfo="skip")
        )
    themed(figure, "", height)
    (low, bottom), (high, top) = outside.min(axis=0), outside.max(axis=0)
    room = 0.12 * span  # for the names at the corners
    figure.update_xaxes(visible=False, range=[low - 2 * room, high + 2 * room], constrain="domain")
    figure.update_yaxes(visible=False, range=[bottom - room, top + room], scaleanchor="x", constrain="domain")
    return on_card(figure).update_layout(margin={"l": 8, "r": 8, "b": 64 if "colorbar" in marker else 8})


def _outwards(corners: FloatArray) -> FloatArray:
    """Returns the direction away from the middle for each corner [corners, 2]; upwards for a single one."""
    away = corners - corners.mean(axis=0)
    length = np.linalg.norm(away, axis=1, keepdims=True)
    return np.where(length > 0, away / np.maximum(length, 1e-9), [0.0, 1.0])


def _apart(places: FloatArray, step: float) -> FloatArray:
    """Returns shifts [users, 2] that lay users of one place side by side, as seeds of a sunflower."""
    shifts = np.zeros_like(places)
    rank: dict[tuple[float, ...], int] = {}
    for row, place in enumerate(places):
        key = tuple((place / (4 * step)).round())
        position = rank[key] = rank.get(key, -1) + 1
        radius, angle = step * np.sqrt(position), position * np.pi * (3 - np.sqrt(5))
        shifts[row] = radius * np.cos(angle), radius * np.sin(angle)
    return shifts


def accuracy_figure(people: People, height: int = 320) -> go.Figure:
    """Returns the accuracy per user with intervals, the worst first; the dashed line is the mean over users."""
    users = sorted((u for u in people.users if u.accuracy), key=lambda u: u.accuracy.value if u.accuracy else 0.0)
    if not users:
        return message_figure("", "No held-out accuracy was measured.")
    shown = users[:_MOST_BARS]
    facts = [user.accuracy for user in shown if user.accuracy is not None]
    mean = float(np.mean([user.accuracy.value for user in users if user.accuracy]))
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [(f.high - f.value) if f.high is not None else 0.0 for f in facts],
        "arrayminus": [(f.value - f.low) if f.low is not None else 0.0 for f in facts],
        "color": GREY,
        "thickness": 1,
        "width": 2,
    }
    trace = go.Scatter(x=list(range(1, len(shown) + 1)), y=[f.value for f in facts], error_y=bars, mode="markers")
    links, texts = [[u.name] for u in shown], [_user_text(people, user) for user in shown]
    trace.update(
        marker={"size": 8, "color": BLUE}, customdata=links, hovertext=texts, hoverinfo="text", showlegend=False
    )
    figure = themed(go.Figure(trace), "", height)
    figure.add_hline(y=mean, line={"color": GREY, "dash": "dash"}, annotation_text=f"mean {mean:.0%}")
    figure.add_hline(y=0.5, line={"color": LIGHT.line, "dash": "dot"}, annotation_text="chance")
    more = f"; the worst {len(shown)} of {len(users)}" if len(shown) < len(users) else ""
    figure.update_xaxes(title_text=f"users, from worst to best{more}")
    return on_card(figure.update_yaxes(title_text="held-out accuracy", tickformat=".0%", range=[0, 1.05]))


def shown_utilities(people: People, selected: frozenset[int] | None = None) -> dict[int | None, dict[str, Fact]]:
    """Returns each policy's utilities by group, the reference policy (None) first; of the selected trials only."""
    found: dict[int | None, dict[str, Fact]] = {}
    for entry in sorted(people.utilities, key=lambda entry: -1 if entry.trial is None else entry.trial):
        if entry.trial is None or selected is None or entry.trial in selected:
            found.setdefault(entry.trial, {})[entry.group] = entry.utility
    return found


def worst_group(utilities: Mapping[str, Fact]) -> str:
    """Returns the name of the group that a policy serves worst."""
    return min(utilities, key=lambda group: utilities[group].value)


def utility_figure(people: People, selected: frozenset[int] | None = None, height: int = 360) -> go.Figure:
    """Returns what each group gains from each policy; rings mark the worst-off group, its best policy is filled.

    Args:
        people: with utilities.
        selected: trials to be shown beside the reference policy; None for all.
        height: in pixels.
    """
    shown = shown_utilities(people, selected)
    if not shown:
        return message_figure("", "No utilities of groups were recorded.")
    groups = sorted({group for utilities in shown.values() for group in utilities})
    policies = list(shown)
    figure = go.Figure()
    for position, group in enumerate(groups):
        at = [place for place, policy in enumerate(policies) if group in shown[policy]]
        facts = [shown[policies[place]][group] for place in at]
        shift = 0.36 * (position - (len(groups) - 1) / 2) / max(len(groups), 2)  # bars of groups beside each other
        color = _COLORS[position % len(_COLORS)]
        bars = {"type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": color}
        bars |= {"array": [0.0 if f.high is None else f.high - f.value for f in facts]}
        bars |= {"arrayminus": [0.0 if f.low is None else f.value - f.low for f in facts]}
        trace = go.Scatter(x=[place + shift for place in at], y=[f.value for f in facts], mode="markers", error_y=bars)
        named = zip((_policy(policies[place]) for place in at), facts, strict=True)
        texts = [f"{policy}, {label(group)}: {fact}" for policy, fact in named]
        links = [None if policies[place] is None else [policies[place]] for place in at]
        marker = {"size": 9, "symbol": _SYMBOLS[position % len(_SYMBOLS)], "color": color}
        figure.add_trace(
            trace.update(name=label(group), marker=marker, customdata=links, hovertext=texts, hoverinfo="text")
        )
    lowest = [min(fact.value for fact in shown[policy].values()) for policy in policies]
    shifts = [
        place + 0.36 * (groups.index(worst_group(shown[policy])) - (len(groups) - 1) / 2) / max(len(groups), 2)
        for place, policy in enumerate(policies)
    ]
    best = int(np.argmax(lowest))
    sizes = [21 if place == best else 17 for place in range(len(policies))]
    widths = [3.5 if place == best else 1.5 for place in range(len(policies))]
    ring = {"symbol": "circle-open", "size": sizes, "line": {"width": widths}, "color": VERMILLION}
    marks = go.Scatter(x=shifts, y=lowest, mode="markers", marker=ring, hoverinfo="skip")
    figure.add_trace(marks.update(name="worst-off group (bold: highest)"))
    themed(figure, "", height)
    figure.update_xaxes(
        title_text="trial", tickvals=list(range(len(policies))), showgrid=False,
        ticktext=["reference" if policy is None else str(policy) for policy in policies],
    )  # fmt: skip
    return on_card(figure.update_yaxes(title_text="mean utility (reward, higher is better)"))


def _policy(trial: int | None) -> str:
    return "reference policy" if trial is None else f"trial {trial}"


_COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILLION)
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


def _user_text(people: People, user: User) -> str:
    shares: Sequence[str] = [f"{label(n)} {s:.0%}" for n, s in zip(people.prototypes, user.mixture, strict=True)]
    lines = [f"<b>{label(user.name)}</b>", "<br>".join(shares)]
    if user.accuracy is not None:
        lines.append(f"accuracy {user.accuracy.value:.0%} of {user.comparisons}")
    return "<br>".join(lines)
