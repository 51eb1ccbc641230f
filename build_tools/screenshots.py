"""Make the pictures of the web pages in docs/images from a server that runs, with Chromium.

    .venv/bin/python -m build_tools.screenshots http://127.0.0.1:8050 --metric GC_MS
    .venv/bin/python -m build_tools.screenshots http://127.0.0.1:8050 --password-file <file>

Any server will do, `make run` starts one; a metric with two months of data makes the better pictures. Look at
them before you commit them.
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from telemetry_lake.project_files import PROJECT_ROOT

IMAGES = PROJECT_ROOT / "docs" / "images"
WIDTH = 1_120
PICTURES = {
    "distribution": ("compare=os", 905),
    "evolution": ("", 1_120),
}
"""What is chosen in each view, and how high its picture is."""
POINTED_AT = (0.45, 0.3)
"""Where in the chart the pointer is, as shares of its width and height."""


OPERATIONS_SIZE = (1_320, 900)
"""Width and height of the picture of the operations page."""


def main() -> int:
    """Make the pictures, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m build_tools.screenshots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", help="of the web pages, as make status shows it")
    parser.add_argument("--metric", default="GC_MS", help="the metric to show (default GC_MS)")
    parser.add_argument(
        "--password-file",
        type=Path,
        help="with the password of admin: make the picture of the operations page",
    )
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("screenshots: Chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if arguments.password_file is not None:
            _operations(browser, arguments.address.rstrip("/"), arguments.password_file.read_text().strip())
            return 0
        for view, (chosen, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            page.goto(f"{arguments.address.rstrip('/')}/{view}?metric={arguments.metric}&{chosen}")
            page.wait_for_selector("#dashboard[aria-busy=false]")
            box = page.locator(f"#chart-{view} svg").first.bounding_box()
            if box is None:
                print(f"screenshots: {page.url} shows no chart", file=sys.stderr)
                return 1
            across, down = POINTED_AT
            page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
            page.screenshot(path=IMAGES / f"{view}.png")
            page.close()
        browser.close()
    return 0


def _operations(browser: Browser, address: str, password: str) -> None:
    width, height = OPERATIONS_SIZE
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(f"{address}/operations")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("#operations")
    page.screenshot(path=IMAGES / "operations.png")
    browser.close()


if __name__ == "__main__":
    sys.exit(main())
