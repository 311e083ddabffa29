"""The scripts that a first view waits for, as short and as early as they can be had."""

from __future__ import annotations

from dash import Dash
from flask import Response, request

from moalign.figures.script import plotly_script

_SUITES = "/_dash-component-suites"
_PLOTLY = f"{_SUITES}/plotly/package_data/plotly.min.js"  # where dash looks for it
# Fetched and compiled while the page is still being put together, because the first figure waits for them.
_EARLY = (_PLOTLY, f"{_SUITES}/dash/dcc/async-graph.js")


def serve(app: Dash) -> None:
    """Gives out the short plotly.js in the place of the whole one, and asks browsers to fetch it first."""
    early = "".join(f'<link rel="preload" as="script" href="{address}">' for address in _EARLY)
    app.index_string = app.index_string.replace("{%css%}", f"{{%css%}}{early}")
    script = plotly_script().encode()

    @app.server.get(_PLOTLY)
    def plotly() -> Response:
        answer = Response(script, mimetype="text/javascript")
        answer.cache_control.no_cache = True  # kept by the browser, asked for again after an update
        answer.add_etag()
        return answer.make_conditional(request)
