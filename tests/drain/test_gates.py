"""What a stranger posts holds back the rows of no other client, and no alarm is lost."""

import json
import uuid
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.shipping import (
    MORNING,
    greeting,
    live_document_ids,
    queue_is_empty,
    rejected_document_ids,
    ship,
    ship_pings,
)
from telemetry_lake.convert.document_schemas import named_document_types
from telemetry_lake.drain.audit import Audit
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import Drain, DrainReport, drain_once
from telemetry_lake.drain.usual_shares import HALF_LIFE, LEARNED_AT_ONCE_MAX, UsualShare, UsualShares
from telemetry_lake.failures import GateAlarm
from telemetry_lake.raw.raw_object import RawPing
from telemetry_lake.recovery.replay import dead_letters
from telemetry_lake.settings import ConversionSettings, Settings
from telemetry_lake.tables.checks import CheckResult, Severity

EMPTY_GLEAN = b'{"ping_info":{},"client_info":{}}'
HOSTILE_TEXTS = [
    "",
    " ",
    "\x00",
    "\ud83d",
    "release\n",
    "Robert'); DROP",
    "x" * 5_000,
    "ünïcode",
    "../..",
    "%s{}",
]


def posted(path: str, body: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> RawPing:
    return RawPing(MORNING, "POST", path.encode("latin-1"), b"", "HTTP/1.1", "", b"", headers, body)


def hostile(shape: str, count: int) -> Iterator[RawPing]:
    for number in range(count):
        name = str(uuid.UUID(int=number))
        match shape:
            case "an invented namespace":
                yield posted(f"/submit/stranger/x/1/{name}", EMPTY_GLEAN)
            case "many invented namespaces":
                yield posted(f"/submit/stranger-{number}/x/1/{name}", EMPTY_GLEAN)
            case "an invented type of a named namespace":
                yield posted(f"/submit/telemetry/{name}/stranger/a/1/release/2", b'{"version": 4}')
            case "a named type, garbage":
                yield posted(f"/submit/lake-demo/greeting/1/{name}", b'{"text": 5}')
            case "a named type, many clients":
                body = json.dumps({"text": number, "client_id": str(uuid.uuid4())}).encode()
                yield posted(f"/submit/lake-demo/greeting/1/{name}", body)
            case "a named type in an invented namespace":
                yield posted(f"/submit/stranger/greeting/1/{name}", EMPTY_GLEAN)
            case "one document id again and again":
                yield posted(f"/submit/lake-demo/greeting/1/{uuid.UUID(int=1)}", b'{"text": "again"}')
            case "no readable path":
                yield posted(f"/submit/stranger/\xff/{number}/?", b"")
            case "values of dimensions":
                yield posted(*_with_hostile_values(name, HOSTILE_TEXTS[number % len(HOSTILE_TEXTS)]))
            case _:
                raise AssertionError(shape)


def _with_hostile_values(name: str, text: str) -> tuple[str, bytes, tuple[tuple[str, bytes], ...]]:
    info = {
        "app_channel": text,
        "app_display_version": text,
        "app_build": text,
        "os": text,
        "client_id": str(uuid.uuid4()),
    }
    info |= {"architecture": text, "os_version": text, "telemetry_sdk_build": text, "first_run_date": text}
    document = {
        "ping_info": {"reason": text[:30], "seq": 1, "start_time": text, "end_time": text},
        "client_info": info,
    }
    forged = (("x-forwarded-for", text.encode("utf-8", "replace")), ("user-agent", b"\xff\x00"))
    return f"/submit/stranger/x/1/{name}", json.dumps(document).encode(), forged


SHAPES = [
    "an invented namespace",
    "many invented namespaces",
    "an invented type of a named namespace",
    "a named type, garbage",
    "a named type, many clients",
    "a named type in an invented namespace",
    "one document id again and again",
    "no readable path",
    "values of dimensions",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_stranger_posts_does_not_hold_back_the_rows_of_others(settings, shape):
    ship_pings(settings, list(hostile(shape, 100)))
    assert_honest_pings_arrive(settings)


def test_all_of_it_at_once_does_not_either(settings):
    ship_pings(settings, [ping for shape in SHAPES for ping in hostile(shape, 1_334)])
    report = assert_honest_pings_arrive(settings)
    assert [result.column for result in failures(settings, report, Severity.ALARM)] == ["above_usual"]


def test_garbage_of_invented_types_is_a_warning_and_rings_no_alarm(settings):
    for shape in SHAPES[:3]:
        ship_pings(settings, list(hostile(shape, 200)))
    report = drain_once(settings)
    assert report.failures == []
    assert "rejected_percent" in [result.column for result in failures(settings, report, Severity.WARN)]


def test_a_schema_that_refuses_what_clients_send_rings_an_alarm_and_holds_only_that_back(settings):
    refused = [str(uuid.uuid4()) for _ in range(200)]
    ship_pings(settings, [greeting(name, body=b'{"text": 5}') for name in refused])
    shipped = ship(settings, objects=2, good=2)
    drain = Drain(LakeConnections(settings))
    claimed = drain.claim()
    for part in claimed.batches[0].parts:
        drain.convert(part)
    # Again: the alarm stays, also when another run finds the batch decided.
    for _ in range(2):
        with pytest.raises(GateAlarm, match=r"lake-demo#greeting[^$]*What to do: The refused pings are"):
            drain.validate(claimed)
    (commitment,) = drain.publish(claimed)
    (done,) = drain.acknowledge(claimed)
    assert done.committed
    assert done.dead_letters == []
    assert queue_is_empty(settings)
    assert live_document_ids(settings) == sorted(shipped.good)
    assert rejected_document_ids(settings) == sorted(refused)
    audit = drain.connections.ledger.audit(commitment.batch_id, Audit)
    assert audit is not None
    assert audit.passed
    (entry,) = drain.connections.ledger.audits_of(datetime.now(tz=MORNING.tzinfo).date(), at_most=1)
    assert (entry[2].failed, entry[2].alarms) == (0, 1)


@pytest.mark.parametrize("refused, rings", [(20, False), (21, True)])
def test_an_alarm_rings_above_twenty_percent_more_than_usual(settings, refused, rings):
    ship_pings(settings, greetings(good=100 - refused, refused=refused))
    report = drain_once(settings)
    assert [result.column for result in failures(settings, report, Severity.ALARM)] == ["above_usual"] * rings
    assert bool(report.failures) == rings


def test_what_is_usual_rings_no_alarm_and_too_few_pings_neither(settings):
    ledger = LakeConnections(settings).ledger
    usual = UsualShare(refused_percent=30.0, learned_at=MORNING)
    ledger.put_usual_shares(UsualShares(by_type={"lake-demo/greeting": usual}))
    ship_pings(settings, greetings(good=50, refused=50))
    assert drain_once(settings).failures == []
    learned = ledger.usual_shares().by_type["lake-demo/greeting"]
    assert usual.refused_percent < learned.refused_percent < usual.refused_percent + 0.1
    assert learned.learned_at > usual.learned_at
    ship_pings(settings, greetings(good=0, refused=99))
    assert drain_once(settings).failures == []
    assert ledger.usual_shares().by_type["lake-demo/greeting"] == learned


def test_named_types_are_those_of_schema_files():
    named = named_document_types(ConversionSettings().schemas_directory)
    assert {("telemetry", "main"), ("lake-demo", "greeting")} <= named
    assert not any("any" in name for name in named)


@given(st.floats(0, 100), st.lists(st.floats(0, 100), max_size=200))
def test_a_flood_moves_what_is_usual_by_no_more_than_its_time(usual, percents):
    """However many batches are of one hour, they move it by less than one that counts for an hour."""
    shares = UsualShares(by_type={"a/b": UsualShare(refused_percent=usual, learned_at=MORNING)})
    for number, percent in enumerate(percents, start=1):
        shares = shares.learn({"a/b": percent}, MORNING + LEARNED_AT_ONCE_MAX * number / len(percents))
    most = 100 * (1 - 0.5 ** (LEARNED_AT_ONCE_MAX / HALF_LIFE))
    assert abs(shares.refused_percent("a/b") - usual) <= most + 1e-9


def test_what_is_usual_is_learned_within_weeks_and_begins_with_nothing():
    shares = UsualShares()
    hours = round(HALF_LIFE / LEARNED_AT_ONCE_MAX)
    for hour in range(hours + 1):
        shares = shares.learn({"a/b": 80.0}, MORNING + hour * LEARNED_AT_ONCE_MAX)
    assert shares.refused_percent("a/b") == pytest.approx(40.0)
    assert shares.refused_percent("a/new") == 0.0
    # A clock that is behind changes nothing, and a silence counts for an hour.
    assert shares.learn({"a/b": 0.0}, MORNING) == shares
    silent = shares.learn({"a/b": 0.0}, MORNING + 10 * HALF_LIFE)
    assert silent.refused_percent("a/b") == pytest.approx(40.0, abs=0.2)


def greetings(*, good: int, refused: int) -> list[RawPing]:
    names = [str(uuid.uuid4()) for _ in range(good + refused)]
    return [greeting(name) for name in names[:good]] + [
        greeting(name, body=b'{"text": 5}') for name in names[good:]
    ]


def failures(settings: Settings, report: DrainReport, severity: Severity) -> list[CheckResult]:
    (batch,) = report.committed
    audit = LakeConnections(settings).ledger.audit(batch, Audit)
    assert audit is not None
    return audit.failures(severity)


def assert_honest_pings_arrive(settings: Settings) -> DrainReport:
    """Ship honest pings behind what waits, drain, and assert that they are in the table."""
    honest = ship(settings, objects=1, good=3, bad=1)
    report = drain_once(settings)
    assert len(report.committed) == 1
    assert set(honest.good) <= set(live_document_ids(settings))
    assert dead_letters(settings) == []
    assert queue_is_empty(settings)
    return report
