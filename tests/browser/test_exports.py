"""What is taken away with the mouse: the files that arrive in the folder of downloads, and what stands in them."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.browser.conftest import HOSTILE, Page
from tests.exact import BETA, WORDS, begin, empty_study, measured, policies

pytestmark = pytest.mark.slow

STUDY, COLUMN = "taken", '=HYPERLINK("http://example.com")'
CHOSEN = (0, 3)
PIXELS = """const [address, done] = arguments, image = new Image();
image.onerror = () => done(null);
image.onload = () => {
  const canvas = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height });
  const drawing = canvas.getContext('2d');
  drawing.drawImage(image, 0, 0);
  const { data } = drawing.getImageData(0, 0, image.width, image.height);
  const colors = new Set();
  for (let i = 0; i < data.length; i += 4) colors.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
  done([image.width, image.height, colors.size]);
};
image.src = address;"""


@pytest.fixture(scope="module", autouse=True)
def study(folder: Path) -> None:
    """A study whose texts and side column are those of an attacker."""
    weights, replies = np.eye(3)[[0, 1, 2, 0]], (*HOSTILE, *WORDS[len(HOSTILE) :])
    records = empty_study(folder, STUDY)
    with records.drive():
        begin(records, weights, 3)
        for number, optimum in enumerate(policies(weights, 3, BETA)):
            records.set_state(number, "training")
            facts, rows = measured(optimum, 3, seed=number, replies=replies)
            with records.publish(records.trial_folder(number)) as place:
                (place / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            records.finish_trial(number, **{**facts, "columns": {COLUMN: number / 2}})


def click(page: Page, words: str, menu: str = "#exports") -> None:
    """Opens the menu if need be and clicks an entry, both with the mouse."""
    place = """const all = [...document.querySelectorAll(arguments[0])];
    const e = all.find((one) => one.textContent.startsWith(arguments[1])); const b = e?.getBoundingClientRect();
    return b && b.width ? [b.x + b.width / 2, b.y + b.height / 2] : null"""
    if not page.js("return document.querySelector(arguments[0]).open", menu):
        page.click(*page.until(lambda: page.js(place, f"{menu} summary", "Export"), "the menu"))
    page.click(*page.until(lambda: page.js(place, f"{menu} a, {menu} button", words), words))


def arrived(page: Page, name: str) -> Path:
    """Returns a file that the browser has finished."""
    path = page.downloads / name
    page.until(lambda: path.exists() and not list(page.downloads.glob("*.crdownload")), name)
    return path


def test_tables_and_the_report_arrive_with_what_is_selected(page: Page) -> None:
    page.open(f"/front?study={STUDY}&view=2d&trials={','.join(map(str, CHOSEN))}")
    page.see("2 of 4 selected", "#top")
    page.until(lambda: len(page.points()) == 4, "points")
    click(page, "CSV")
    rows = list(csv.DictReader(arrived(page, f"{STUDY}.csv").open(encoding="utf-8", newline="")))
    assert [int(row["trial"]) for row in rows] == list(CHOSEN)
    assert COLUMN not in rows[0] and [float(row[f"'{COLUMN}"]) for row in rows] == [0.0, 1.5]  # inert in a spreadsheet
    shown = page.js("return [...document.querySelectorAll('#main td .trial')].map((link) => Number(link.textContent))")
    assert sorted(shown) == list(CHOSEN)

    click(page, "JSON")
    content = json.loads(arrived(page, f"{STUDY}.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert [point["trial"] for point in content["points"]] == list(CHOSEN) and content["study"] == STUDY
    assert content["points"][1]["columns"][COLUMN] == 1.5
    vowels = [float(row["vowels"]) for row in rows]
    assert [point["values"][0] for point in content["points"]] == pytest.approx(vowels)

    click(page, "HTML")
    report = arrived(page, f"{STUDY}.html")
    assert page.js("return location.pathname") == "/front"  # a download leaves the page where it is
    troubles = page.troubles()
    page.driver.get(report.as_uri())
    page.until(lambda: page.js("return document.querySelectorAll('.js-plotly-plot .main-svg').length"), "figures")
    marks = "return document.querySelectorAll('.js-plotly-plot path.point, .js-plotly-plot canvas').length"
    page.until(lambda: page.js(marks), "marks in the figures")
    page.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    text = page.text("body")
    assert any(words in text for words in HOSTILE[:2]) and "\x1b" not in text and "\u202e" not in text
    assert page.js("return window.pwned") is None
    assert page.js("return document.querySelectorAll('main img, body > img, svg[onload]').length") == 0
    asked = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith((report.as_uri(), "data:", "blob:")) for url in urls), urls
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert not troubles
    page.open("/")


def test_keys_alone_take_a_table_away(page: Page) -> None:
    page.open(f"/parallel?study={STUDY}")
    page.see("4 of 4 policies", "#top")
    (page.downloads / f"{STUDY}.csv").unlink(missing_ok=True)
    page.js("document.querySelector('#top select').focus()")
    focused = "return document.activeElement.textContent"
    for name in ("Tab", "Enter", "Tab", "Enter"):  # to the menu, into it, and its first entry
        page.key(name)
    assert page.js(focused).startswith("CSV")
    assert len(arrived(page, f"{STUDY}.csv").read_text().splitlines()) == 5


def test_pictures_of_all_figures_arrive(page: Page) -> None:
    page.open("/kl?study=plane")
    page.until(lambda: len(page.points()) >= 7, "points")
    for path in page.downloads.glob("moalign-*"):
        path.unlink()
    click(page, "PNG")
    picture = arrived(page, "moalign-1.png").read_bytes()
    box = (
        "const b = document.querySelector('#main .js-plotly-plot').getBoundingClientRect(); return [b.width, b.height]"
    )
    wide, high = page.js(box)
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    width, height, colors = page.driver.execute_async_script(PIXELS, address)
    assert (width, height) == pytest.approx((2 * wide, 2 * high), abs=2) and colors > 50
    click(page, "SVG")
    drawing = arrived(page, "moalign-1.svg").read_text()
    assert drawing.startswith("<svg") and "KL (nats" in drawing and "<script" not in drawing


@pytest.mark.parametrize(("path", "drawn"), [("/kl", ".trace"), ("/parallel", ".parcoords .axis")])
def test_paper_gets_plots_of_its_own_width(page: Page, path: str, drawn: str) -> None:
    page.open(f"{path}?study=plane")
    page.until(lambda: page.js(f"return document.querySelectorAll('#main {drawn}').length"), "a plot")
    wide = "return document.querySelector('#main .js-plotly-plot .svg-container').getBoundingClientRect().width"
    before = page.js(wide)
    page.js("window.dispatchEvent(new Event('beforeprint'))")
    page.until(lambda: page.js(wide) <= 661 < before, "a plot for paper")
    page.js("window.dispatchEvent(new Event('afterprint'))")
    page.until(lambda: page.js(wide) == pytest.approx(before, abs=2), "the plot as it was")


def test_no_button_and_no_link_leaves_the_machine(page: Page) -> None:
    """The bar of a figure can upload it ("Share chart"), and carries a link of its maker, unless it is told not to."""
    buttons = "return [...document.querySelectorAll('#main .modebar-btn')].map((one) => one.dataset.title)"
    for path in ("/front?study=exact&view=2d", "/front?study=exact&view=3d"):
        page.open(path)
        titles = page.until(lambda: page.js(buttons), "the bar of a figure")
        assert "Download plot as a PNG" in " ".join(titles), titles
        assert not [title for title in titles if any(word in title.lower() for word in ("cloud", "share", "plotly"))]
        assert not page.js("return [...document.links].filter((link) => link.origin !== location.origin).length")
