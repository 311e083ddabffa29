"""The dashboard in a real browser, with a real mouse: every click, selection and drag that it promises."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moalign_dashboards import Access, create_app
from moalign_dashboards.state import read_trials

from moalign.figures import People, Tuning
from moalign.figures.people import GroupUtility, User
from moalign.figures.sidecar import Fact
from moalign.figures.tuner import Field, Tried
from moalign.store import Store
from tests.browser.conftest import HOSTILE, Page, digest, serving
from tests.browser.live import RANGE, ServerErrors, Visit
from tests.exact import add, begin, empty_study

pytestmark = pytest.mark.slow


def test_click_in_the_plane_opens_the_drawer(page: Page) -> None:
    page.open("/front?study=exact&view=2d")
    x, y = page.until(lambda: page.points().get(4), "trial 4 in the plane")
    page.click(x, y)
    page.see("Trial 4", "#drawer")
    text = page.text("#drawer")
    for words in ("vowels", "0.333", "KL to the reference", "TRAINING", "Say something", "moalign export exact 4"):
        assert words in text
    assert "trial=4" in page.query()
    page.until(lambda: page.js("return document.querySelectorAll('#drawer .js-plotly-plot').length"), "the curve")
    assert page.js("return document.querySelectorAll('#drawer .generation').length") == 10
    page.key("Escape")
    page.until(lambda: "trial=" not in page.query(), "a closed drawer")


def test_click_in_space_opens_the_drawer(page: Page) -> None:
    page.open("/front?study=exact&view=3d")
    page.until(lambda: len(page.points_in_space()) == 10, "ten points in space")
    time.sleep(0.5)
    x, y = page.points_in_space()[4]
    page.click(x, y)
    page.see("Trial 4", "#drawer")


def test_click_on_the_triangle_opens_the_drawer_and_the_probe_is_dragged(page: Page) -> None:
    page.open("/weights?study=exact")
    x, y = page.until(lambda: page.points().get(1), "trial 1 on the triangle")
    page.click(x, y)
    page.see("Trial 1", "#drawer")
    page.key("Escape")
    page.until(lambda: "trial=" not in page.query(), "a closed drawer")
    time.sleep(1.2)  # the plot takes back the room of the drawer
    box = page.js(
        "const b = document.getElementById('probe-ring').getBoundingClientRect(); return [b.x + 11, b.y + 11]"
    )
    x, y = page.points()[0]  # all weight on the first objective
    page.drag((box[0], box[1]), ((box[0] + x) / 2, (box[1] + y) / 2), (x, y + 10))
    page.until(lambda: "probe=0.9" in page.query(), "the probe near the first corner")
    page.see("trial 0", "#main")
    page.see("interpolated", "#main")
    shares = [float(part) for part in page.query().split("probe=")[1].split("&")[0].split(",")]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    page.js("document.getElementById('probe-ring').focus()")
    page.key("ArrowUp")
    page.until(lambda: f"probe={shares[0]:.3f}" not in page.query(), "a probe that moved by key")


def test_lasso_filters_every_page_and_the_address_restores_it(page: Page) -> None:
    page.open("/front?study=exact&view=2d&bars=0")
    points = page.until(lambda: page.points() if len(page.points()) == 10 else None, "ten points")
    x, y = points[0]
    page.drag((x - 25, y - 25), (x + 25, y - 25), (x + 25, y + 25), (x - 25, y + 25), (x - 25, y - 25))
    page.until(lambda: "trials=" in page.query(), "the selection in the address")
    page.see("of 10 selected", "#top")
    chosen = page.query().split("trials=")[1].split("&")[0]
    page.js("document.querySelector('#navigation a[href^=\"/kl\"]').click()")
    page.until(lambda: 0 < len(page.points()) < 10, "fewer points on the page of KL")
    page.open(f"/parallel?study=exact&trials={chosen}")
    page.see("of 10 selected", "#top")
    rows = "return document.querySelectorAll('#main tbody tr').length"
    page.until(lambda: page.js(rows) == len(read_trials(chosen)), "rows")
    page.js("document.querySelector('#top .filter').click()")
    page.until(lambda: "trials=" not in page.query(), "no selection")


def around(x: float, y: float, size: float = 25) -> list[tuple[float, float]]:
    return [
        (x - size, y - size),
        (x + size, y - size),
        (x + size, y + size),
        (x - size, y + size),
        (x - size, y - size),
    ]


def chosen(page: Page) -> set[int]:
    page.until(lambda: "trials=" in page.query(), "the selection in the address")
    return set(read_trials(page.query().split("trials=")[1].split("&")[0]))


def test_lasso_in_space_selects_what_it_surrounds_and_clicks_still_open(page: Page) -> None:
    page.open("/front?study=exact&view=3d&drag=lasso")
    page.until(lambda: len(page.points_in_space()) == 10, "ten points in space")
    time.sleep(0.5)
    points = page.points_in_space()
    camera = (
        "return JSON.stringify(document.querySelector('#main .js-plotly-plot')._fullLayout.scene._scene.getCamera())"
    )
    before, (x, y) = page.js(camera), points[4]
    page.drag(*around(x, y))
    inside = {trial for trial, (px, py) in points.items() if abs(px - x) < 25 and abs(py - y) < 25}
    assert chosen(page) == inside and page.js(camera) == before
    page.see(f"{len(inside)} of 10 selected", "#top")
    page.click(x, y)
    page.until(lambda: "trial=" in page.query(), "the drawer of a point")
    page.open("/front?study=exact&view=3d")
    page.until(lambda: len(page.points_in_space()) == 10, "ten points in space")
    time.sleep(0.5)
    x, y = page.points_in_space()[4]
    page.drag((x + 60, y + 60), (x + 120, y + 60))
    page.until(lambda: page.js(camera) != before, "a camera that turned")
    assert "trials=" not in page.query()


def test_lasso_on_the_triangle_selects(page: Page) -> None:
    page.open("/weights?study=exact")
    points = page.until(lambda: page.points() if len(page.points()) == 10 else None, "ten points")
    time.sleep(0.5)
    page.drag(*around(*points[9]))  # a corner: nothing else is near
    assert chosen(page) == {9}
    page.see("1 of 10 selected", "#top")
    page.until(lambda: len(page.points()) == 1, "the selected policy alone")


def test_ctrl_click_adds_and_removes(page: Page) -> None:
    page.open("/front?study=exact&view=2d&bars=0&trials=0,9")
    points = page.until(lambda: page.points() if len(page.points()) == 10 else None, "ten points")
    page.click(*points[4], control=True)
    page.until(lambda: "trials=0,4,9" in page.query(), "a third policy in the selection")
    assert "trial=4" not in page.query()
    time.sleep(0.8)
    page.click(*page.points()[9], control=True)
    page.until(lambda: "trials=0,4" in page.query() and "9" not in page.query(), "two policies in the selection")


def test_a_second_shift_click_opens_compare_and_blind_votes_are_kept(page: Page, folder: Path) -> None:
    before = digest(folder)
    page.open("/front?study=exact&view=2d")
    first = page.until(lambda: page.points().get(1), "trial 1")
    page.click(*first, shift=True)
    page.see("Trial 1", "#drawer")
    time.sleep(0.8)  # the plot makes room for the drawer
    page.click(*page.points()[4], shift=True)
    page.until(lambda: "/compare" in page.driver.current_url, "the page of comparisons")
    assert "a=1" in page.query() and "b=4" in page.query()
    page.see("A wins", "#main")
    page.see("24 pairs of answers to 6 prompts", "#main")
    page.until(lambda: page.js("return document.querySelectorAll('#main mark').length"), "marked differences")
    page.open("/compare?study=exact&a=0&b=9&blind=1")
    page.see("Left is better", "#main")
    assert (
        "trial 0" not in page.text(".pair") and page.js("return document.querySelectorAll('.pair .chip').length") == 0
    )
    votes = folder.parent / "runs-votes" / "exact.jsonl"
    assert str(votes) in page.text("#main")
    page.js("document.querySelector('[data-vote=left]').click()")
    page.see("left was trial", "#main")
    vote = json.loads(votes.read_text().splitlines()[-1])
    assert {vote["left"], vote["right"]} == {0, 9} and vote["winner"] == vote["left"] and vote["choice"] == "left"
    assert f"left was trial {vote['left']}" in page.text("#main")
    assert digest(folder) == before


def test_hostile_texts_are_shown_and_do_nothing(page: Page) -> None:
    for path, words in (
        ("/front?study=hostile&view=2d&trial=1&texts=1", "Trial 1"),
        ("/compare?study=hostile&a=0&b=5", "Side by side"),
        ("/?study=broken", HOSTILE[0]),
    ):
        page.open(path)
        page.see(words)
        page.until(lambda: page.js("return document.querySelectorAll('#main .card').length"), "the page")
        time.sleep(0.3)
        assert page.js("return window.pwned") is None
        assert page.js("return document.querySelectorAll('#main img, #drawer img, #main svg[onload]').length") == 0
    page.open("/compare?study=hostile&a=0&b=9&sort=order&find=hyperlink")
    page.until(lambda: "=HYPERLINK(" in page.text("#main") or "Nothing holds" in page.text("#main"), "texts")
    page.open("/front?study=hostile&view=2d&trial=0&texts=1")
    page.see("Generations".upper(), "#drawer")
    assert "\x1b" not in page.text("#drawer") and "\u202e" not in page.text("#drawer")
    shown = "".join(page.js("return [...document.querySelectorAll('#drawer pre')].map(e => e.textContent)"))
    assert any(text in shown for text in HOSTILE)


def test_hostile_names_of_users_and_groups_are_text(page: Page, folder: Path) -> None:
    groups = ("<script>window.pwned = 4</script>", "\x1b[31mred\x1b[0m \u202eevil")
    users = [
        User(name=f"{group} {i}", mixture=[i, 1.0 - i], group=group, accuracy=Fact(value=0.5 + i / 4), comparisons=9)
        for i, group in enumerate(groups)
    ]
    gains = [GroupUtility(group=g, trial=t, utility=Fact(value=float(t or -1))) for g in groups for t in (None, 0, 1)]
    People(prototypes=list(groups), users=users, utilities=gains).save(folder / "plane")
    page.open("/users?study=plane&trials=0")
    page.see("its worst-off group")
    page.see("reference", "#main tbody")
    page.until(lambda: page.js("return document.querySelectorAll('#main .js-plotly-plot .trace').length") >= 6, "plots")
    assert page.js("return window.pwned") is None
    shown = page.text("#main")
    assert "\x1b" not in shown and "\u202e" not in shown and "<script>window.pwned = 4</script>" in shown
    cells = page.js("return [...document.querySelectorAll('#main td:first-child')].map((cell) => cell.textContent)")
    assert "0" in cells and "reference" in cells and "1" not in cells  # a selection of policies holds here, too
    (folder / "plane" / People.FILE).unlink()


def test_studies_lie_over_each_other_and_dark_is_dark(page: Page) -> None:
    page.open("/front?study=exact&view=2d&with=strict&dominated=0")
    page.until(lambda: page.js(
        "return document.querySelectorAll('#main .js-plotly-plot .legendtext').length") >= 2, "a legend")  # fmt: skip
    assert "strict" in page.text("#main .js-plotly-plot .legendtext")
    page.js("document.getElementById('theme-button').click()")
    color = "return getComputedStyle(document.body).color"
    page.until(lambda: page.js(color) in ("rgb(227, 230, 235)", "rgb(31, 36, 48)"), "a theme")
    dark = page.js("return document.documentElement.dataset.theme") == "dark"
    page.until(lambda: page.js("return document.querySelector('#main .js-plotly-plot')._fullLayout.paper_bgcolor")
               == ("#16181d" if dark else "#ffffff"), "the figure in the theme")  # fmt: skip
    page.js("document.getElementById('theme-button').click()")


FOCUSED = """const e = document.activeElement, look = getComputedStyle(e);
return [e.className || e.id || e.tagName, e.textContent.trim().slice(0, 30), look.outlineStyle !== 'none' ||
        e.id === 'drawer-title', document.getElementById('drawer').contains(e)]"""


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.open("/front?study=exact&view=2d")
    page.until(lambda: page.js("return document.querySelectorAll('#main td a.trial').length") == 10, "the table")
    page.until(lambda: len(page.points()) == 10, "ten points")
    stops = []

    def tab() -> list:
        page.key("Tab")
        stops.append(page.js(FOCUSED))
        return stops[-1]

    def until(found, most: int = 60) -> None:
        for _ in range(most):
            if found(tab()):
                return
        raise AssertionError(f"not reached: {stops}")

    until(lambda at: at[0] == "graph")
    places = [place for place, *_ in stops]
    assert places[0] == "skip" and places[1:10] == ["item"] + ["item current"] + ["item"] * 7
    names = [text for _, text, *_ in stops]
    assert (
        names[10] in ("Dark", "Light") and "Export" in names and names.index("2D") < names.index("Overlay") < len(names)
    )
    whole = page.js(RANGE)
    page.key("+")
    page.until(lambda: page.js(RANGE)[1] - page.js(RANGE)[0] < 0.9 * (whole[1] - whole[0]), "a narrower range")
    near = page.js(RANGE)
    page.key("ArrowRight")
    page.until(
        lambda: page.js(RANGE)[0] > near[0] and page.js(RANGE)[2:] == pytest.approx(near[2:]),
        "a range more to the right",
    )
    page.key("0")
    page.until(lambda: page.js(RANGE) == pytest.approx(whole), "the whole plane")
    until(lambda at: at[0].startswith("trial"), 40)
    trial = stops[-1][1]
    page.key("Enter")
    page.see(f"Trial {trial}", "#drawer")
    page.until(lambda: page.js("return document.activeElement.id") == "drawer-title", "the focus in the drawer")
    until(lambda at: at[1] == "add to selection", 10)
    page.key("Enter")
    page.until(lambda: f"trials={trial}" in page.query(), "the trial in the selection")
    page.see("remove from selection", "#drawer")
    until(lambda at: at[1] == "copy", 10)
    assert all(visible for *_, visible, _ in stops), [stop for stop in stops if not stop[2]]
    page.key("Escape")
    page.until(lambda: "trial=" not in page.query(), "a closed drawer")
    page.until(lambda: page.js("return document.activeElement.textContent") == trial, "the focus where it came from")
    page.open("/front?study=exact&view=3d")
    page.until(lambda: len(page.points_in_space()) == 10, "ten points in space")
    page.js("document.querySelector('#main .graph').focus({ focusVisible: true })")
    eye = "return document.querySelector('#main .js-plotly-plot')._fullLayout.scene.camera.eye"
    before = page.js(eye)
    page.key("ArrowLeft")
    page.until(lambda: page.js(eye)["x"] != pytest.approx(before["x"]), "a turned space")
    page.key("0")
    page.until(lambda: page.js(eye) == pytest.approx(before), "the first view")
    page.js("document.activeElement.blur()")
    page.js("document.querySelector('.skip').focus()")
    page.key("Enter")
    page.until(lambda: page.js("return document.activeElement.id") == "main", "the focus on the page")


def test_live_refresh_keeps_zoom_and_selection(page: Page, folder: Path) -> None:
    weights = np.array([trial.weights for trial in Store(folder).study("exact").trials()])
    live = empty_study(folder, "live")
    with live.drive():
        begin(live, weights, 3)
        for number in range(4):
            add(live, number, weights[number], 3)
        page.open("/front?study=live&view=2d&bars=0&trials=0,1&trial=1")
        page.see("running", "#top")
        page.until(lambda: len(page.points()) == 4, "four points")
        page.js("document.querySelector('#main .modebar-btn[data-val=zoom]').click()")
        area = page.js("const b = document.querySelector('#main .nsewdrag').getBoundingClientRect(); return [b.x, b.y]")
        page.drag((area[0] + 90, area[1] + 60), (area[0] + 460, area[1] + 260))
        range_now = "return document.querySelector('#main .js-plotly-plot')._fullLayout.xaxis.range"
        time.sleep(0.3)
        zoom = page.js(range_now)
        for number in range(4, 8):
            add(live, number, weights[number], 3)
        page.see("8 of 10 policies", "#top")
        page.until(lambda: len(page.points()) == 8, "eight points")
        assert zoom[1] - zoom[0] < 4 and page.js(range_now) == pytest.approx(zoom)
        assert "trials=0,1" in page.query() and "Trial 1" in page.text("#drawer")
        page.see("2 of 8 selected", "#top")
    page.see("interrupted", "#top")


def test_a_running_study_is_used_for_a_while_without_an_error(page: Page, folder: Path) -> None:
    """All pages in turn, points, lasso, zoom, themes, while a policy arrives every second; five minutes: `live.py`."""
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=200)
    over = threading.Event()

    def train() -> None:
        records = empty_study(folder, "busy")
        with records.drive():
            begin(records, weights, 3)
            for number in range(len(weights)):
                add(records, number, weights[number], 3)
                if number > 4 and over.wait(1.0):
                    break

    training = threading.Thread(target=train, daemon=True)
    training.start()
    try:
        with ServerErrors() as errors:
            page.until(lambda: (folder / "busy" / "store.db").exists(), "the study")
            visit = Visit(page, "busy")
            visit.during(20)
        assert not errors.found
        assert visit.counts["refreshes with a zoom"] and visit.counts["refreshes with a selection"]
    finally:
        over.set()
        training.join()


def test_empty_failed_and_deleted_studies_have_a_page(page: Page, folder: Path) -> None:
    page.open("/?study=unborn")
    page.see("This study has not begun.")
    page.open("/front?study=unborn")
    page.see("No policy of this study has been evaluated.")
    page.open("/?study=broken")
    page.see("moalign retry broken --failed")
    page.open("/front?study=broken")
    page.see("All policies of this study failed.")
    empty_study(folder, "doomed")
    page.open("/?study=doomed")
    page.see("This study has not begun.")
    shutil.rmtree(folder / "doomed")
    page.see("There is no study “doomed” here (any more).")
    page.open("/users?study=exact")
    page.see("No users are recorded with this study.")


def test_the_page_follows_a_click_after_its_drawer(page: Page) -> None:
    page.open("/front?study=exact&view=2d")
    x, y = page.until(lambda: page.points().get(4), "trial 4 in the plane")
    page.click(x, y)
    page.see("Trial 4", "#drawer")
    link = "return document.querySelector('#navigation a[href^=\"/weights\"]').getAttribute('href')"
    page.until(lambda: "trial=4" in page.js(link), "links that keep the trial")


def test_a_search_appears_while_its_page_is_open(page: Page, folder: Path) -> None:
    page.open("/tuning?study=plane")
    page.see("This study was not tuned.")
    kinds = Field(name="method.kind", low=0.0, high=1.0, options=["cosine", "<b>linear"])
    tried = [
        Tried(number=n, values={"method.kind": float(n)}, value=n / 2, policies=[n], objectives={"vowels": 0.25})
        for n in range(2)
    ]
    Tuning(fields=[kinds], trials=tried).save(folder / "plane")
    page.see("Trials of the search")
    page.see("<b>linear")
    (folder / "plane" / Tuning.FILE).unlink()
    page.see("This study was not tuned.")


def test_the_token_leaves_the_address_and_opens_all_pages(folder: Path, chromium: tuple[Any, Path]) -> None:
    access = Access(token="token-for-this-test-0123456789")
    with serving(create_app(folder, access=access)) as served:
        page = Page(chromium[0], served.address, chromium[1])
        page.driver.delete_all_cookies()
        page.open("/front?study=exact")
        page.see("Open the address that")
        page.driver.get(served.link("exact"))
        page.see("10 of 10 policies", "#top")
        assert "token" not in page.driver.current_url and page.js("return document.cookie") == ""
        page.js("document.querySelector('#navigation a[href^=\"/kl\"]').click()")
        page.until(lambda: len(page.points()) >= 10, "points on the page of KL")
        assert page.js("return performance.getEntriesByType('resource').some(e => e.name.includes('token='))") is False
        page.driver.delete_all_cookies()
        page.open("/")
        page.see("Open the address that")
    page.driver.get("about:blank")
    page.driver.get_log("browser")  # the refusals


def test_the_widget_of_a_front_opens_a_policy_without_a_server(page: Page, folder: Path, tmp_path: Path) -> None:
    from moalign.results import load_front

    page.open("/")  # the fixture expects a request
    for study, view in (("hostile", "space"), ("plane", "plane")):
        widget = load_front(Store(folder).study(study)).widget(height=500)
        holder = tmp_path / f"{study}.html"  # as a notebook shows it: in a frame of its own
        holder.write_text(f"<!DOCTYPE html><body style='margin:0'>{widget._repr_html_()}</body>")
        page.driver.get(holder.as_uri())
        frame = page.driver.find_element("css selector", "iframe")
        page.driver.switch_to.frame(frame)
        page.until(lambda: page.js("return document.querySelector('#figure .main-svg') !== null"), "a figure")
        if view == "plane":
            points = page.until(lambda: page.points("#figure"), "points")
            trial, (x, y) = max(points.items())
        else:
            trial, (x, y) = 4, page.until(lambda: page.points_in_space("#figure").get(4), "trial 4 in space")
            time.sleep(0.5)
        opened = "aside section:not([hidden]) h2"

        def answered(x: float = x, y: float = y, trial: int = trial, opened: str = opened) -> bool:
            page.click(x, y)  # the frame begins at the corner of the window, but for its border
            time.sleep(0.5)
            return f"Trial {trial}" in page.text(opened)

        page.until(answered, f"trial {trial}")  # twice, if a busy machine draws a space too late for a click
        shown = page.text("aside section:not([hidden])")
        assert "KL to the reference policy" in shown and "Say something" in shown
        page.js("const c = document.getElementById('trial'); c.focus()")
        page.key("Escape")
        page.until(lambda: not page.text("aside section:not([hidden])"), "no policy")
        assert (
            page.js("return window.pwned") is None
            and page.js("return document.querySelectorAll('aside img').length") == 0
        )
        page.driver.switch_to.default_content()
    page.driver.get("about:blank")
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    page.driver.get_log("performance"), page.open("/")
