"""Takes pictures of every page of the dashboard, light and dark, in a headless Chromium.

    python docs/screenshots.py runs pictures/ [--study demo]

Pages that a study has nothing for show why. The pictures of the README are front-light.png and compare-light.png.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from pathlib import Path

from moalign_dashboards import Server, create_app
from selenium import webdriver

PAGES = {
    "overview": "/",
    "front": "/front?trial=4",
    "plane": "/front?view=2d",
    "weights": "/weights?probe=.5,.2,.3",
    "parallel": "/parallel",
    "compare": "/compare",
    "blind": "/compare?blind=1",
    "kl": "/kl",
    "users": "/users",
    "quality": "/quality",
    "tuning": "/tuning",
}


def browser(dark: bool) -> webdriver.Chrome:
    """Returns a window of 1200 x 800 pixels."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--use-angle=swiftshader",
                     "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    size = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return driver


def wait(driver: webdriver.Chrome, seconds: float) -> None:
    """Waits until all figures of the page are drawn, and a moment for what follows them."""
    drawn = """const plots = [...document.querySelectorAll("#main .js-plotly-plot")];
    return document.querySelector("#main > *") !== null && !document.querySelector("#main [data-dash-is-loading]") &&
      plots.every((plot) => plot._fullData?.length || plot.layout?.annotations?.length);"""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not driver.execute_script(drawn):
        time.sleep(0.2)
    time.sleep(1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="folder of studies")
    parser.add_argument("pictures", type=Path, help="folder to write to")
    parser.add_argument("--study", default="demo")
    parser.add_argument("--seconds", type=float, default=30.0, help="to wait for each page at most")
    asked = parser.parse_args()
    asked.pictures.mkdir(parents=True, exist_ok=True)
    server = Server(create_app(asked.store), port=0)
    threading.Thread(target=server.run, daemon=True).start()
    for theme in ("light", "dark"):
        driver = browser(theme == "dark")
        for name, path in PAGES.items():
            driver.get(f"{server.address.rstrip('/')}{path}{'&' if '?' in path else '?'}study={asked.study}")
            wait(driver, asked.seconds)
            driver.save_screenshot(str(asked.pictures / f"{name}-{theme}.png"))
        driver.quit()
    server.close()


if __name__ == "__main__":
    main()
