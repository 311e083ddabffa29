"""The dashboard on 10,000 policies: the first view of a page, and the answer to a click, in a real browser.

The study holds exact optima at random weights, stored before the clock starts. A view is there when all figures with
all points and the tables are on the screen; a click is answered when the drawer shows the trial. Wall time, as a user
waits, from the address to the screen. The browser runs, and has finished its own start; on its first visit it has
nothing of the dashboard (a new tab and process, nothing fetched, nothing compiled), else it has been here twice. The
server runs, too: its start is a row of its own. Rows are limit / measured, so 1 is the promise kept.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import Options, Row, parse, run

TRIALS = 10_000
FIRST_VIEW, CLICK = 2.0, 0.3  # seconds
SETTLING = 4.0  # seconds that a browser is busy with itself after its start
PAGES = {"overview": ("", 0), "front": ("front?view=2d", TRIALS)}  # address, and marks that can be clicked

_SERVE = """import sys
from moalign_dashboards import Server, create_app
server = Server(create_app(sys.argv[1]), 0)
print(server.address, flush=True)
server.run()"""

# Notes in the page itself when all is there and on the screen, so that asking does not hold up the drawing.
_WATCH = """(() => {
  const there = () => {
    const plots = [...document.querySelectorAll('#main .js-plotly-plot')];
    const traces = plots.flatMap((gd) => (gd.calcdata ? gd._fullData : []));
    const points = traces.reduce((n, t) => n + (t.visible === true ? (t.customdata ?? []).length : 0), 0);
    const full = plots.length && plots.every((gd) => gd.calcdata?.length && gd.data.length);
    return full && points >= POINTS && document.querySelectorAll('#main tbody tr').length > 2;
  };
  const look = () => {
    if (!there()) { setTimeout(look, 5); return; }
    const seen = () => { window.seen = performance.timeOrigin + performance.now(); };
    requestAnimationFrame(() => requestAnimationFrame(seen));
  };
  if (window.location.protocol === 'http:') look();
})();"""
_SPOT = """const gd = document.querySelector('#main .js-plotly-plot'), l = gd._fullLayout;
const box = gd.getBoundingClientRect(), t = gd._fullData.filter((t) => t.name === 'non-dominated').pop();
const i = arguments[0] % t.customdata.length, across = l.xaxis._offset + l.xaxis.d2p(t.x[i]);
return [box.x + across, box.y + l.yaxis._offset + l.yaxis.d2p(t.y[i])];"""


def browser() -> Any:
    """Returns a headless Chromium.

    Raises:
        SystemExit: there is none.
    """
    from selenium import webdriver

    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver is None:
        raise SystemExit("needs Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1200,800", "--use-angle=swiftshader",
                     "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Returns what `found` finds, asked every 10 ms."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if value := found():
            return value
        time.sleep(0.01)
    raise TimeoutError("the page did not come")


def first_view(driver: Any, address: str, points: int) -> float:
    """Returns the seconds from the address to the page on the screen, with so many marks that can be clicked."""
    driver.get("about:blank")
    watch = {"source": _WATCH.replace("POINTS", str(points))}
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", watch)
    start = time.time()
    driver.get(address)
    seen = until(lambda: time.sleep(0.2) or driver.execute_script("return window.seen"))
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    return seen / 1000 - start


def forget(driver: Any) -> None:
    """Makes it a browser that was never here: a new tab with a new process, nothing fetched, nothing compiled."""
    old = driver.current_window_handle
    driver.switch_to.new_window("tab")
    new = driver.current_window_handle
    driver.switch_to.window(old)
    driver.close()
    driver.switch_to.window(new)
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    time.sleep(0.5)


def click(driver: Any, row: int) -> float:
    """Returns the seconds from the release of the button to the trial in the drawer."""
    time.sleep(1.0)  # the plot makes room for the drawer
    x, y = driver.execute_script(_SPOT, row)
    mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
    for dx in (4, 0):
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + dx, "y": y})
        time.sleep(0.3)
    before = driver.execute_script("return document.getElementById('drawer-title')?.textContent ?? ''")
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mousePressed", "buttons": 1, **mouse})
    start = time.perf_counter()
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseReleased", **mouse})
    title = "return document.getElementById('drawer-title')?.textContent ?? ''"
    until(lambda: driver.execute_script(title) not in ("", before), 10)
    return time.perf_counter() - start


def measure(options: Options) -> list[Row]:
    """Returns the rows, the server's start among them."""
    from tests.exact import large_study

    cold: dict[str, list[float]] = {page: [] for page in PAGES}
    warm: dict[str, list[float]] = {page: [] for page in PAGES}
    with tempfile.TemporaryDirectory(prefix="moalign-") as folder:
        large_study(Path(folder), TRIALS)
        start = time.perf_counter()
        server = subprocess.Popen([sys.executable, "-c", _SERVE, folder], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        started = time.perf_counter() - start
        try:
            with browser() as driver:
                time.sleep(SETTLING)
                for page, (path, points) in PAGES.items():
                    for _ in range(options.repeats(5, 9)):
                        forget(driver)
                        cold[page].append(first_view(driver, address + path, points))
                    first_view(driver, address + path, points)  # a browser keeps compiled scripts of a second visit
                    warm[page] += [first_view(driver, address + path, points) for _ in range(options.repeats(5, 9))]
                clicks = [click(driver, 7 * row + 1) for row in range(options.repeats(5, 15))]
        finally:
            server.kill()
    rows = [_row("start of the server", FIRST_VIEW, [started], None)]
    for page in PAGES:
        rows.append(_row(f"{page} of {TRIALS:,} policies, first visit", FIRST_VIEW, cold[page], 1.0))
        rows.append(_row(f"{page} of {TRIALS:,} policies, seen before", FIRST_VIEW, warm[page], 1.0))
    return [*rows, _row(f"a click among {TRIALS:,} policies", CLICK, clicks, 1.0)]


def _row(what: str, limit: float, seconds: list[float], floor: float | None) -> Row:
    ratios = [limit / s for s in seconds]
    middle = statistics.median(seconds)
    return Row(f"{what} ({middle:.2f} s)", f"limit of {limit:g} s", limit / middle, min(ratios), max(ratios), floor)


if __name__ == "__main__":
    run(measure, parse("The dashboard on 10,000 policies, in a real browser."), ("dash", "plotly"))
