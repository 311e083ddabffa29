"""How every figure looks: Okabe-Ito colours, readable type, a light page, and no cloud button."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import plotly.graph_objects as go

from moalign.figures.text import label

CONFIG: dict[str, Any] = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

# Okabe-Ito palette, told apart with any common colour vision; shapes differ too, for print without colour.
BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#8A8F98"
# Viridis without what would vanish: its lightest tenth on a light page, its darkest third on a dark one.
SCALE = ("#3b528b", "#2e6e8e", "#23888e", "#1fa287", "#3bbb75", "#75d054", "#bddf26")
_DARK_SCALE = ("#2f6c8e", "#24868e", "#1fa188", "#38b977", "#70cf57", "#b8de29", "#fde725")
_DARK_BLUE = "#3d9fdc"
BAND, THIN = "rgba(0, 114, 178, 0.16)", "rgba(0, 114, 178, 0.45)"  # blue behind others: of an interval, of a line
_DARK_BAND, _DARK_THIN = "rgba(61, 159, 220, 0.3)", "rgba(61, 159, 220, 0.6)"
# Studies drawn over each other.
STUDY_COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", ORANGE, "#56B4E9")
STUDY_SYMBOLS = ("circle", "square", "diamond", "circle", "square", "diamond")
_NO_COLORS = ("x", "y", "z", "a", "b", "c", "customdata", "hovertext", "text")
_FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@final
@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of a page and of the figures on it; figures are drawn light, a page may recolour them."""

    page: str
    text: str
    grid: str
    line: str


LIGHT = Theme(page="#ffffff", text="#1f2430", grid="#e4e7ec", line="#9aa1ad")
DARK = Theme(page="#16181d", text="#e3e6eb", grid="#323742", line="#6b7280")


def themed(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Returns `figure` with title, fonts, light background and room for its labels; height in pixels."""
    axis = {
        "gridcolor": LIGHT.grid,
        "linecolor": LIGHT.line,
        "zeroline": False,
        "tickcolor": LIGHT.line,
        "ticks": "outside",
        "showline": True,
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure.update_layout(
        template="none",
        title={
            "text": title,
            "font": {"size": 17},
            "x": 0.012,
            "xref": "container",
            "xanchor": "left",
            "y": 1 - 16 / height,
            "yref": "container",
            "yanchor": "top",
        },
        font={"family": _FONT, "size": 13, "color": LIGHT.text},
        paper_bgcolor=LIGHT.page,
        plot_bgcolor=LIGHT.page,
        height=height,
        margin={"l": 70, "r": 30, "t": 64, "b": 60},
        hoverlabel={"align": "left", "font": {"family": _FONT, "size": 12}},
        hovermode="closest",
    )


def legend_above(height: int) -> dict[str, Any]:
    """Returns the layout of a legend in rows between title and plot of a figure `height` pixels high."""
    row = {"orientation": "h", "xref": "container", "x": 0.005, "yref": "container", "y": 1 - 46 / height}
    return {"legend": {**row, "yanchor": "top", "itemsizing": "constant"}, "margin_t": 104}


def axis_title(name: str) -> str:
    """Returns the title of an objective's axis with unit and direction."""
    return f"{label(name)} (reward, higher is better)"


def panel_title(name: str) -> str:
    """Returns the title of an objective's axis where several panels stand side by side."""
    return f"{label(name, 18)} (reward)"


def recoloured(figure: dict[str, Any], theme: Theme) -> dict[str, Any]:
    """Returns a drawn figure, as JSON values, with the colours of the light theme exchanged for those of another."""
    colors = theme_colors()
    light, other = colors["light"], colors["dark" if theme == DARK else "light"]
    exchange = {color: other[part] for part, color in light.items()}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            # binary arrays and rows of links hold no colours
            return {key: inner if key in _NO_COLORS else walk(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(inner) for inner in value]
        return exchange.get(value, value) if isinstance(value, str) else value

    return {key: walk(value) for key, value in figure.items()}


def theme_colors() -> dict[str, dict[str, str]]:
    """Returns the colours of both themes by part, also for pages that recolour figures in the browser."""
    marks = {
        "light": (BLUE, BAND, THIN, *SCALE),
        "dark": (_DARK_BLUE, _DARK_BAND, _DARK_THIN, *_DARK_SCALE),
    }
    parts = ("blue", "band", "thin", *(f"scale{i}" for i in range(len(SCALE))))
    pages = {"light": asdict(LIGHT), "dark": asdict(DARK)}
    return {name: {**pages[name], **dict(zip(parts, colors, strict=True))} for name, colors in marks.items()}


def message_figure(title: str, message: str) -> go.Figure:
    """Returns an empty figure that says why there is nothing to draw."""
    figure = themed(go.Figure(), title, height=220)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.add_annotation(text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")


def on_card(figure: go.Figure) -> go.Figure:
    """Gives a figure the frame it has on a card, which bears its title: legend above the plot, narrow margins."""
    legend = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
    return figure.update_layout(title=None, legend=legend, margin={"l": 60, "r": 16, "t": 44, "b": 50})
