"""Debian's chromium, driven by Playwright, and visitors whose pages have to be silent."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from telemetry_lake.project_files import PROJECT_ROOT

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
AXE: Final = PROJECT_ROOT / "web" / "frontend" / "node_modules" / "axe-core" / "axe.min.js"


@dataclass(slots=True)
class Visitor:
    """A browser profile; `noise` is what its pages complained of."""

    context: BrowserContext
    wait_ms: int
    is_ready: Callable[[Page], None] | None
    noise: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Return a page at `path`, once it is ready."""
        page = self.context.new_page()
        page.set_default_timeout(self.wait_ms)
        page.on("console", lambda message: self.noise.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        page.goto(path)
        if self.is_ready is not None:
            self.is_ready(page)
        return page


def in_the_way_of_screen_readers(page: Page, *impacts: str) -> list[tuple[str, ...]]:
    """Return what axe finds in a page, in light and in dark; with `impacts`, only what is of these."""
    page.evaluate(AXE.read_text())
    found: list[tuple[str, ...]] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        violations = page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        found += [
            (scheme, each["id"], each["help"], *[node["html"][:150] for node in each["nodes"]][:3])
            for each in violations
            if not impacts or each["impact"] in impacts
        ]
    return found


@contextmanager
def launched_chromium() -> Iterator[Browser]:
    """Run a chromium. While it runs, nothing else in this process can use asyncio."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def silent_visitors(
    browser: Browser, base_url: str, wait_ms: int, is_ready: Callable[[Page], None] | None = None
) -> Iterator[Callable[..., Visitor]]:
    """Return a function that makes a visitor; at the end the pages of all of them must have been silent."""
    visitors: list[Visitor] = []

    def make(**options: Any) -> Visitor:
        visitors.append(Visitor(browser.new_context(base_url=base_url, **options), wait_ms, is_ready))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.context.close()
        assert visitor.noise == []
