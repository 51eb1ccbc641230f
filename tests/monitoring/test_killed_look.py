"""A look for anomalies that is killed with -9 after any of its writes: each change is one row, and told."""

from collections import Counter
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest

from lake_testing.killer import Killer, points_to_kill_at, quick_workers, through_proxies, writes_of
from lake_testing.notice_receivers import Hook
from lake_testing.steady_pings import HOUR, MINUTE, count_hours, receive
from telemetry_lake.monitoring.anomalies.deliver import deliver
from telemetry_lake.monitoring.anomalies.findings import Kind
from telemetry_lake.monitoring.anomalies.look import Looker
from telemetry_lake.monitoring.anomalies.state import DELIVERY_MAX
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import ANOMALY_STATE_KEY
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import ANOMALIES

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PRELOADED = [
    "duckdb",
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
    "telemetry_lake.monitoring.anomalies.look",
    "telemetry_lake.monitoring.anomalies.rows",
]


@pytest.fixture(scope="module")
def workers() -> ForkServerContext:
    return quick_workers(PRELOADED)


def look(settings: Settings, now: datetime) -> None:
    Looker(settings).look(now)


def forget(settings: Settings, mails: Any, hook: Hook) -> None:
    """Take back what was found, written and told."""
    ObjectStore(settings.s3).delete(settings.s3.lake_bucket, [ANOMALY_STATE_KEY])
    catalog = load_lake_catalog(settings)
    catalog.drop_table(ANOMALIES)
    create_tables(catalog)
    mails.received.clear()
    hook.received.clear()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_look_that_is_killed_after_any_write_is_finished_by_the_next(
    watched: Settings, mails: Any, hook: Hook, workers: ForkServerContext
) -> None:
    count_hours(watched, NOW - HOUR)
    receive(watched, NOW - 3 * HOUR, NOW - 20 * MINUTE)
    received, _ = mails
    killer = Killer()
    with through_proxies(watched, killer) as proxied:
        killer.work(workers, look, proxied, NOW)
        requests = list(killer.requests)
        points = points_to_kill_at(requests)
        assert sum(ANOMALY_STATE_KEY in request for request in requests) >= 6
        # The decision, the rows' file, what the commit adds, the commit, and what is ticked off.
        assert len(points) >= 4
        # Of the state each write is another step.
        writes = [number for number, request in writes_of(requests) if ANOMALY_STATE_KEY in request]
        for number in sorted({*points, *writes}):
            forget(watched, received, hook)
            killer.work(workers, look, proxied, NOW, fatal_request=number)
            finish(watched)
            assert_told_and_written_once(watched, received, hook, what=requests[number - 1])


def finish(settings: Settings) -> None:
    """What the next look does, after the time in which the killed one might still have been at it."""
    looker = Looker(settings)
    looker.look(NOW + MINUTE)
    deliver(
        settings,
        looker.states,
        lambda: load_lake_catalog(settings),
        "the next one",
        lambda: datetime.now(UTC) + 2 * DELIVERY_MAX,
    )
    state = looker.states.read().state
    assert state.pending == ()
    assert [each.kind for each in state.open] == [Kind.VOLUME_FALL]


def assert_told_and_written_once(settings: Settings, mails: Any, hook: Hook, *, what: str) -> None:
    """One row; who was told twice can see that it is the same."""
    rows = load_lake_catalog(settings).load_table(ANOMALIES).scan().to_arrow().to_pylist()
    assert [row["change"] for row in rows] == ["opened"], what
    told = Counter((mail["To"], mail["Message-ID"]) for mail in mails.received)
    assert sorted(address for address, _ in told) == ["ann@example.org", "bob@example.org"], what
    calls = Counter(call.idempotency_key for call in hook.received)
    assert len(calls) == 1, what
    # The kill came between telling one of them and ticking that off.
    assert sum(told.values()) + sum(calls.values()) <= 3 + 1, what
