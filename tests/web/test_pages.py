"""The pages in a browser, as people use them: found, compared, shared, by keyboard, and without noise."""

import csv
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from lake_testing.aggregate_rows import LAST, queried
from lake_testing.chromium import (
    CHROMIUM,
    Visitor,
    in_the_way_of_screen_readers,
    launched_chromium,
    silent_visitors,
)

WAIT_MS = 20_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the pages were not tested in a browser"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Ended with the module: while it runs, no other test could use asyncio.
    with launched_chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser: Browser, served: Any) -> Iterator[Callable[..., Visitor]]:
    """Return a function that makes a visitor; the pages of all of them must be silent."""
    with silent_visitors(browser, served.pages.url, WAIT_MS, answered) as make:
        yield make


def answered(page: Page) -> None:
    if page.locator("#dashboard").count():
        page.wait_for_selector("#dashboard[aria-busy=false]", state="attached")


def query(page: Page) -> dict[str, list[str]]:
    parameters = httpx.URL(page.url).params
    return {name: parameters.get_list(name) for name in parameters}


def table_rows(page: Page) -> list[list[str]]:
    if not page.locator("#table table").is_visible():
        page.locator("#table-details > summary").click()
    page.wait_for_selector("#table table")
    rows: list[list[str]] = page.eval_on_selector_all(
        "#table tbody tr", "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
    )
    return rows


def number(text: str) -> float:
    return float(text.replace(",", "").replace("%", ""))


def test_a_walk_from_a_misspelt_name_to_an_evolution_and_back(
    visit: Callable[..., Visitor], served: Any
) -> None:
    page = visit().open("/")
    page.get_by_role("main").get_by_role("link", name="Distribution").click()
    expect(page.locator("#metric-name")).to_have_text(re.compile("[A-Z0-9_]+"))
    search = page.get_by_role("combobox", name="Find a metric")
    search.fill("GC_SM")
    expect(page.get_by_role("option").first).to_contain_text("GC_MS")
    search.press("Enter")
    expect(page.locator("#metric-name")).to_have_text("GC_MS")
    expect(page.locator("#metric-description")).to_contain_text("garbage collection")

    page.locator("#filter-channel").click()
    page.get_by_role("button", name="Compare them").first.click()
    expect(page.locator("#summary tbody tr")).to_have_count(3)
    page.locator("#filter-channel").focus()
    page.keyboard.press("Escape")
    page.locator("#filter-os").click()
    page.locator("details[data-name=os]").get_by_label("Windows").check()
    answered(page)
    assert query(page)["compare"] == ["channel"]
    assert query(page)["os"] == ["Windows"]

    page.get_by_role("link", name="Evolution").click()
    answered(page)
    assert page.url.startswith(f"{served.pages.url}/evolution")
    assert query(page)["os"] == ["Windows"]
    expect(page.locator("#summary tbody tr")).to_have_count(3)
    expect(page.locator("#chart-evolution svg[role=img]")).to_be_visible()
    page.get_by_role("link", name="Distribution").click()
    answered(page)
    assert {name: query(page)[name] for name in ("metric", "compare", "os")} == {
        "metric": ["GC_MS"],
        "compare": ["channel"],
        "os": ["Windows"],
    }
    page.go_back()
    answered(page)
    assert "/evolution" in page.url


