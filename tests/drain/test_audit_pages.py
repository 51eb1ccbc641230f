"""What people see of audits in the browser."""

from datetime import UTC, date, datetime, timedelta

from telemetry_lake.audit_pages import page_of_batch, page_of_day
from telemetry_lake.drain import Drain, drain_once
from tests.drain.shipping import greeting, ship, ship_pings

TODAY = date(2026, 11, 23)


def drained_at(settings, moment: datetime) -> str:
    """Drain what waits, with the clock at `moment`; the batch that was committed."""
    drain = Drain(settings, clock=lambda: moment)
    claimed = drain.claim()
    for part in claimed.batches[0].parts:
        drain.convert(part)
    drain.validate(claimed)
    drain.publish(claimed)
    drain.acknowledge(claimed)
    return claimed.batches[0].batch_id


def test_audits_of_a_day_are_listed_newest_first(settings):
    batches = []
    for hour in (9, 10):
        ship(settings)
        batches.append(drained_at(settings, datetime(2026, 11, 23, hour, 30, 15, tzinfo=UTC)))
    ship(settings)
    other = drained_at(settings, datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC))

    page = page_of_day(Drain(settings).ledger, TODAY, today=TODAY)

    assert page.index("10:30:15") < page.index(batches[1]) < page.index("09:30:15") < page.index(batches[0])
    assert other not in page
    assert other in page_of_day(Drain(settings).ledger, TODAY - timedelta(days=1), today=TODAY)
    assert "No batch was audited" in page_of_day(Drain(settings).ledger, date(2026, 11, 1), today=TODAY)


def test_a_batch_shows_its_checks_failures_first_with_what_to_do(settings):
    name = "00000000-0000-4000-8000-00000000000a"
    ship_pings(settings, [greeting(name), greeting(name)])
    (batch,) = drain_once(settings).committed

    page = page_of_batch(Drain(settings).ledger, batch)

    assert page is not None
    assert page.index("What to do:") < page.index('<span class="ok">ok</span>')
    assert "2 rows of live.pings" in page
    assert "http" not in page.lower().replace("httpexception", ""), "the page must not need the network"
    assert page_of_batch(Drain(settings).ledger, "0" * 32) is None
