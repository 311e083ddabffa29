"""What a person does with the dashboard of a running study, over and over, and everything that goes wrong meanwhile.

    python -m tests.browser.live --seconds 300

trains policies of the embedded study beside a dashboard, visits all pages, and ends with 1 if anything went wrong.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from tests.browser.conftest import Page

RANGE = (
    "const l = document.querySelector('#main .js-plotly-plot')._fullLayout;return [...l.xaxis.range, ...l.yaxis.range]"
)


class ServerErrors(logging.Handler):
    """Keeps what the server logs as an error, tracebacks among it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))

    def __enter__(self) -> ServerErrors:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


class Visit:
    """Uses a page of a running study with three objectives; every step looks at its effect.

    Attributes:
        counts: steps taken, by name.
    """

    def __init__(self, page: Page, study: str) -> None:
        self.page, self.study = page, study
        self.counts: Counter[str] = Counter()

    def steps(self) -> list[Callable[[], None]]:
        """Returns a round through all pages; each step leaves the page as the next one expects it."""
        plane = [self.to_plane, self.zoom_survives_a_refresh, self.read_a_point, self.lasso_survives_a_refresh]
        pages = [self.weights, self.parallel, self.compare, self.kl, self.users, self.quality, self.tuning]
        return [*plane, self.theme, *pages, self.overview, self.export_menu, self.into_space]

    def during(self, seconds: float) -> None:
        """Takes steps for so long, at least four."""
        end = time.monotonic() + seconds
        self.page.open(f"/front?study={self.study}&view=2d")
        for number, step in enumerate(cycle(self.steps())):
            if number >= 4 and time.monotonic() > end:
                return
            step()
            self.counts[step.__name__] += 1

    # -------------------------------------------------------------------------------------------------- the front

    def to_plane(self) -> None:
        self.go("/front")
        self.page.until(lambda: self.press_link("2D"), "the switch to 2D")
        self.page.until(lambda: "view=2d" in self.page.query() and len(self.page.points()) >= 3, "points in the plane")

    def zoom_survives_a_refresh(self) -> None:
        self.tool("zoom")
        x, y, width, height = self.area()
        before = self.page.js(RANGE)
        self.page.drag((x + 0.2 * width, y + 0.2 * height), (x + 0.8 * width, y + 0.8 * height))
        self.page.until(lambda: self.page.js(RANGE)[1] < before[1], "a zoom")
        time.sleep(0.5)
        zoomed = self.page.js(RANGE)
        if self.news():
            self.counts["refreshes with a zoom"] += 1
        assert self.page.js(RANGE) == zoomed, "the zoom was lost"
        x, y, width, height = self.area()

        def undone() -> bool:
            self.page.double_click(
                x + 0.5 * width, y + 0.97 * height
            )  # twice, if a busy machine takes it for two clicks
            time.sleep(0.4)
            return self.page.js(RANGE)[1] > zoomed[1]

        self.page.until(undone, "the whole plane again")

    def read_a_point(self) -> None:
        self.tool("lasso")
        self.open_drawer()
        self.page.see("Generations".upper(), "#drawer")
        self.page.key("Escape")
        self.page.until(lambda: "trial=" not in self.page.query(), "a closed drawer")
        time.sleep(1.0)  # the plot takes back the room of the drawer

    def lasso_survives_a_refresh(self) -> None:
        self.tool("lasso")
        x, y, width, height = self.area()
        left, right, top, bottom = x + 8, x + width / 2, y + 8, y + height - 8
        self.page.drag((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
        self.page.until(lambda: "trials=" in self.page.query(), "a selection")
        chosen = self.page.query()
        self.page.see("selected", "#top")
        if self.news():
            self.counts["refreshes with a selection"] += 1
        assert self.page.query() == chosen, "the selection was lost"

    def into_space(self) -> None:
        self.go("/front")
        self.page.until(lambda: self.press_link("3D"), "the switch to 3D")
        self.page.until(lambda: len(self.page.points_in_space()) >= 3, "points in space")
        x, y, width, height = self.page.js(
            "const b = document.querySelector('#main .js-plotly-plot').getBoundingClientRect();"
            "return [b.x, b.y, b.width, b.height]"
        )
        self.page.drag((x + 0.4 * width, y + 0.5 * height), (x + 0.6 * width, y + 0.55 * height))

    # ------------------------------------------------------------------------------------------------ other pages

    def weights(self) -> None:
        self.go("/weights")
        self.page.until(lambda: self.page.js("return document.getElementById('probe-ring') !== null"), "the probe")
        self.page.js("document.getElementById('probe-ring').focus()")
        before = self.page.query()
        self.page.key("ArrowUp")
        self.page.until(lambda: self.page.query() != before, "a probe that moved")
        self.page.js("document.querySelector('#top .filter')?.click()")
        self.page.until(lambda: "trials=" not in self.page.query(), "no selection")

    def parallel(self) -> None:
        self.go("/parallel")
        self.page.until(lambda: self.page.js("return document.querySelectorAll('.parcoords .axis').length > 3"), "axes")

    def compare(self) -> None:
        self.go("/compare")
        self.page.see("A wins", "#main")
        self.page.until(lambda: self.press_link("swap"), "the link that swaps")
        self.page.until(lambda: "a=" in self.page.query(), "swapped sides")
        self.page.js("document.getElementById('compare-search').focus()")
        self.page.driver.execute_cdp_cmd("Input.insertText", {"text": "e"})
        self.page.until(lambda: "find=" in self.page.query(), "the search in the address")
        self.page.until(lambda: self.press_link("blind"), "the switch to blind")
        self.page.see("Left is better", "#main")
        self.page.until(lambda: self.press_link("blind"), "the switch back")
        self.page.see("A wins", "#main")

    def kl(self) -> None:
        self.go("/kl")
        self.page.until(lambda: len(self.page.points()) >= 3, "points over the KL")
        self.open_drawer()
        self.page.key("Escape")
        self.page.until(lambda: "trial=" not in self.page.query(), "a closed drawer")

    def users(self) -> None:
        self.go("/users")

    def quality(self) -> None:
        self.go("/quality")

    def tuning(self) -> None:
        self.go("/tuning")

    def overview(self) -> None:
        self.go("/")
        self.page.until(lambda: self.page.js("return document.querySelectorAll('#main .bars path').length"), "bars")

    def theme(self) -> None:
        was = self.page.js("return document.documentElement.dataset.theme")
        self.press("#theme-button")
        self.page.until(lambda: self.page.js("return document.documentElement.dataset.theme") != was, "another theme")

    def export_menu(self) -> None:
        self.press("#exports > summary")
        self.page.until(lambda: self.page.js("return document.getElementById('exports').open"), "the menu")
        self.page.key("Escape")
        self.page.until(lambda: not self.page.js("return document.getElementById('exports').open"), "no menu")

    # ------------------------------------------------------------------------------------------------------ hands

    def go(self, path: str) -> None:
        """Follows a link of the navigation and waits until the figures of the page are drawn."""
        self.press(f"#navigation a[href^='{path}?'], #navigation a[href='{path}']")
        self.page.until(lambda: self.page.js("return location.pathname") == path, path)
        there = (
            "const c = document.querySelector('#navigation .current'), h = document.querySelector('#main h1');"
            "return c?.pathname === arguments[0] && c.textContent === h?.textContent && "
            "[...document.querySelectorAll('#main .js-plotly-plot')].every((gd) => gd.calcdata)"
        )
        self.page.until(lambda: self.page.js(there, path), f"the page {path}", 40)

    def press(self, selector: str) -> None:
        code = (
            "const e = document.querySelector(arguments[0]); if (!e) return null;"
            "e.scrollIntoView({ block: 'nearest' }); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]"
        )
        self.page.click(*self.page.until(lambda: self.page.js(code, selector), selector))

    def press_link(self, words: str) -> bool:
        code = (
            "const all = [...document.querySelectorAll('#main a')];"
            "const e = all.find((a) => a.textContent.trim().startsWith(arguments[0])); e?.click(); return Boolean(e)"
        )
        return bool(self.page.js(code, words))

    def tool(self, name: str) -> None:
        self.page.js("scrollTo(0, 0)")
        self.press(f"#main .modebar-btn[data-val={name}]")
        now = "return document.querySelector('#main .js-plotly-plot')._fullLayout.dragmode"
        self.page.until(lambda: self.page.js(now) == name, f"the tool {name}")

    def area(self) -> list[float]:
        return self.page.js(
            "scrollTo(0, 0); const b = document.querySelector('#main .nsewdrag').getBoundingClientRect();"
            "return [b.x, b.y, b.width, b.height]"
        )

    def open_drawer(self) -> None:
        """Clicks points until one answers; a refresh may move the plot below the mouse."""
        for attempt in range(5):
            trial, (x, y) = sorted(self.page.points().items())[-1 - attempt]
            self.page.click(x, y)
            try:
                self.page.until(lambda: "Trial " in self.page.text("#drawer h2"), f"the drawer of trial {trial}", 4)
                return
            except AssertionError:
                continue
        raise AssertionError("no point answers a click")

    def news(self, seconds: float = 15) -> bool:
        """Waits until the page shows a further policy; whether it did."""
        words = self.page.text("#top .pulse")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.page.text("#top .pulse") != words:
                time.sleep(0.7)  # the figure follows
                return True
            time.sleep(0.2)
        return False


def _train(folder: str) -> None:
    from dataclasses import replace

    import moalign as ma
    from moalign.demo import toy_study
    from moalign.search import Dirichlet

    study = toy_study(name="live", steps=60, samples=4, pairs=400)
    ma.run(replace(study, weights=None, search=Dirichlet(trials=400, batch=3)), store=folder)


def _main(seconds: float) -> int:
    import subprocess
    import tempfile

    from moalign_dashboards import create_app

    from tests.browser.conftest import new_chromium, serving

    with tempfile.TemporaryDirectory(prefix="moalign-") as folder, ServerErrors() as errors:
        training = subprocess.Popen([sys.executable, __file__, "train", folder], stdout=subprocess.DEVNULL)
        driver = new_chromium(Path(folder))
        try:
            with serving(create_app(folder)) as served:
                page = Page(driver, served.address, Path(folder))
                page.open("/front?study=live&view=2d")
                page.until(lambda: len(page.points()) >= 3, "three trained policies", 240)
                started, visit, wrong = time.monotonic(), Visit(page, "live"), []
                try:
                    visit.during(seconds)
                except AssertionError as error:
                    wrong.append(str(error))
                wrong += [*page.troubles(), *errors.found]
                took, shown = time.monotonic() - started, page.text("#top .pulse")
        finally:
            driver.quit()
            training.terminate()
            training.wait()
    print(f"{took:.0f} s with a running study ({shown}), {visit.counts.total()} steps: {dict(visit.counts)}")
    print("\n".join(wrong) if wrong else "no error in the console, no failed request, no traceback of the server")
    return int(bool(wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        _train(sys.argv[2])
    else:
        import argparse

        asked = argparse.ArgumentParser(description="A live dashboard, used for some minutes.")
        asked.add_argument("--seconds", type=float, default=300.0)
        sys.exit(_main(asked.parse_args().seconds))