def test_the_chart_the_table_and_the_api_have_the_same_numbers(
    visit: Callable[..., Visitor], site: httpx.Client
) -> None:
    page = visit().open("/distribution?metric=GC_MS&channel=beta")
    answer = site.get("/api/v1/distribution", params={"metric": "GC_MS", "channel": "beta"}).json()
    [series] = answer["series"]
    rows = table_rows(page)
    assert [int(number(row[1])) for row in rows] == series["counts"]
    assert [number(row[2]) for row in rows] == pytest.approx(
        [share * 100 for share in series["shares"]], abs=0.06
    )
    bars = page.locator("#chart-distribution rect[data-label*=samples]")
    labels = bars.evaluate_all("bars => bars.map(bar => bar.getAttribute('data-label'))")
    assert [int(number(label.rsplit(", ", 1)[1].removesuffix(" samples"))) for label in labels] == series[
        "counts"
    ]
    heights = bars.evaluate_all("bars => bars.map(bar => Number(bar.getAttribute('height')))")
    assert [height / max(heights) for height in heights] == pytest.approx(
        [share / max(series["shares"]) for share in series["shares"]], abs=0.01
    )

    page = visit().open("/evolution?metric=GC_MS&channel=beta&by=submission")
    answer = site.get(
        "/api/v1/evolution", params={"metric": "GC_MS", "channel": "beta", "by": "submission"}
    ).json()
    [series] = answer["series"]
    rows = table_rows(page)
    assert [row[0] for row in rows] == answer["dates"]
    assert [int(number(row[1])) for row in rows] == series["pings"]
    points = page.locator("#chart-evolution circle[data-label*=median]").evaluate_all(
        "dots => dots.map(dot => dot.getAttribute('data-label'))"
    )
    assert [number(point.rsplit(": ", 1)[1]) for point in points] == pytest.approx(
        series["percentiles"]["50"], rel=0.01
    )
    assert [point.partition(",")[0] for point in points] == answer["dates"]


FILTERS = {
    "metric": ("GC_MS", "CYCLE_COLLECTOR", "GC_REASON"),
    "channel": ("nightly", "beta", "release"),
    "os": ("", "Windows", "Linux"),
    "by": ("build", "submission"),
    "weight": ("samples", "client"),
}


@pytest.mark.parametrize("seed", range(4))
def test_chart_table_file_api_and_sql_have_the_same_numbers_whatever_is_chosen(
    visit: Callable[..., Visitor], site: httpx.Client, served: Any, seed: int
) -> None:
    chance = random.Random(seed)
    chosen = {name: chance.choice(values) for name, values in FILTERS.items()}
    params = {name: value for name, value in chosen.items() if value}
    address = f"/distribution?{httpx.QueryParams(params)}"
    page = visit().open(address)
    [series] = site.get(f"/api/v1{address}").json()["series"]
    rows = table_rows(page)
    assert [int(number(row[1])) for row in rows] == series["counts"]
    bars = page.locator("#chart-distribution rect[data-label*=samples]").evaluate_all(
        "bars => bars.map(bar => [bar.getAttribute('data-label'), Number(bar.getAttribute('height'))])"
    )
    drawn = [int(number(label.rsplit(", ", 1)[1].removesuffix(" samples"))) for label, _ in bars]
    assert drawn == series["counts"]
    highest = max(height for _, height in bars)
    assert [height / highest for _, height in bars] == pytest.approx(
        [share / max(series["shares"]) for share in series["shares"]], abs=0.01
    )
    of_file = list(csv.DictReader(io.StringIO(site.get(f"/api/v1{address}".replace("?", ".csv?")).text)))
    assert [int(line["samples"]) for line in of_file] == series["counts"]
    assert [float(line["share"]) for line in of_file] == series["shares"]
    with queried(served.rows) as connection:
        result = connection.execute(site.get(f"/api/v1{address}".replace("?", ".sql?")).text)
        names = [column[0] for column in result.description]
        of_sql = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    filled = [place for place, count in enumerate(series["counts"]) if count]
    assert [line["samples"] for line in of_sql] == [series["counts"][place] for place in filled]
    assert [line["share"] for line in of_sql] == pytest.approx([series["shares"][place] for place in filled])


