"""KL-reward: what each reward costs in distance from the reference policy, and where proxies part from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import cost_figure, over_optimised
from moalign.figures.text import number
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, graph, link, panel, switch, table
from moalign_dashboards.policies import policies


def _layout(context: Context) -> Sequence[Any]:
    rows = (len(context.whole.objectives) + 2) // 3
    return [
        panel("/kl", "controls", "controls"),
        card(
            graph("/kl", "cost", 110 + 340 * rows, "Reward against KL, one panel per objective"),
            html.P(
                "The line joins the best reward at each KL. Click a point for its texts; drag round points to "
                "select them for all pages.",
                className="note hint",
            ),
            class_name="figure",
        ),
        panel("/kl", "over", "block"),
        card(panel("/kl", "policies"), title="Policies"),
    ]


def _controls(context: Context) -> Any:
    on = context.state.on("oracle")
    if context.whole.oracle is None:
        return None
    return [switch("exact optimum", on, context.link(oracle="0" if on else None))]


def _cost(context: Context) -> go.Figure:
    figure = cost_figure(context.views, oracle=context.state.on("oracle"))
    return figure.update_layout(title=None, dragmode="lasso")


def _over(context: Context) -> Any:
    found = over_optimised(context.shown)
    if not found.pairs:
        return html.P(
            "Over-optimisation cannot be judged here: a held-out reward is recorded as a column named "
            "“held_out NAME” beside objective NAME, and this study has none.",
            className="note",
        )
    if not found.flags:
        return html.P(
            f"No sign of over-optimisation: {', '.join(found.pairs)} and their held-out rewards rise together.",
            className="note",
        )
    rows = []
    for flag in found.flags:
        rows.append(
            (
                flag.objective,
                link(str(flag.trial), context.link(trial=flag.trial)),
                number(flag.kl, 3),
                number(flag.proxy_gain, 3),
                number(flag.held_out_loss, 3),
            )
        )
    header = ("objective", "trial", "KL (nats)", "proxy gained", "held-out reward lost")
    return card(
        table(header, rows, texts=(0,)),
        title="Over-optimisation",
        note="Beyond the best held-out reward these policies still gained proxy reward, and lost held-out reward.",
        class_name="warning",
    )


PAGE = Page(
    path="/kl",
    name="KL and reward",
    about="What each reward costs in distance from the reference policy.",
    layout=_layout,
    figures={"cost": _cost},
    panels={"controls": _controls, "over": _over, "policies": policies},
)
