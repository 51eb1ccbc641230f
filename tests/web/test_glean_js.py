"""A web page of another origin with the real Glean.js, in a real browser: its pings are rows of the lake."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from lake_testing.chromium import CHROMIUM, launched_chromium
from lake_testing.stack import Lake, wait_until
from lake_testing.tabled_lakes import tabled_lake
from telemetry_lake import columns
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from tests.ingest.running_node import RunningNode, running

__all__ = ["tabled_lake"]

PACKAGES = PROJECT_ROOT / "web" / "frontend" / "node_modules"
WAIT_MS = 60_000
WAIT_SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no ping was sent by a browser"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Files without a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's signature)
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with Glean.js; its origin is not that of the node."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(
        '<!doctype html><link rel="icon" href="data:,"><script src="page.js"></script>'
    )
    subprocess.run(
        (
            Path(sys.executable).with_name("node"),
            PACKAGES / "esbuild" / "bin" / "esbuild",
            PROJECT_ROOT / "tests" / "web" / "glean_page.js",
            "--bundle",
            "--log-level=warning",
            f"--outfile={folder / 'page.js'}",
        ),
        check=True,
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
    )
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


def wait_for_pings(node: RunningNode, count: int) -> None:
    wait_until(
        lambda: len(node.stored()) == count, deadline_seconds=WAIT_SECONDS, what=f"{count} pings have come"
    )


def visit_and_submit(page: Page, node: RunningNode, title: str, tag: str | None = None) -> None:
    # Glean.js refuses addresses that begin with `http:`, in small letters, outside of its own tests.
    endpoint = f"HTTP://127.0.0.1:{node.port}"
    page.evaluate("([...all]) => globalThis.submitVisit(...all)", [endpoint, title, tag])


def test_pings_of_glean_js_become_rows(tabled_lake: Lake, site: str, tmp_path: Path) -> None:
    settings = tabled_lake.settings
    noise: list[str] = []
    (tmp_path / "spool").mkdir()
    with running(
        RunningNode(
            tmp_path / "spool", tabled_lake.environment, stop_ship_seconds=60, segment_max_age_seconds=600
        )
    ) as node:
        with launched_chromium() as browser:
            page = browser.new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: noise.append(f"error: {error}"))
            page.goto(site)
            visit_and_submit(page, node, "by beacon")
            # A beacon survives the page that sent it.
            page.goto(site)
            wait_for_pings(node, 1)
            with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
                visit_and_submit(page, node, "by fetch", "edge-test")
            assert answered.value.status == 200
            wait_for_pings(node, 2)
        preflights = node.metrics()['requests_total{status="204"}']
        assert node.stop(90) == 0
    # Glean.js warns when it sends by fetch.
    assert not [line for line in noise if line.startswith("error")]
    assert preflights == 1
    assert drain_once(settings).failures == []
    tables = {
        name: load_lake_catalog(settings).load_table(name).scan().to_arrow().to_pylist()
        for name in (LIVE_PINGS, LIVE_REJECTED_PINGS)
    }
    assert tables[LIVE_REJECTED_PINGS] == []
    rows = tables[LIVE_PINGS]
    assert {row[columns.DOCUMENT_TYPE] for row in rows} == {"visit"}
    by_tag = {dict(row[columns.HEADERS]).get("x-debug-id"): row for row in rows}
    assert by_tag.keys() == {None, "edge-test"}
    for tag, title in ((None, "by beacon"), ("edge-test", "by fetch")):
        row = by_tag[tag]
        headers = dict(row[columns.HEADERS])
        assert headers.get("content-encoding") == (None if tag is None else "gzip")
        assert f'"page.title":"{title}"' in row[columns.DOCUMENT]
        assert '"page.clicks":3' in row[columns.DOCUMENT]
        assert "Chrome" in headers["user-agent"]
    # One profile is one client, however its pings were sent.
    assert len({row[columns.CLIENT_ID] for row in rows} - {None}) == 1
