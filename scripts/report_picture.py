"""Photograph the report of a run in Chromium: the README's pictures. Needs chromium and chromedriver (see .ci/run).

python scripts/report_picture.py runs/... docs/images/report.png docs/images/report_steps.png
"""

from __future__ import annotations

import argparse
import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from empg_cli.reports.page.page import write_page
from empg_cli.runs.reading import open_runs

WIDTH = 1180
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--no-proxy-server",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("top", type=Path, help="the picture of tiles and curves")
    parser.add_argument("steps", type=Path, help="the picture of a trajectory's steps, in the dark theme")
    parser.add_argument("--trajectory", default="", help="its address on the page; default: the first with credit")
    parser.add_argument("--until", default="#curves", help="what the picture of the top ends with (a CSS selector)")
    parser.add_argument("--over", default="update", help="the axis of the curves: update, episodes, tokens, hours")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_page(open_runs([args.run]), page)
        driver = _browser(Path(folder) / "profile")
        try:
            driver.get(f"{page.as_uri()}#{args.trajectory}")
            WebDriverWait(driver, 60).until(lambda d: d.execute_script("return !!document.querySelector('.item')"))
            driver.execute_script("document.activeElement.blur()")
            driver.execute_script(
                "const axis = document.getElementById('axis'); axis.value = arguments[0];"
                "axis.dispatchEvent(new Event('change'))", args.over,
            )  # fmt: skip
            _photograph(driver, args.top, "header", args.until)
            driver.execute_script("document.documentElement.dataset.theme = 'dark'")
            _photograph(driver, args.steps, "#trajectories", "#detail tbody tr")
        finally:
            driver.quit()


def _browser(profile: Path) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for switch in (*SWITCHES, f"--window-size={WIDTH},1000", f"--user-data-dir={profile}"):
        options.add_argument(switch)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _photograph(driver: Any, path: Path, first: str, last: str) -> None:
    """The page from the top of one element to the bottom of another; of many, the seventh."""
    measure = (
        "const box = [...document.querySelectorAll(arguments[0])].slice(0, 7).at(-1).getBoundingClientRect();"
        "return [box.top + scrollY, box.bottom + scrollY]"
    )
    top, bottom = driver.execute_script(measure, first)[0], driver.execute_script(measure, last)[1]
    clip = {"x": 0, "y": max(0, top - 20), "width": WIDTH, "height": bottom - top + 40, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
