"""The source `web`: whether the web pages answer, and how long a reader waits for the first of them."""

import time
from datetime import datetime
from typing import Final

import httpx

from telemetry_lake.monitoring.sources.facts import Fact, value

WEB_SECONDS: Final = 30.0
ANSWER_MAX_SECONDS: Final = 10.0
"""A page that takes longer counts as away."""


class WebSource:
    """The source `web`; `url` is where readers find the pages, or where their process listens."""

    name = "web"
    interval_seconds = WEB_SECONDS

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, now: datetime) -> list[Fact]:  # noqa: ARG002 (a source)
        """Read the home page once, as a browser that has nothing of it yet."""
        began = time.monotonic()
        try:
            is_up = httpx.get(f"{self._url}/", timeout=ANSWER_MAX_SECONDS, follow_redirects=True).is_success
        except httpx.HTTPError:
            is_up = False
        return [value("web_up", is_up), value("web_answer_seconds", time.monotonic() - began)]
