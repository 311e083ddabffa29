"""Methods over each other: what reward their policies gain for how much KL, under the optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from moalign.figures.style import GREY, STUDY_COLORS, STUDY_SYMBOLS, legend_above, themed
from moalign.figures.text import label

HEIGHT = 520


def method_figure(
    points: Mapping[str, Sequence[tuple[float, float]]],
    best: Sequence[tuple[float, float]],
    of_best: str = "exact optimum, mean",
) -> go.Figure:
    """Returns (KL, gain) of the methods, means over preference weights, under the curve of the optimum.

    The optimum of one beta for all weights has the largest mean gain for its mean KL, so nothing lies above the curve.

    Args:
        points: mean KL in nats and mean gain in weighted reward over the base, by method; one per seed.
        best: the same of the optimum at a range of beta, ordered by KL.
        of_best: name of that curve.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[k for k, _ in best], y=[g for _, g in best], mode="lines", name=label(of_best),
        line={"color": GREY, "width": 2},
    )  # fmt: skip
    for i, (name, of) in enumerate(points.items()):
        figure.add_scatter(
            x=[k for k, _ in of], y=[g for _, g in of], mode="markers", name=label(name),
            marker={
                "color": STUDY_COLORS[i % len(STUDY_COLORS)],
                "symbol": [*STUDY_SYMBOLS[:3], "cross", "x", "triangle-up", "star", "hexagon"][i % 8],
                "size": 9, "opacity": 0.75,
            },
        )  # fmt: skip
    figure.update_xaxes(title="KL to the base, nats per response, mean over weights", rangemode="tozero")
    figure.update_yaxes(title="gain in w · R over the base, mean over weights")
    figure = themed(figure, "What methods gain for their KL", HEIGHT)
    figure.update_layout(**legend_above(HEIGHT))
    return figure
