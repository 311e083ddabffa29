"""The short plotly.js: made for the plotly that is installed, with every kind of trace that is drawn."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from moalign.figures import script

ROOT = Path(__file__).parent.parent


@pytest.fixture
def afresh():
    for kept in (script.is_short, script.plotly_script):
        kept.cache_clear()
    yield
    for kept in (script.is_short, script.plotly_script):
        kept.cache_clear()


def test_it_was_made_for_the_plotly_that_is_installed() -> None:
    assert script.is_short(), f"make it for plotly.js {get_plotlyjs_version()}, as docs/plotly_bundle.cjs says"
    text = script.plotly_script()
    assert "Permission is hereby granted, free of charge" in text[:2000] and "Plotly Technologies" in text[:2000]
    assert len(text) < 0.6 * len(get_plotlyjs()) and "</script" not in text.lower()


def test_it_knows_every_trace_that_is_drawn() -> None:
    drawn = set()
    for path in [*(ROOT / "moalign").rglob("*.py"), *(ROOT / "dashboards").rglob("*.py")]:
        drawn |= set(re.findall(r"\bgo\.([A-Z]\w+)\(", path.read_text(encoding="utf-8")))
    kinds = {name.lower() for name in drawn if "type" in getattr(go, name)()}
    assert {"scatter", "scatter3d", "parcoords"} <= kinds
    known = re.search(r"^\* traces: (.+)$", script.plotly_script()[:500], re.MULTILINE)
    assert known is not None and kinds == set(known[1].split(", "))


def test_another_plotly_gets_the_whole_script(monkeypatch: pytest.MonkeyPatch, afresh: None) -> None:
    monkeypatch.setattr(script, "get_plotlyjs_version", lambda: "4.1.10")
    assert not script.is_short() and script.plotly_script() == get_plotlyjs()
