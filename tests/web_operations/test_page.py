"""The operations page in a browser: the picture and what turns red in it, on phones, by keyboard."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lake_testing.chromium import (
    CHROMIUM,
    Visitor,
    in_the_way_of_screen_readers,
    launched_chromium,
    silent_visitors,
)

WAIT_MS = 60_000
PHONE_WIDTH = 320
WALL_WIDTH = 2_560
SMALLEST_LETTERS = 9

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the page was not tested in a browser"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Ended with the module: while it runs, no other test could use asyncio.
    with launched_chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser: Browser, site: Any) -> Iterator[Callable[..., Visitor]]:
    """Return a function that makes a visitor; the pages of all of them must be silent."""
    with silent_visitors(browser, site.pages.url, WAIT_MS) as make:
        yield make


@pytest.fixture
def operations(visit: Callable[..., Visitor], site: Any, session: str) -> Callable[..., Page]:
    """Return a function that opens the page for who is logged in."""

    def opened(path: str = "/operations", **options: Any) -> Page:
        visitor = visit(**options)
        visitor.context.add_cookies([{"name": "analyses_session", "value": session, "url": site.pages.url}])
        return visitor.open(path)

    return opened


def shown_picture(page: Page) -> Any:
    return page.locator("svg.way:visible")


def test_from_the_log_in_to_what_is_red_and_back(visit: Callable[..., Visitor], site: Any) -> None:
    page = visit().open("/")
    page.get_by_role("link", name="Operations").first.click()
    page.get_by_label("Name").fill("admin")
    password = site.users_file.with_name("admin_password").read_text().strip()
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
    queue = shown_picture(page).get_by_role("link", name=re.compile("^Queue"))
    expect(queue).to_contain_text("dead letters: 0")
    if site.prometheus is not None:
        expect(page.locator("#verdict")).to_contain_text("Nothing is red.")
    page.locator("#meaning-queue > summary").click()
    page.locator("#part-queue").evaluate("part => part.dataset.kept = 'no'")

    # Nothing is loaded again by hand from here on.
    site.exporter.show("queue_messages", 4, queue="dead_letters", state="waiting")
    try:
        expect(queue).to_contain_text("dead letters: 4")
        expect(page.locator("#meaning-queue")).to_have_attribute("open", "")
        if site.prometheus is not None:
            expect(page.locator("#verdict")).to_contain_text("Red: Queue")
            expect(queue).to_have_accessible_name(re.compile("red since"))
            expect(queue).to_contain_text("▲ red")
            expect(page.locator("#part-queue")).to_contain_text("4 messages are dead letters.")
            assert in_the_way_of_screen_readers(page) == []
    finally:
        site.exporter.show("queue_messages", 0, queue="dead_letters", state="waiting")
    expect(queue).to_contain_text("dead letters: 0")
    if site.prometheus is not None:
        expect(page.locator("#verdict")).to_contain_text("Nothing is red.")
    assert in_the_way_of_screen_readers(page) == []


@pytest.mark.parametrize("width", [PHONE_WIDTH, 700, WALL_WIDTH])
def test_one_picture_fits_every_width(operations: Callable[..., Page], width: int) -> None:
    page = operations("/operations?span=week", viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(shown_picture(page)).to_have_count(1)
    boxes = shown_picture(page).get_by_role("link")
    expect(boxes).to_have_count(10)
    # No text leaves its box, and none is too small to read. In one call: the page is brought up to date.
    outside, height = page.evaluate(
        """() => {
             const isShown = svg => svg.getClientRects().length;
             const picture = [...document.querySelectorAll("svg.way")].find(isShown);
             const leaves = link => {
               const box = link.querySelector("rect").getBoundingClientRect();
               return [...link.querySelectorAll("text")]
                 .filter(text => text.getBoundingClientRect().right > box.right)
                 .map(text => text.textContent);
             };
             return [[...picture.querySelectorAll("a")].flatMap(leaves),
                     picture.querySelector(".box-figure").getBoundingClientRect().height];
           }"""
    )
    assert outside == []
    assert height >= SMALLEST_LETTERS


def test_the_picture_is_walked_by_keyboard_and_leads_to_the_figures(operations: Callable[..., Page]) -> None:
    page = operations()
    first = shown_picture(page).get_by_role("link").first
    first.focus()
    names = []
    for _ in range(10):
        names.append(page.evaluate("document.activeElement.getAttribute('href')"))
        page.keyboard.press("Tab")
    assert names == [
        f"#part-{name}"
        for name in (
            *("edge", "spool", "raw", "queue", "drain", "live", "stable", "aggregates", "cubes"),
            "analyses",
        )
    ]
    first.focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#part-edge")


def test_the_page_works_without_javascript_and_strangers_see_nothing(
    operations: Callable[..., Page], visit: Callable[..., Visitor]
) -> None:
    page = operations(viewport={"width": PHONE_WIDTH, "height": 800}, java_script_enabled=False)
    expect(page.locator("#part-queue")).to_contain_text("Messages")
    page.get_by_role("link", name="Week", exact=True).click()
    expect(page.get_by_role("link", name="Week", exact=True)).to_have_attribute("aria-current", "true")
    page.locator("#numbers-1 > summary").click()
    expect(page.locator("#numbers-1 tbody tr")).to_have_count(168)
    page.get_by_role("link", name="Load it again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
    stranger = visit().open("/operations")
    expect(stranger.get_by_role("heading", level=1)).to_have_text("Log in")
    expect(stranger.locator("svg.way")).to_have_count(0)
