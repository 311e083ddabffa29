"""Many elements become one component, and those that something happens to remain components."""

from __future__ import annotations

import pytest
from dash import dcc, html
from moalign_dashboards.parts import link, panel, table
from moalign_dashboards.words import Words, tree, words


def test_a_table_is_one_component() -> None:
    (found,) = words(table(("trial", "<b>"), [(link("7", "/front?trial=7", "trial"), "<i>x")] * 25))
    assert isinstance(found, Words)
    head, body = found.tree[0][2][2:]
    assert head[2][3] == ["th", {"className": "", "scope": "col"}, "<b>"]
    assert len(body[2:]) == 25 and body[2][0] == "tr"
    first = body[2][2]
    assert first == [
        "td",
        {"className": ""},
        ["a", {"href": "/front?trial=7", "className": "trial", "data-inside": ""}, "7"],
    ]


def test_figures_fields_and_panels_stay_where_they_are() -> None:
    graph, field = dcc.Graph(id="g"), dcc.Input(id="i")
    content = [html.H2("a"), None, "b", html.Div([html.P(3), graph, panel("/", "p")], className="c"), field, html.Hr()]
    before, holder, same, after = words(content)
    assert before.tree == [["h2", {}, "a"], None, "b"] and after.tree == [["hr", {}]] and same is field
    assert isinstance(holder, html.Div) and holder.className == "c"
    assert holder.children[0].tree == [["p", {}, "3"]] and holder.children[1] is graph
    (inside,) = holder.children[2].children
    assert inside.id == {"type": "panel", "page": "/", "name": "p"} and inside.tree == []
    assert tree(html.P("x")) == [["p", {}, "x"]] and tree(None) == []
    with pytest.raises(TypeError, match="more than words"):
        tree([html.P("x"), html.Div(dcc.Graph(id="h"))])
    assert words(None) == [] and words([]) == []
