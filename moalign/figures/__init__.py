"""Figures of a front: first a view of plain data (`front_view`), then plotly figures that only draw it.

Pass `CONFIG` wherever a figure is shown or written: it removes the button that uploads a figure to a cloud service.
"""

from __future__ import annotations

from moalign.figures.comparison import Comparison, compare, difference, win_figure
from moalign.figures.cost import cost_figure, over_optimised
from moalign.figures.course import band_figure, failures, history_band, timeline_figure, training_figure
from moalign.figures.curves import history_figure, kl_figure
from moalign.figures.explore import Shown, plane_figure, space_figure
from moalign.figures.fronts import draw_front
from moalign.figures.parallel import brush_figure
from moalign.figures.people import People, accuracy_figure, people_figure, utility_figure
from moalign.figures.probe import Probe, probe, weights_text
from moalign.figures.quality import (
    Calibration,
    DataFacts,
    calibration_figure,
    labels_figure,
    quality_rows,
    reliability,
)
from moalign.figures.study import StudyView, study_view, write_study_report
from moalign.figures.style import CONFIG, DARK, LIGHT, Theme, recoloured, theme_colors
from moalign.figures.text import visible
from moalign.figures.tuner import Tuning, contour_figure, importance_figure, search_figure, slice_figure
from moalign.figures.view import FrontView, OracleCurve, OracleView, front_view
from moalign.figures.weights import weight_figure

__all__ = [
    "CONFIG",
    "Calibration",
    "Comparison",
    "DARK",
    "DataFacts",
    "FrontView",
    "LIGHT",
    "OracleCurve",
    "OracleView",
    "People",
    "Probe",
    "Shown",
    "StudyView",
    "Theme",
    "Tuning",
    "accuracy_figure",
    "band_figure",
    "brush_figure",
    "calibration_figure",
    "compare",
    "contour_figure",
    "cost_figure",
    "difference",
    "draw_front",
    "failures",
    "front_view",
    "history_band",
    "history_figure",
    "importance_figure",
    "kl_figure",
    "labels_figure",
    "over_optimised",
    "people_figure",
    "plane_figure",
    "probe",
    "quality_rows",
    "recoloured",
    "reliability",
    "search_figure",
    "slice_figure",
    "space_figure",
    "study_view",
    "theme_colors",
    "timeline_figure",
    "training_figure",
    "utility_figure",
    "visible",
    "weight_figure",
    "weights_text",
    "win_figure",
    "write_study_report",
]