def test_a_page_says_that_it_loads_while_the_network_is_slow(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    page = visitor.context.new_page()
    page.set_default_timeout(WAIT_MS)
    network = visitor.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 1_500, "downloadThroughput": 100_000, "uploadThroughput": 100_000},
    )
    page.goto("/distribution?metric=GC_MS", wait_until="commit")
    expect(page.locator("#notice")).to_have_text("Loading the numbers…")
    expect(page.locator("#notice")).to_be_visible()
    expect(page.locator("#chart-distribution svg")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_label("Compare by").select_option("os")
    expect(page.locator("#notice")).to_have_text("Loading the numbers…")
    expect(page.locator("#summary tbody tr")).to_have_count(3, timeout=WAIT_MS)
    expect(page.locator("#notice")).to_be_hidden()


def test_keys_are_chosen_and_stand_side_by_side(visit: Callable[..., Visitor]) -> None:
    page = visit().open("/distribution?metric=SEARCH_LATENCY_MS")
    expect(page.locator("#summary tbody tr")).to_have_count(4)
    page.locator("#filter-key").click()
    page.get_by_role("button", name="The most common ones").wait_for()
    page.locator("#key-search").fill("rare")
    expect(page.locator("details[data-name=key] .option").first).to_contain_text("rare-")
    page.locator("#key-search").fill("o'key")
    page.locator("details[data-name=key]").get_by_label("o'key & co").check()
    answered(page)
    assert "o'key & co" in query(page)["key"]
    expect(page.locator("#summary")).to_contain_text("o'key & co")
    expect(page.locator("#summary tbody tr")).to_have_count(5)


def test_everything_that_is_chosen_is_in_the_link(visit: Callable[..., Visitor], browser: Browser) -> None:
    page = visit().open("/distribution?metric=GC_MS")
    assert page.url.endswith("/distribution?metric=GC_MS"), "no defaults in the address"
    page.get_by_label("Weight").select_option("client")
    page.get_by_label("Compare by").select_option("os")
    page.get_by_label("Cumulative").check()
    page.get_by_label("99th percentile", exact=True).check(force=True)
    answered(page)
    expect(page.locator("#summary thead")).to_contain_text("99th")
    page.locator("#table-details > summary").click()
    page.wait_for_url(re.compile("table=1"))
    assert query(page) == {
        "metric": ["GC_MS"],
        "compare": ["os"],
        "weight": ["client"],
        "percentiles": ["5,25,50,75,95,99"],
        "cumulative": ["1"],
        "table": ["1"],
    }
    numbers = table_rows(page)
    again = visit().open(page.url)
    assert table_rows(again) == numbers
    expect(again.get_by_label("Cumulative")).to_be_checked()
    expect(again.locator("#summary")).to_have_text(page.locator("#summary").text_content() or "")


def test_exports_and_sql_have_the_numbers_of_the_page(
    visit: Callable[..., Visitor], query_command: Any
) -> None:
    page = visit(accept_downloads=True).open(
        "/distribution?metric=GC_MS&channel=release&os=Mac&by=submission"
    )
    counts = [int(number(row[1])) for row in table_rows(page)]
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert download.value.suggested_filename == "GC_MS-distribution-release.csv"
    assert [int(line.split(",")[3]) for line in lines[1:]] == counts
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    assert json.loads(Path(download.value.path()).read_text())["series"][0]["counts"] == counts

    page.get_by_role("button", name="Show SQL").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#dialog-content")).to_have_value(re.compile("derived.histogram_aggregates"))
    lines = query_command(page.locator("#dialog-content").input_value())
    assert [int(line["samples"]) for line in lines] == [count for count in counts if count]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Embed").click()
    assert "/embed/distribution?metric=GC_MS" in page.locator("#dialog-content").input_value()


def test_an_embedded_chart_is_shown_in_a_frame(visit: Callable[..., Visitor]) -> None:
    page = visit().open("/embed/evolution?metric=GC_MS&compare=os")
    expect(page.locator("#chart-evolution svg")).to_be_visible()
    expect(page.locator("nav")).to_have_count(0)
    expect(page.get_by_role("link", name="Open in Telemetry Lake")).to_have_attribute(
        "href", "/evolution?metric=GC_MS&compare=os"
    )


def test_a_reference_and_the_pointer_by_keyboard_and_a_zoom_by_dragging(
    visit: Callable[..., Visitor],
) -> None:
    page = visit().open("/evolution?metric=GC_MS&by=submission&compare=os")
    chart = page.locator("#chart-evolution")
    chart.focus()
    page.keyboard.press("Home")
    expect(chart.get_by_role("status")).to_contain_text("2026-09-28")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("reference=2026-09-28"))
    page.locator("#chart-evolution").focus()
    page.keyboard.press("End")
    points = page.locator("#points table")
    expect(points).to_contain_text("2026-09-28 (reference)")
    expect(points).to_contain_text(LAST.isoformat())
    expect(points.locator("tbody tr")).to_have_count(3)
    page.locator("#chart-pings").scroll_into_view_if_needed()
    box = page.locator("#chart-pings .brush .overlay").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile(r"dates=2026-10-\d\d\.\.2026-10-\d\d"))
    answered(page)
    page.get_by_role("button", name="All dates").click()
    answered(page)
    assert "dates" not in query(page)


