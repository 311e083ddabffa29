"""A real Chromium with a real mouse, and a dashboard of real studies. Without a browser these tests skip."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.exact import WORDS, empty_study, exact_study

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "[/bold] [red]text",
    '=HYPERLINK("http://example.com", "x")',
    "\x1b[31mred\x1b[0m \u202eevil",
    "</pre></script><svg onload=window.pwned=3>",
)


class Page:
    """A browser window on the dashboard."""

    def __init__(self, driver: Any, address: str, downloads: Path) -> None:
        self.driver, self.address, self.downloads = driver, address.rstrip("/"), downloads

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, found: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if value := found():
                    return value
            except Exception as error:
                if "stale" not in str(error):
                    raise
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come; {self.driver.current_url}\n{self.text('body')[:1500]}")

    def text(self, selector: str) -> str:
        code = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText ?? e.textContent).join(' ')"
        return self.js(code, selector)

    def see(self, text: str, selector: str = "body") -> None:
        self.until(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def query(self) -> str:
        return self.js("return decodeURIComponent(window.location.search)")

    def points(self, plot: str = "#main .js-plotly-plot") -> dict[int, tuple[float, float]]:
        """Returns where each trial's mark is on the screen, in a plane or a triangle."""
        found = self.js(
            """const gd = document.querySelector(arguments[0]); if (!gd) return [];
            return [...gd.querySelectorAll('g.trace.scatter path.point')].map((mark) => {
              const trace = mark.closest('g.trace').__data__[0].trace;
              const box = mark.getBoundingClientRect();
              return [[trace.customdata?.[mark.__data__.i]].flat()[0], box.x + box.width / 2, box.y + box.height / 2];
            }).filter((one) => Number.isInteger(one[0]));""",
            plot,
        )
        return {trial: (x, y) for trial, x, y in found}

    def points_in_space(self, plot: str = "#main .js-plotly-plot") -> dict[int, tuple[float, float]]:
        """Returns where each trial's mark of a 3D scene is on the screen, projected as the scene does."""
        found = self.js(
            """const gd = document.querySelector(arguments[0]); const scene = gd?._fullLayout?.scene?._scene;
            const camera = scene?.glplot?.cameraParams; if (!camera || !scene.dataScale) return [];
            const times = (m, v) => [0, 1, 2, 3].map((r) => [0, 1, 2, 3].reduce((s, c) => s + m[4 * c + r] * v[c], 0));
            const box = scene.container.getBoundingClientRect();
            return gd._fullData.filter((t) => t.type === 'scatter3d' && t.customdata).flatMap((t) =>
              [...t.x].map((_, i) => {
                const at = [t.x[i], t.y[i], t.z[i]].map((n, k) => n * scene.dataScale[k]);
                const p = times(camera.projection, times(camera.view, times(camera.model, [...at, 1])));
                return [t.customdata[i][0], box.x + box.width * (0.5 + 0.5 * p[0] / p[3]),
                        box.y + box.height * (0.5 - 0.5 * p[1] / p[3])];
              }));""",
            plot,
        )
        return {trial: (x, y) for trial, x, y in found}

    def mouse(
        self, kind: str, x: float, y: float, shift: bool = False, held: bool = False, control: bool = False
    ) -> None:
        self.driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": "none" if kind == "mouseMoved" and not held else "left",
             "buttons": int(held), "clickCount": int(kind != "mouseMoved"), "modifiers": 8 * shift + 2 * control},
        )  # fmt: skip

    def click(self, x: float, y: float, shift: bool = False, control: bool = False) -> None:
        self.mouse("mouseMoved", x - 3, y - 2, shift, control=control)
        time.sleep(0.15)
        self.mouse("mouseMoved", x, y, shift, control=control)
        time.sleep(0.25)
        self.mouse("mousePressed", x, y, shift, held=True, control=control)
        time.sleep(0.12)  # as long as a finger takes
        self.mouse("mouseReleased", x, y, shift, control=control)

    def drag(self, *path: tuple[float, float]) -> None:
        self.mouse("mouseMoved", *path[0])
        self.mouse("mousePressed", *path[0], held=True)
        for (x0, y0), (x1, y1) in zip(path, path[1:], strict=False):
            for step in range(1, 6):
                self.mouse("mouseMoved", x0 + (x1 - x0) * step / 5, y0 + (y1 - y0) * step / 5, held=True)
                time.sleep(0.02)
        self.mouse("mouseReleased", *path[-1])

    def double_click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                facts = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": count}
                self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", facts)

    def key(self, name: str) -> None:
        codes = {"Escape": 27, "Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        fact = {"key": name, "code": name, "windowsVirtualKeyCode": codes.get(name, ord(name[0]))}
        fact |= {"text": "\r" if name == "Enter" else name} if name == "Enter" or len(name) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **fact})

    def troubles(self) -> list[str]:
        """Returns errors of the console, failed requests, and requests to other machines since the last call."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        asked = 0
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            facts = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                asked += 1
                url = facts["request"]["url"]
                found += [] if url.startswith((self.address, "data:", "blob:", "about:")) else [f"asked {url}"]
            if message["method"] == "Network.responseReceived" and facts["response"]["status"] >= 400:
                found.append(f"{facts['response']['status']} {facts['response']['url']}")
            if message["method"] == "Network.loadingFailed" and not facts.get("canceled"):
                found.append(f"failed: {facts}")
        return found if asked else [*found, "the browser has told of no request"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dashboard") / "runs"
    exact_study(root, "plane", objectives=2, limits={"kl": 1.2})
    exact_study(root, "strict", objectives=3, beta=0.8)
    exact_study(root, "hostile", replies=(*HOSTILE, *WORDS[len(HOSTILE) :]))
    empty_study(root, "unborn")
    failed = empty_study(root, "broken")
    with failed.drive():
        failed.add_trials([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], ["vowels", "short", "unusual"])
        for number in (0, 1):
            failed.set_state(number, "failed", error=f"RewardError: {HOSTILE[0]} returned NaN for 2 of 16 texts")
    exact_study(root, "exact")
    return root


@contextmanager
def serving(app: Any) -> Iterator[Any]:
    """Serves an app on a free port while the block lasts."""
    from moalign_dashboards import Server

    served = Server(app, port=0)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.close()
        thread.join()


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[str]:
    from moalign_dashboards import create_app

    with serving(create_app(folder)) as served:
        yield served.address


def new_chromium(downloads: Path) -> Any:
    """Returns a driver of a headless window of 1200 x 800, or None where there is no browser."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if binary is None or chromedriver is None:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,800", "--no-first-run",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
        "--disable-component-update",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    metrics = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return driver


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    downloads = tmp_path_factory.mktemp("downloads")
    driver = new_chromium(downloads)
    if driver is None:
        pytest.skip("needs Chromium with its driver: apt-get install chromium chromium-driver")
    yield driver, downloads
    driver.quit()


@pytest.fixture
def page(server: str, chromium: tuple[Any, Path]) -> Iterator[Page]:
    """A page that ends without an error in its console and without a request to another machine."""
    driver, downloads = chromium
    driver.get("about:blank")
    driver.get_log("browser"), driver.get_log("performance")
    shown = Page(driver, server, downloads)
    yield shown
    assert not shown.troubles()


def digest(root: Path) -> str:
    """Returns a checksum of everything in a folder but the database's index of its log, which readers share."""
    found = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.name.endswith(("-shm", "-wal"))):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()
