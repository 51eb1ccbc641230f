"""The pages about audits, of batches and of dates."""

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest

from lake_testing.shipping import greeting, ship, ship_pings
from telemetry_lake.audits import pages
from telemetry_lake.audits.dates import DateAudit, DateAudits
from telemetry_lake.audits.pages import (
    AuditRecords,
    page_of_batch,
    page_of_date,
    page_of_day,
    page_of_table,
    page_of_tables,
)
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import Drain, drain_once, utc_now
from telemetry_lake.failures import GateAlarm
from telemetry_lake.recovery.completeness import check_completeness
from telemetry_lake.tables.checks import CheckResult, Severity
from telemetry_lake.tables.definitions import table_definition, table_names

TODAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def records(settings) -> AuditRecords:
    lake = LakeConnections(settings)
    return AuditRecords(lake.ledger, DateAudits(lake.store, settings.s3.lake_bucket), lake.days)


def result(condition: str, severity: Severity = Severity.FAIL, passed: bool = True) -> CheckResult:
    return CheckResult(
        subject="rows",
        expectation=condition,
        column="",
        severity=severity,
        passed=passed,
        found="1 of 2 rows do not fit",
        examples=(),
        why="it matters",
        remedy="look",
    )


def audit(hour: int, table: str, *results: CheckResult) -> DateAudit:
    at = datetime(2026, 11, 23, hour, tzinfo=UTC)
    return DateAudit(table=table, day=date(2026, 11, 22), at=at, results=results)


def drained_at(settings, moment: datetime) -> str:
    """Drain what waits, with the clock at `moment`; the batch that was committed."""
    drain = Drain(LakeConnections(settings), clock=lambda: moment)
    claimed = drain.claim()
    for part in claimed.batches[0].parts:
        drain.convert(part)
    drain.validate(claimed)
    drain.publish(claimed)
    drain.acknowledge(claimed)
    return claimed.batches[0].batch_id


def test_every_table_has_a_page_with_its_columns_and_queries_that_can_be_copied():
    listed = page_of_tables()
    for name in table_names():
        assert f'href="{name}"' in listed
        page = page_of_table(name)
        assert page is not None
        assert f"make query SQL=&#34;FROM {name} WHERE" in page.replace('"', "&#34;")
        assert all(f"<code>{column.name}</code>" in page for column in table_definition(name).columns)
    assert page_of_table("live.ping") is page_of_table("../live/pings") is None


def test_audits_of_a_day_are_listed_newest_first(settings):
    batches = []
    for hour in (9, 10):
        ship(settings)
        batches.append(drained_at(settings, datetime(2026, 11, 23, hour, 30, 15, tzinfo=UTC)))
    ship(settings)
    other = drained_at(settings, datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC))

    found = records(settings)
    page = page_of_day(found, TODAY, now=NOW)

    assert page.index("10:30:15") < page.index(batches[1]) < page.index("09:30:15") < page.index(batches[0])
    assert other not in page
    assert other in page_of_day(found, TODAY - timedelta(days=1), now=NOW)
    assert "Nothing was audited" in page_of_day(found, date(2026, 11, 1), now=NOW)


def test_the_page_says_how_complete_the_days_are(settings):
    found = records(settings)
    assert "nothing is known yet" in page_of_day(found, TODAY, now=NOW)
    (key,) = ship(settings, send=False).keys
    later = utc_now() + timedelta(hours=30)
    check_completeness(LakeConnections(settings), now=later)
    page = page_of_day(found, TODAY, now=later)
    assert "1 days open, 0 complete, 1 raw objects unfinished, the oldest for 30.0 h, 1 OVERDUE" in page
    assert f"oldest: {key}: waiting" in page


