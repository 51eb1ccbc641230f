"""Firefox itself, pointed at an ingest node by its preferences: every ping of its own is a row."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from lake_testing.stack import Lake, wait_until
from lake_testing.tabled_lakes import tabled_lake
from telemetry_lake import columns
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from tests.ingest.running_node import RunningNode, running
from tests.web.marionette import Firefox

__all__ = ["tabled_lake"]

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
STARTS: Final = 3
WAIT_SECONDS: Final = 180
# What every start and end sends. Others, such as newtab-content, depend on how far a page came before that.
EXPECTED: Final = {"main", "new-profile", "first-shutdown", "baseline"}
_PREFERENCE: Final = re.compile(r"^ *(user_pref\(.+\);)$", re.MULTILINE)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(FIREFOX is None, reason="firefox-esr is not installed: no ping was sent by a Firefox"),
]


def documented_preferences(port: int) -> str:
    """The preferences of docs/clients.md, with the port of a node."""
    text = (PROJECT_ROOT / "docs" / "clients.md").read_text()
    preferences = "\n".join(_PREFERENCE.findall(text))
    assert "8000" in preferences
    return preferences.replace("8000", str(port)) + "\n"


def baselines(node: RunningNode) -> int:
    return sum(b"/baseline/" in ping.path for ping in node.stored())


def start_and_quit(node: RunningNode, folder: Path, preferences: str) -> None:
    assert FIREFOX is not None
    before = baselines(node)
    with Firefox(FIREFOX, folder, preferences) as firefox:
        wait_until(lambda: baselines(node) > before, deadline_seconds=WAIT_SECONDS, what="a baseline ping")
        firefox.quit(WAIT_SECONDS)


def test_every_ping_of_a_firefox_that_is_started_three_times_is_a_row(
    tabled_lake: Lake, tmp_path: Path
) -> None:
    settings = tabled_lake.settings
    (tmp_path / "spool").mkdir()
    node = RunningNode(
        tmp_path / "spool", tabled_lake.environment, stop_ship_seconds=60, segment_max_age_seconds=3_600
    )
    with running(node):
        # The preferences that Marionette recommends would switch telemetry off.
        preferences = documented_preferences(node.port) + 'user_pref("remote.prefs.recommended", false);\n'
        for _ in range(STARTS):
            start_and_quit(node, tmp_path, preferences)
        wait_until(
            lambda: sum(b"/main/" in ping.path for ping in node.stored()) >= STARTS - 1,
            deadline_seconds=WAIT_SECONDS,
            what="the pings of the ends have come",
        )
        assert node.stop(90) == 0
    assert drain_once(settings).failures == []
    rows, rejected = (
        load_lake_catalog(settings).load_table(name).scan().to_arrow().to_pylist()
        for name in (LIVE_PINGS, LIVE_REJECTED_PINGS)
    )
    assert [(row[columns.REQUEST]["path"], row[columns.ERROR_MESSAGE]) for row in rejected] == []
    types = Counter(row[columns.DOCUMENT_TYPE] for row in rows)
    assert types.keys() >= EXPECTED
    assert types["baseline"] >= STARTS
