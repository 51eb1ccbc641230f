"""The analysis service in a browser: the way of 2014 from the log-in to a shared result, without a manual."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lake_testing.analysis_runs import begun_run, end_run, ended_run, printed, progressed
from lake_testing.chromium import (
    CHROMIUM,
    Visitor,
    in_the_way_of_screen_readers,
    launched_chromium,
    silent_visitors,
)
from telemetry_lake.analysis_jobs.store import JobStore
from telemetry_lake.storage.object_store import ObjectStore

WAIT_MS = 60_000
PHONE_WIDTH = 320

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the pages were not tested in a browser"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Ended with the module: while it runs, no other test could use asyncio.
    with launched_chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser: Browser, service: Any) -> Iterator[Callable[..., Visitor]]:
    """Return a function that makes a visitor; the pages of all of them must be silent."""
    with silent_visitors(browser, service.pages.url, WAIT_MS) as make:
        yield make


def log_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=WAIT_MS)


@pytest.mark.slow
@pytest.mark.usefixtures("filled")
def test_the_way_of_2014_from_the_log_in_to_a_shared_result(
    visit: Callable[..., Visitor], service: Any
) -> None:
    page = visit().open("/analyses/new")
    log_in(page, "ada", "a password of ada")
    page.get_by_label("Start from an example").select_option("os_column")
    page.get_by_role("button", name="Take it").click()
    expect(page.get_by_label("Script", exact=True)).to_have_value(re.compile("def map"))

    page.get_by_label("Name").fill("Not a name")
    expect(page.locator("#name-check")).to_contain_text("small letters")
    page.get_by_label("Name").fill("systems")
    expect(page.locator("#name-check")).to_have_text("This name is free.")
    page.get_by_label("Description").fill("Which systems?")
    page.get_by_label("Dates (UTC)").fill("all")
    page.get_by_role("button", name="Count").click()
    expect(page.locator("#matching")).to_have_text("72 of 72 pings of these dates.", timeout=2 * WAIT_MS)
    linux = page.locator('[data-values="normalized_os"] button', has_text="Linux")
    expect(linux).to_have_text(re.compile(r"Linux \d+"))
    linux.click()
    expect(page.get_by_label("System")).to_have_value("Linux")
    expect(page.locator("#matching")).to_have_text(re.compile(r"^\d+ of 72 pings"), timeout=WAIT_MS)
    page.get_by_label("System").fill("")
    expect(page.locator("#matching")).to_have_text("72 of 72 pings of these dates.", timeout=WAIT_MS)
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#trial")).to_contain_text("72 pings", timeout=2 * WAIT_MS)
    expect(page.get_by_label("Output")).to_contain_text(re.compile(r"\t\d+"))
    page.get_by_label("Dates (UTC)").fill("last-7-days")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("systems")
    assert in_the_way_of_screen_readers(page) == []

    # Airflow would run it now: what its tasks leave behind is written here.
    settings = service.lake.settings
    store = ObjectStore(settings.s3)
    run_id = ended_run(
        settings, store, JobStore(store, settings.s3.lake_bucket).get("systems"), b"Linux\t3\nWINNT\t12\n"
    )
    page.reload()
    page.get_by_role("region", name="Runs").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("success")
    expect(page.get_by_role("region", name="Result")).to_contain_text("WINNT")
    expect(page.locator("svg.bars rect")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the result").click()
    assert download.value.path().read_bytes() == b"Linux\t3\nWINNT\t12\n"
    assert in_the_way_of_screen_readers(page) == []

    page.get_by_role("link", name="systems").click()
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Repeat").select_option("daily")
    page.get_by_label("Hour (UTC)").select_option("4")
    page.get_by_label("Visible to").select_option("public")
    assert in_the_way_of_screen_readers(page) == []
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".facts-list")).to_contain_text("daily at 04:00 UTC")
    expect(page.locator(".facts-list time")).to_have_count(3)

    other = visit().open("/analyses/log-in")
    log_in(other, "bob", "a password of bob")
    other.get_by_role("link", name="systems").click()
    expect(other.get_by_role("link", name="Edit")).to_have_count(0)
    # That run was private when it began, and stays so: the next one is for everybody.
    expect(other.get_by_text("It has not run yet.")).to_be_visible()
    ended_run(
        settings, store, JobStore(store, settings.s3.lake_bucket).get("systems"), b"Linux\t4\nWINNT\t13\n"
    )
    other.reload()
    other.get_by_role("link", name="as a page").click()
    expect(other.get_by_role("region", name="Result")).to_contain_text("13")
    assert run_id not in other.url
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_the_run_page_follows_a_run_that_is_under_way(visit: Callable[..., Visitor], service: Any) -> None:
    settings = service.lake.settings
    store = ObjectStore(settings.s3)
    with service.browser("ada") as client:
        made = client.post(
            "/api/v1/analyses/jobs",
            json={"name": "followed", "script": "def map(*_): pass"},
            headers=service.token_of(client),
        )
        assert made.status_code == 201
        job = JobStore(store, settings.s3.lake_bucket).get("followed")
        request = begun_run(settings, store, job)
        visitor = visit()
        cookie = {"name": "analyses_session", "value": service.sessions["ada"], "url": service.pages.url}
        visitor.context.add_cookies([cookie])  # type: ignore[list-item]
        page = visitor.open(f"/analyses/runs/{request.run_id}")
        expect(page.locator("#run-progress")).to_contain_text("It has not begun to read yet.")
        progressed(settings, store, request, records=250, total=1_000)
        printed(settings, store, request, "a line of the script\n")
        expect(page.locator("#run-progress")).to_contain_text("Mapping: 250 of 1,000 records")
        expect(page.locator("#run-log")).to_contain_text("a line of the script")
        expect(page.locator("#run-state")).to_have_text("running")
        end_run(settings, store, request, b"all\t1\n")
        expect(page.locator("#run-state")).to_have_text("success", timeout=WAIT_MS)
        expect(page.get_by_role("region", name="Result")).to_contain_text("all")


@pytest.mark.parametrize("path", ["/analyses", "/analyses/new", "/analyses/account", "/analyses/audit"])
def test_pages_work_on_phones_and_without_javascript(
    visit: Callable[..., Visitor], service: Any, path: str
) -> None:
    visitor = visit(viewport={"width": PHONE_WIDTH, "height": 800}, java_script_enabled=False)
    with service.browser("ada"):
        cookie = {"name": "analyses_session", "value": service.sessions["ada"], "url": service.pages.url}
    visitor.context.add_cookies([cookie])  # type: ignore[list-item]
    page = visitor.open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH
    if path == "/analyses/new":
        page.get_by_label("Name").fill("by-phone")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("by-phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH
    visitor = visit()
    visitor.context.add_cookies([cookie])  # type: ignore[list-item]
    assert in_the_way_of_screen_readers(visitor.open(path)) == []
