"""The main walk through the pages in Firefox, whose engine is another one than Chromium's."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.web.marionette import Firefox

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
ENTER = "\ue007"

pytestmark = [
    pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed: the pages were not tested in it"),
    pytest.mark.slow,
]


def test_a_walk_in_firefox(served: Any, site: httpx.Client, tmp_path: Path) -> None:
    assert FIREFOX is not None
    answered = "document.querySelector('#dashboard[aria-busy=false]')"
    with Firefox(FIREFOX, tmp_path) as firefox:
        firefox.open(f"{served.pages.url}/distribution?metric=GC_REASON")
        firefox.wait_for(answered)
        firefox.type("#metric-search", "GC_SM")
        firefox.wait_for("document.querySelector('[role=option]')?.textContent.includes('GC_MS')")
        firefox.type("#metric-search", ENTER)
        firefox.wait_for("document.querySelector('#metric-name').textContent === 'GC_MS'")
        firefox.wait_for(answered)
        firefox.click("#table-details > summary")
        firefox.wait_for("document.querySelector('#table tbody tr')")
        counts = firefox.run(
            "return [...document.querySelectorAll('#table tbody tr')].map(row => row.children[1].textContent)"
        )
        [series] = site.get("/api/v1/distribution", params={"metric": "GC_MS"}).json()["series"]
        assert [int(count.replace(",", "")) for count in counts] == series["counts"]
        bars = "document.querySelectorAll('#chart-distribution rect[data-label*=samples]').length"
        assert firefox.run(f"return {bars}") == len(counts)
        firefox.click("a[href^='/evolution']")
        firefox.wait_for("document.querySelector('#chart-evolution svg path')")
        assert "/evolution?metric=GC_MS" in firefox.call("WebDriver:GetCurrentURL")
        assert not firefox.run("return document.querySelector('#notice').checkVisibility()")