def test_the_whole_walk_by_keyboard(visit: Callable[..., Visitor]) -> None:
    page = visit().open("/distribution?metric=GC_MS")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "metric-search":
            break
    page.keyboard.type("cylce")
    expect(page.get_by_role("option").first).to_contain_text("CYCLE_COLLECTOR")
    page.keyboard.press("Enter")
    expect(page.locator("#metric-name")).to_have_text("CYCLE_COLLECTOR")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter-channel"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    answered(page)
    assert len(query(page)["channel"]) == 2
    page.locator("#chart-distribution").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#chart-distribution").get_by_role("status")).to_contain_text("sample")


@pytest.mark.parametrize(
    "path,sentence",
    [
        ("/distribution?metric=GC_MS&channel=aurora", "GC_MS has no samples with channel aurora; it has"),
        ("/evolution?metric=GC_MS&dates=2020-01-01", "It was first seen on"),
    ],
)
def test_a_metric_without_data_says_why_and_keeps_its_filters(
    visit: Callable[..., Visitor], path: str, sentence: str
) -> None:
    page = visit().open(path)
    expect(page.locator("#notice")).to_contain_text(sentence)
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="Reset filters").click()
    expect(page.locator("#result")).to_be_visible()


def test_old_links_are_understood(visit: Callable[..., Visitor]) -> None:
    old = (
        "#!cumulative=1&end_date=2026-10-08&keys=__none__!__none__!__none__&max_channel_version=nightly%252F121"
        "&measure=GC_MS&min_channel_version=null&os=Windows_NT%252C10.0&processType=*&product=Firefox"
        "&start_date=2026-09-30&table=0&trim=1&use_submission_date=1"
    )
    page = visit().open(f"/distribution{old}")
    expect(page.locator("#metric-name")).to_have_text("GC_MS")
    assert query(page) == {
        "metric": ["GC_MS"],
        "channel": ["nightly"],
        "versions": ["121"],
        "application": ["Firefox"],
        "os": ["Windows"],
        "by": ["submission"],
        "dates": ["2026-09-30..2026-10-08"],
        "trim": ["1"],
        "cumulative": ["1"],
    }
    expect(page.locator("#result")).to_be_visible()


