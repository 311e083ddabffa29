"""Figures of a front: first a view of plain data (`front_view`), then plotly figures that only draw it.

Pass `CONFIG` wherever a figure is shown or written: it removes the button that uploads a figure to a cloud service.
"""

from __future__ import annotations

from moalign.figures.curves import history_figure, kl_figure
from moalign.figures.fronts import draw_front
from moalign.figures.style import CONFIG, DARK, LIGHT, Theme, theme_colors
from moalign.figures.text import visible
from moalign.figures.view import FrontView, OracleCurve, OracleView, front_view
from moalign.figures.weights import weight_figure

__all__ = [
    "CONFIG",
    "DARK",
    "LIGHT",
    "FrontView",
    "OracleCurve",
    "OracleView",
    "Theme",
    "draw_front",
    "front_view",
    "history_figure",
    "kl_figure",
    "theme_colors",
    "visible",
    "weight_figure",
]