def test_a_batch_that_rang_an_alarm_is_shown_as_published_and_to_be_looked_at(settings):
    ship_pings(settings, [greeting(str(uuid.UUID(int=number)), body=b"{}") for number in range(100)])
    drain = Drain(LakeConnections(settings), clock=lambda: datetime(2026, 11, 23, 9, tzinfo=UTC))
    claimed = drain.claim()
    drain.convert(claimed.batches[0].parts[0])
    with pytest.raises(GateAlarm):
        drain.validate(claimed)
    found = records(settings)
    day = page_of_day(found, TODAY, now=NOW)
    assert '<span class="alarm">published, to be looked at</span>' in day
    assert '<td class="number fail">1</td>' in day
    batch = page_of_batch(found.ledger, claimed.batches[0].batch_id)
    assert batch is not None
    assert '<span class="alarm">The batch may be published, and has to be looked at.</span>' in batch
    assert batch.index('<span class="alarm">alarm</span>') < batch.index('<span class="warn">warn</span>')


def test_dates_are_listed_among_the_batches_by_the_time_of_their_audit(settings):
    ship(settings)
    batch = drained_at(settings, datetime(2026, 11, 23, 9, 30, tzinfo=UTC))
    found = records(settings)
    audits = [
        audit(9, "derived.ping_volumes", result("pings > 0"), result("bytes >= 0", Severity.WARN, False)),
        audit(10, "stable.pings", result("pings > 0", passed=False)),
    ]
    for each in audits:
        found.dates.keep(each)
        found.dates.keep(each)  # a second time changes nothing
    found.dates.keep(
        audits[0].model_copy(update={"at": datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC)})
    )

    page = page_of_day(found, TODAY, now=NOW)

    lines = [line.split("</tr>")[0] for line in page.split("<tr>")[2:]]
    assert len(lines) == 3
    assert "stable.pings of 2026-11-22" in lines[0]
    assert '<span class="fail">to be made again</span>' in lines[0]
    assert batch in lines[1]
    assert "derived.ping_volumes of 2026-11-22" in lines[2]
    assert '<span class="ok">passed</span>' in lines[2]
    assert '<td class="number warn">1</td>' in lines[2]
    assert f'href="dates/{audits[1].name}"' in lines[0]


def test_the_list_is_cut_to_the_newest_of_both_kinds_and_leads_to_the_older_ones(settings, monkeypatch):
    monkeypatch.setattr(pages, "SHOWN_MAX", 2)
    found = records(settings)
    for hour in (8, 10, 12):
        found.dates.keep(audit(hour, "stable.pings", result("pings > 0")))
    ship(settings)
    batch = drained_at(settings, datetime(2026, 11, 23, 11, tzinfo=UTC))
    page = page_of_day(found, TODAY, now=NOW)
    assert page.index("12:00:00") < page.index(batch)
    assert "10:00:00" not in page
    assert 'href="?day=2026-11-23&amp;before=2026-11-23T11%3A00%3A00%2B00%3A00">Older' in page

    last = page_of_day(found, TODAY, now=NOW, before=datetime(2026, 11, 23, 11, tzinfo=UTC))
    assert last.index("10:00:00") < last.index("08:00:00")
    assert batch not in last
    assert "Older" not in last


def test_a_date_shows_its_checks_failures_first_with_what_to_do(settings):
    dates = records(settings).dates
    made = audit(10, "stable.pings", result("bytes >= 0"), result("pings < 7", passed=False))
    dates.keep(made)

    page = page_of_date(dates, made.name)

    assert page is not None
    assert page.index("pings &lt; 7") < page.index("What to do: look") < page.index("bytes &gt;= 0")
    assert "did not pass" in page
    assert 'href="../../?day=2026-11-23"' in page
    assert dates.find(made.name) == made
    assert page_of_date(dates, made.name.replace("stable", "derived")) is None
    with pytest.raises(ValueError, match="not the name of an audit"):
        page_of_date(dates, "../batches/x")


def test_a_batch_shows_its_checks_failures_first_with_what_to_do(settings):
    name = "00000000-0000-4000-8000-00000000000a"
    ship_pings(settings, [greeting(name), greeting(name)])
    (batch,) = drain_once(settings).committed

    page = page_of_batch(LakeConnections(settings).ledger, batch)

    assert page is not None
    assert page.index("What to do:") < page.index('<span class="ok">ok</span>')
    assert "2 rows of live.pings" in page
    assert "http" not in page.lower().replace("httpexception", ""), "the page must not need the network"
    assert page_of_batch(LakeConnections(settings).ledger, "0" * 32) is None
