"""The script that draws figures in a browser: plotly.js with those kinds of traces that are drawn here.

A browser that has never seen a page spends most of its first view on this script. The whole of plotly.js, with its maps
and globes, takes it six times as long; docs/plotly_bundle.cjs says how the shorter one is made.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from plotly.offline import get_plotlyjs, get_plotlyjs_version


@cache
def plotly_script() -> str:
    """Returns plotly.js; the whole of it when the short one was not made for the plotly that is installed."""
    short = asset("plotly.min.js")
    return short if is_short() else get_plotlyjs()


@cache
def is_short() -> bool:
    """Whether pages get the short plotly.js, which compiles no code of its own."""
    return asset("plotly.min.js").startswith(f"/**\n* plotly.js v{get_plotlyjs_version()}\n")


def asset(name: str) -> str:
    """Returns the text of a file of the templates."""
    return resources.files("moalign").joinpath("templates", name).read_text(encoding="utf-8")