def test_pages_written_for_mozillas_service_work_with_our_script(
    browser: Browser, served: Any, site: httpx.Client
) -> None:
    # A page of another origin on this machine (browsers refuse others the way here), without a policy.
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(f"{served.pages.url}/__lbheartbeat__".replace("127.0.0.1", "localhost"))
    page.add_script_tag(url=f"{served.pages.url}/v2/telemetry.js")
    found = page.evaluate(
        """() => new Promise((resolve) => Telemetry.init(() => {
            const versions = Telemetry.getVersions("nightly/121", "nightly/122");
            const filters = {os: "Windows_NT", child: ["false", "true"]};
            Telemetry.getFilterOptions("nightly", "121", (options) =>
                Telemetry.getEvolution("nightly", "121", "GC_MS", filters, true, (evolutions) => {
                    const evolution = evolutions[""];
                    resolve({
                        versions,
                        options,
                        keys: Object.keys(evolutions),
                        medians: evolution.percentiles(50),
                        means: evolution.means(),
                        submissions: evolution.submissions(),
                        samples: evolution.sampleCounts(),
                        doubled: evolution.combine(evolution).histogram().count,
                    });
                }));
        }))"""
    )
    params = {"metric": "GC_MS", "versions": "121", "os": "Windows", "by": "submission"}
    [series] = site.get("/api/v1/evolution", params=params).json()["series"]
    assert found["versions"] == ["nightly/121", "nightly/122"]
    assert "GC_MS" in found["options"]["metric"]
    assert found["keys"] == [""]
    assert found["submissions"] == series["pings"]
    assert found["samples"] == series["samples"]
    assert found["doubled"] == 2 * sum(series["samples"])
    assert found["medians"] == pytest.approx(series["percentiles"]["50"])
    assert found["means"] == pytest.approx(series["means"])
    page.context.close()


@pytest.mark.parametrize(
    "path",
    [
        "/distribution?metric=GC_REASON&compare=channel&table=1",
        "/evolution?metric=SEARCH_LATENCY_MS&reference=2026-10-01",
        "/metrics",
        "/api",
        "/embed/distribution?metric=GC_MS&compare=os",
    ],
)
def test_nothing_is_in_the_way_of_screen_readers(visit: Callable[..., Visitor], path: str) -> None:
    page = visit().open(path)
    if page.locator("#filter-channel").count():
        page.locator("#filter-channel").click()
    assert in_the_way_of_screen_readers(page, "serious", "critical") == []


@pytest.mark.parametrize("width", [320, 3_000])
@pytest.mark.parametrize(
    "path",
    [
        "/distribution?metric=SEARCH_LATENCY_MS&table=1",
        "/evolution?metric=GC_REASON&reference=2026-10-01",
        "/metrics",
        "/api",
    ],
)
def test_pages_fit_phones_and_walls(visit: Callable[..., Visitor], path: str, width: int) -> None:
    page = visit(viewport={"width": width, "height": 800}).open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if page.locator("#filter-dates").count():
        page.locator("#filter-dates").click()
        box = page.locator("details[data-name=dates] .popover").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_a_page_waits_for_a_server_that_is_started_again(visit: Callable[..., Visitor], served: Any) -> None:
    visitor = visit()
    page = visitor.open("/distribution?metric=GC_MS")
    pings = page.locator("#summary tbody").text_content()
    served.pages.kill()
    page.get_by_label("Compare by").select_option("os")
    expect(page.locator("#notice")).to_contain_text(
        "The server does not answer. The page tries again by itself."
    )
    served.pages.start()
    expect(page.locator("#summary tbody tr")).to_have_count(3)
    page.get_by_label("Compare by").select_option("")
    expect(page.locator("#summary tbody")).to_have_text(pings or "")
    visitor.noise[:] = [line for line in visitor.noise if "ERR_CONNECTION_REFUSED" not in line]


def test_new_data_comes_to_a_page_that_is_open(visit: Callable[..., Visitor], served: Any) -> None:
    served.make_cubes_until(LAST.replace(day=5))
    visitor = visit()
    visitor.context.add_init_script(
        "const later = setTimeout; window.setTimeout = (act, ms) => later(act, ms / 100);"
    )
    page = visitor.open("/evolution?metric=GC_MS&by=submission")
    expect(page.locator("#summary tbody")).to_contain_text("8")
    served.make_cubes_until(LAST)
    expect(page.locator("#summary tbody tr td").nth(3)).to_have_text("12")
