"""The dashboard on 10,000 policies: the first view of the front, and the answer to a click, in a real browser.

The study holds exact optima at random weights, stored before the clock starts; the server has just started and has read
nothing yet when the first page is asked for. A view is there when the points are drawn; a click is answered when the
drawer shows the trial. Wall time, as a user waits. Rows are limit / measured, so 1 is the promise kept.
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

_DRAWN = """const gd = document.querySelector('#main .js-plotly-plot');
if (!gd || !gd._fullData || !gd.calcdata) return 0;
return gd._fullData.filter((t) => t.visible === true && t.customdata).reduce((n, t) => n + t.customdata.length, 0);"""
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


def first_view(driver: Any, address: str) -> float:
    """Returns the seconds until all points of the front are drawn."""
    driver.get("about:blank")
    start = time.perf_counter()
    driver.get(f"{address}front?view=2d")
    until(lambda: driver.execute_script(_DRAWN) >= TRIALS)
    return time.perf_counter() - start


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
    """Returns both rows, and the time of the very first page of a server that has read nothing."""
    from tests.exact import large_study

    with tempfile.TemporaryDirectory(prefix="moalign-") as folder:
        large_study(Path(folder), TRIALS)
        code = "import sys; from moalign_dashboards import Server, create_app\n"
        code += "s = Server(create_app(sys.argv[1]), 0); print(s.address, flush=True); s.run()"
        server = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        driver = browser()
        try:
            cold = first_view(driver, address)
            views = [first_view(driver, address) for _ in range(options.repeats(3, 9))]
            clicks = [click(driver, 7 * row + 1) for row in range(options.repeats(5, 15))]
        finally:
            driver.quit()
            server.kill()
    return [
        _row(f"first view of {TRIALS:,} policies, server and browser cold", FIRST_VIEW, [cold], None),
        _row(f"first view of {TRIALS:,} policies", FIRST_VIEW, views, 1.0),
        _row(f"a click among {TRIALS:,} policies", CLICK, clicks, 1.0),
    ]


def _row(what: str, limit: float, seconds: list[float], floor: float | None) -> Row:
    ratios = [limit / s for s in seconds]
    middle = statistics.median(seconds)
    return Row(f"{what} ({middle:.2f} s)", f"limit of {limit:g} s", limit / middle, min(ratios), max(ratios), floor)


if __name__ == "__main__":
    run(measure, parse("The dashboard on 10,000 policies, in a real browser."), ("dash", "plotly"))
