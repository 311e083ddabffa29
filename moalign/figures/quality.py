"""How far rewards and data can be trusted: calibration of reward models, agreement of annotators, contradictions.

The files `calibration.json` (written by whoever judges reward models on held-out comparisons) and `data.json` (by
whoever reads the training data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import plotly.graph_objects as go
import pydantic

from moalign.arrays import FloatArray
from moalign.figures.sidecar import Fact, Sidecar
from moalign.figures.style import LIGHT, STUDY_COLORS, message_figure, on_card, themed
from moalign.figures.text import label
from moalign.front import wilson

_STRICT = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


class Bin(pydantic.BaseModel):
    """Comparisons whose predicted probability is alike."""

    model_config = _STRICT

    confidence: float  # mean predicted probability of the predicted side, or of the first response
    accuracy: float  # share of comparisons that say so
    count: int


class RewardQuality(pydantic.BaseModel):
    """One reward model on held-out comparisons."""

    model_config = _STRICT

    name: str
    bins: list[Bin]
    accuracy: Fact | None = None
    log_loss: float | None = None  # nats per comparison
    calibration_error: Fact | None = None  # expected calibration error (ECE), in [0, 1]
    comparisons: int = 0


class Calibration(Sidecar):
    """All reward models of a study."""

    FILE: ClassVar[str] = "calibration.json"

    rewards: list[RewardQuality]


class Contradiction(pydantic.BaseModel):
    """One pair that was preferred in both directions; texts are untrusted."""

    model_config = _STRICT

    prompt: str
    first: str
    second: str
    votes_first: int
    votes_second: int


class DataSet(pydantic.BaseModel):
    """What one data set holds."""

    model_config = _STRICT

    name: str
    rows: int
    duplicates: int = 0
    contradictory: int = 0  # pairs preferred in both directions
    labels: dict[str, int] = {}  # how often each label occurs
    agreement: Fact | None = None  # of annotators, such as Krippendorff's alpha
    users: int | None = None
    contradictions: list[Contradiction] = []
    notes: list[str] = []


class DataFacts(Sidecar):
    """All data sets of a study."""

    FILE: ClassVar[str] = "data.json"

    sets: list[DataSet]


def reliability(probabilities: FloatArray, outcomes: FloatArray, bins: int = 10) -> list[Bin]:
    """Returns the bins of a reliability diagram.

    Args:
        probabilities: predicted that the first response is preferred [comparisons], in [0, 1].
        outcomes: 1 where it was, 0 where not [comparisons]; soft labels count by their share.
        bins: of equal width over [0, 1]; empty ones are left out.
    """
    place = np.minimum((np.asarray(probabilities) * bins).astype(int), bins - 1)
    return [
        Bin(
            confidence=float(np.mean(probabilities[place == b])),
            accuracy=float(np.mean(outcomes[place == b])),
            count=int((place == b).sum()),
        )
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_figure(calibration: Calibration, height: int = 420) -> go.Figure:
    """Returns the reliability diagram: observed against predicted; the diagonal is perfect calibration.

    Bars are 95% Wilson intervals of the bins.
    """
    if not any(reward.bins for reward in calibration.rewards):
        return message_figure("", "No reward model was judged on held-out comparisons.")
    figure = go.Figure()
    line = {"color": LIGHT.line, "dash": "dash", "width": 1.5}
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, name="perfect", hoverinfo="skip"))
    for position, reward in enumerate(calibration.rewards):
        bounds = [wilson(b.accuracy * b.count, b.count) for b in reward.bins]
        color = STUDY_COLORS[position % len(STUDY_COLORS)]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [bound.high - b.accuracy for bound, b in zip(bounds, reward.bins, strict=True)],
            "arrayminus": [b.accuracy - bound.low for bound, b in zip(bounds, reward.bins, strict=True)],
            "thickness": 1,
            "width": 3,
            "color": color,
        }
        trace = go.Scatter(x=[b.confidence for b in reward.bins], y=[b.accuracy for b in reward.bins], error_y=error)
        trace.update(
            mode="lines+markers",
            name=label(reward.name),
            line={"color": color, "width": 1.3},
            marker={"size": 9, "symbol": _SYMBOLS[position % len(_SYMBOLS)], "color": color},
            hovertext=[f"predicted {b.confidence:.0%}, observed {b.accuracy:.0%} of {b.count}" for b in reward.bins],
            hoverinfo="text",
        )
        figure.add_trace(trace)
    themed(figure, "", height)
    figure.update_xaxes(title_text="predicted probability", tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(title_text="observed share", tickformat=".0%", range=[-0.02, 1.02])
    return on_card(figure)


def labels_figure(facts: DataFacts, height: int = 420) -> go.Figure:
    """Returns how often each label occurs, one group of bars per data set."""
    some = [entry for entry in facts.sets if entry.labels]
    if not some:
        return message_figure("", "No labels were counted.")
    figure = go.Figure()
    for position, entry in enumerate(some):
        names, counts = [label(name) for name in entry.labels], list(entry.labels.values())
        shares = [count / max(sum(counts), 1) for count in counts]
        texts = [f"{n}: {c} ({s:.1%})" for n, c, s in zip(names, counts, shares, strict=True)]
        color = STUDY_COLORS[position % len(STUDY_COLORS)]
        pattern = {"shape": ("", "/", "x", ".")[position % 4], "bgcolor": color, "fgcolor": LIGHT.page, "size": 8}
        marker = {"color": color, "pattern": pattern}
        figure.add_trace(
            go.Bar(x=names, y=shares, name=label(entry.name), marker=marker, hovertext=texts, hoverinfo="text")
        )
    themed(figure, "", height)
    figure.update_xaxes(title_text="label", type="category").update_yaxes(title_text="share of rows", tickformat=".0%")
    return on_card(figure)


def quality_rows(calibration: Calibration) -> list[Sequence[str]]:
    """Returns one row per reward model: name, accuracy in %, log-loss, calibration error in %, comparisons."""
    return [
        (
            reward.name,
            "–" if reward.accuracy is None else _percent(reward.accuracy),
            "–" if reward.log_loss is None else f"{reward.log_loss:.3f}",
            "–" if reward.calibration_error is None else _percent(reward.calibration_error),
            str(reward.comparisons),
        )
        for reward in calibration.rewards
    ]


def _percent(fact: Fact) -> str:
    bounds = f" [{fact.low:.1%}, {fact.high:.1%}]" if fact.low is not None and fact.high is not None else ""
    return f"{fact.value:.1%}{bounds}".replace("%", "")
