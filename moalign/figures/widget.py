"""The front with the drawer of a policy beside it, for notebooks: one page in a frame of its own, without a server.

The page needs nothing from anywhere and no running kernel; a notebook that is saved, sent or turned into HTML keeps it.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from moalign import figures
from moalign.figures import report
from moalign.figures.script import asset, plotly_script
from moalign.figures.text import visible
from moalign.front import Front
from moalign.front.tables import write_atomically

_MOST_WITH_TEXTS: Final = 100  # policies; the non-dominated ones come first


@final
@dataclass(frozen=True)
class FrontWidget:
    """A front and its policies as a notebook shows them.

    Attributes:
        page: the whole page; its texts are escaped, its scripts admitted by hash, and it may ask nothing of anywhere.
        height: of the frame, in pixels.
    """

    page: str = field(repr=False)
    height: int = 560

    def _repr_html_(self) -> str:
        look = f"width:100%;height:{self.height}px;border:1px solid rgba(128,128,128,.35);border-radius:8px"
        page = html.escape(self.page, quote=True)
        return f'<iframe title="Front" sandbox="allow-scripts allow-downloads" style="{look}" srcdoc="{page}"></iframe>'

    def save(self, path: str | Path) -> Path:
        """Writes the page as one HTML file; it appears complete or not at all."""
        write_atomically(Path(path), self.page)
        return Path(path)


def front_widget(front: Front, height: int = 560) -> FrontWidget:
    """Returns the widget of a front; what the policies answered is read from the study's folder."""
    plotly, script = plotly_script(), asset("widget.js")
    view = figures.front_view(front)
    with_texts = set(np.argsort(~view.non_dominated, kind="stable")[:_MOST_WITH_TEXTS].tolist())
    members = int(view.non_dominated.sum())
    page = (
        report.environment()
        .get_template("widget.html.j2")
        .render(
            title=visible(front.study),
            lead=visible(f"{front.study}: {members} of {len(front)} policies non-dominated, HV {view.hypervolume}"),
            drawing=report.embedded(_figure(view).to_json()),
            policies=[
                report.policy(front, row, _texts(front[row].policy) if row in with_texts else ())
                for row in range(len(front))
            ],
            settings=report.embedded(json.dumps({"config": report.CONFIG, **figures.theme_colors()}, allow_nan=False)),
            style=Markup(asset("widget.css")),
            plotly=Markup(plotly),
            script=Markup(script),
            policy=report.content_policy(plotly, script),
        )
    )
    return FrontWidget(page, height)


def _texts(policy: Any) -> Any:
    """What a policy answered when it was evaluated; nothing where only numbers were kept."""
    return getattr(policy, "generations", ())


def _figure(view: figures.FrontView) -> go.Figure:
    names = view.objectives
    if len(names) == 1:
        return figures.kl_figure(view)
    if len(names) == 3:
        return figures.space_figure((view,), names)
    return figures.plane_figure((view,), names[0], names[1])
