"""Parallel axes: ranges that are brushed with the mouse or typed, and what they select."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from moalign_dashboards.state import read_trials

from moalign.store import Store
from tests.browser.conftest import Page

pytestmark = pytest.mark.slow

AXES = """return Object.fromEntries(document.querySelector('#main .js-plotly-plot')._fullData[0].dimensions
  .filter((axis) => axis.constraintrange).map((axis) => [axis.name, axis.constraintrange]))"""
FIELDS = """return Object.fromEntries([...document.querySelectorAll('input[data-range]')]
  .filter(({ value }) => value).map(({ dataset, value }) => [`${dataset.range} ${dataset.side}`, Number(value)]))"""
AXIS = """const axis = document.querySelectorAll('.parcoords .axis-brush .background')[arguments[0]];
  if (!axis) return null;
  const box = axis.getBoundingClientRect(); return [box.x + box.width / 2, box.top, box.bottom]"""


def option(page: Page, name: str) -> str:
    return parse_qs(page.query().removeprefix("?")).get(name, [""])[0]


def values(folder: Path, objective: int) -> dict[int, float]:
    return {trial.number: trial.values[objective] for trial in Store(folder).study("exact").trials()}


def test_typed_ranges_select_brush_and_stay_in_the_address(page: Page, folder: Path) -> None:
    page.open("/parallel?study=exact")
    page.until(lambda: page.js(AXIS, 6), "axes")
    page.js("document.querySelector('#main .exports summary').focus()")
    field = "return [document.activeElement.dataset.range, document.activeElement.dataset.side]"
    for _ in range(40):  # by key, from the controls above the axes
        page.key("Tab")
        if page.js(field) == ["vowels", "from"]:
            break
    page.driver.execute_cdp_cmd("Input.insertText", {"text": "0.2"})
    wanted = {trial for trial, value in values(folder, 0).items() if value >= 0.2}
    page.until(lambda: read_trials(option(page, "trials")) == wanted, "the policies from 0.2 on")
    page.until(lambda: page.js(AXES).get("vowels", [0])[0] == pytest.approx(0.2), "a brush on the axis")
    assert page.js(field) == ["vowels", "from"] and 0 < len(wanted) < 10
    page.key("Tab")
    page.driver.execute_cdp_cmd("Input.insertText", {"text": "1.5"})
    wanted = {trial for trial, value in values(folder, 0).items() if 0.2 <= value <= 1.5}
    page.until(lambda: read_trials(option(page, "trials")) == wanted, "the policies up to 1.5")
    page.see(f"{len(wanted)} of 10 selected", "#top")
    address = page.query()
    page.open(f"/kl{address}")  # the selection holds elsewhere, and the ranges come back
    page.see(f"{len(wanted)} of 10 selected", "#top")
    page.js("document.querySelector('#navigation a[href^=\"/parallel\"]').click()")
    page.until(lambda: page.js(FIELDS) == {"vowels from": 0.2, "vowels to": 1.5}, "the numbers in their fields")
    page.until(lambda: page.js(AXES).get("vowels") == pytest.approx([0.2, 1.5]), "the brush on its axis")
    page.js("document.querySelector('#top .filter').click()")
    page.until(lambda: not page.js(FIELDS) and not page.js(AXES), "no ranges")
    assert not option(page, "trials") and not option(page, "within")


def test_a_brush_fills_the_fields_and_a_lasso_elsewhere_leaves_its_lines(page: Page, folder: Path) -> None:
    page.open("/parallel?study=exact")
    x, top, bottom = page.until(lambda: page.js(AXIS, 3), "axes")
    page.until(lambda: page.js("return window.moalign.brushed !== undefined"), "the script")
    page.drag((x, top + 5), (x, (top + bottom) / 2 - 20), (x, (top + bottom) / 2))
    page.until(lambda: option(page, "within"), "the range in the address")
    ((low, high),) = json.loads(option(page, "within"))["vowels"]
    inside = {trial for trial, value in values(folder, 0).items() if low <= value <= high}
    assert read_trials(option(page, "trials")) == inside and 0 < len(inside) < 10
    page.until(lambda: page.js(FIELDS).get("vowels from") == pytest.approx(low), "the lower end in its field")
    count = "return document.querySelector('#main .js-plotly-plot')._fullData[0].customdata.map((link) => link[0])"
    assert page.js(count) == list(range(10))
    page.open("/parallel?study=exact&trials=2,5")  # chosen by lasso on another page
    page.until(lambda: page.js(AXIS, 6) and page.js(count) == [2, 5], "the lines of the selection alone")
    page.open('/parallel?study=exact&within={"vowels":[[0,"x"]],"nobody":[[0,1]],"kl":7}')  # nonsense is no range
    page.until(lambda: page.js(AXIS, 6), "axes")
    assert not page.js(AXES) and not page.js(FIELDS)
