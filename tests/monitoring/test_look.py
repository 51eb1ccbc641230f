"""A look at a real lake: what is opened and closed becomes rows, mails and calls, each once."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from lake_testing.cube_sets import make_cubes
from lake_testing.sample_rows import sample_rows
from lake_testing.steady_pings import HOUR, MINUTE, count_hours, receive
from telemetry_lake.__main__ import app
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.dashboard.selection import parse_selection
from telemetry_lake.failures import FatalError
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.monitoring.anomalies.deliver import deliver
from telemetry_lake.monitoring.anomalies.distribution_source import last_whole_date, shifts
from telemetry_lake.monitoring.anomalies.findings import Finding, Kind, Severity
from telemetry_lake.monitoring.anomalies.look import Looker, decided
from telemetry_lake.monitoring.anomalies.notices import mail_of
from telemetry_lake.monitoring.anomalies.state import DELIVERY_MAX, AnomalyState, StateStore
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE, Settings
from telemetry_lake.storage.object_keys import ANOMALY_STATE_KEY
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.definitions import (
    ANOMALIES,
    HISTOGRAM_AGGREGATES,
    LIVE_REJECTED_PINGS,
    SQL_DIRECTORY,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def reject(settings: Settings, at: datetime, reason: str, pings: int) -> None:
    row = {"submission_date": at.date(), "submission_timestamp": at, "error_type": reason}
    table = load_lake_catalog(settings).load_table(LIVE_REJECTED_PINGS)
    table.append(sample_rows(LIVE_REJECTED_PINGS, [row] * pings))


def rows_of(settings: Settings) -> list[dict[str, Any]]:
    rows = load_lake_catalog(settings).load_table(ANOMALIES).scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["changed_at"], row["change"], row["series"]))


def test_a_lake_that_loses_its_pings_says_so_once_and_once_that_they_are_back(
    watched: Settings, mails: Any, hook: Any
) -> None:
    count_hours(watched, NOW - HOUR)
    receive(watched, NOW - 3 * HOUR, NOW - 20 * MINUTE)
    usual = Looker(watched).look(NOW - 18 * MINUTE)
    assert (usual.changes, usual.state.open) == ((), ())

    fallen = Looker(watched).look(NOW)
    assert fallen.is_delivered
    assert [(each.kind, each.series) for each in fallen.state.open] == [(Kind.VOLUME_FALL, "*/*/*")]
    Looker(watched).look(NOW)
    Looker(watched).look(NOW + MINUTE)
    (row,) = rows_of(watched)
    assert (row["change"], row["value"], row["expected"]) == ("opened", 0, 60)
    received, _ = mails
    assert [mail["To"] for mail in received.received] == ["ann@example.org", "bob@example.org"]
    mail = received.received[0]
    assert mail["Subject"] == "[telemetry] volume fall of all pings"
    assert "all pings: 0 pings lately where 60 are usual (-100%)" in mail.get_content()
    assert "Since 2026-11-23 11:43 UTC, found 2026-11-23 12:00 UTC" in mail.get_content()
    assert "https://lake.example.org/operations" in mail.get_content()
    ((_, key, body),) = hook.received
    assert key.startswith("anomalies/")
    assert json.loads(body)["changes"][0]["change"] == "opened"

    receive(watched, NOW - 20 * MINUTE, NOW + 150 * MINUTE)
    back = Looker(watched).look(NOW + 150 * MINUTE)
    assert back.state.open == ()
    assert [(each.series, each.first) for each in back.state.spans] == [("*/*/*", NOW - 17 * MINUTE)]
    assert len(received.received) == 4
    assert received.received[2]["Subject"] == "[telemetry] over: volume fall of all pings"
    assert "After 2 hours, since 2026-11-23 11:43 UTC" in received.received[2].get_content()
    golden = yaml.safe_load((SQL_DIRECTORY / "derived" / "anomalies" / "golden.yaml").read_text())
    found = [{name: row[name] for name in golden["expected"][0]} for row in rows_of(watched)]
    assert found == golden["expected"]


def test_errors_and_one_channel_are_told_in_one_mail_and_silenced_ones_are_not(
    watched: Settings, mails: Any
) -> None:
    count_hours(watched, NOW - HOUR)
    receive(watched, NOW - 3 * HOUR, NOW)
    receive(watched, NOW - 40 * MINUTE, NOW, ["beta"] * 20)
    reject(watched, NOW - 10 * MINUTE, "too_large", 50)
    quiet = watched.anomalies.model_copy(update={"silenced": ("new_error *",)})
    looked = Looker(watched.model_copy(update={"anomalies": quiet})).look(NOW)
    assert {(each.kind, each.series, each.silenced) for each in looked.state.open} == {
        (Kind.VOLUME_RISE, "*/*/*", False),
        (Kind.VOLUME_RISE, "telemetry/*/beta", False),
        (Kind.ERROR_SHARE, "too_large", False),
        (Kind.NEW_ERROR, "too_large", True),
    }
    assert len(rows_of(watched)) == 4
    text = mails[0].received[0].get_content()
    assert "too_large: 4." in text
    assert "of all pings are rejected, of at most 1%" in text
    assert "which is new" not in text
    assert "/operations?namespace=telemetry&channel=beta" in text


def test_a_mail_server_that_does_not_answer_is_asked_again_and_given_up_after_a_day(
    watched: Settings, mails: Any, hook: Any
) -> None:
    finding = Finding(Kind.NEW_ERROR, "too_large", NOW, 12, 0, Severity.WARNING, "/operations")
    states = StateStore(ObjectStore(watched.s3), watched.s3.lake_bucket)
    catalog = load_lake_catalog(watched)
    states.change(lambda state: decided(state, [finding], [Kind.NEW_ERROR], NOW))
    mails[0].answers = ["451 later", "451 later", "451 later"]
    assert not deliver(watched, states, lambda: catalog, "a", lambda: NOW)
    assert len(hook.received) == 1
    assert not deliver(watched, states, lambda: catalog, "b", lambda: NOW + 5 * MINUTE)
    assert [mail["To"] for mail in mails[0].received] == ["bob@example.org"]
    assert deliver(watched, states, lambda: catalog, "c", lambda: NOW + 10 * MINUTE)
    assert [mail["To"] for mail in mails[0].received] == ["bob@example.org", "ann@example.org"]
    assert (len(hook.received), len(rows_of(watched)), states.read().state.pending) == (1, 1, ())

    states.change(lambda state: decided(state, [], [Kind.NEW_ERROR], NOW + HOUR))
    mails[0].answers = ["451 later", "451 later"]
    assert deliver(watched, states, lambda: catalog, "d", lambda: NOW + 26 * HOUR)
    assert len(mails[0].received) == 2


def test_only_one_process_delivers_at_a_time_and_one_that_died_is_replaced(
    watched: Settings, mails: Any
) -> None:
    finding = Finding(Kind.NEW_ERROR, "too_large", NOW, 12, 0, Severity.WARNING, "/operations")
    states = StateStore(ObjectStore(watched.s3), watched.s3.lake_bucket)
    states.change(lambda state: decided(state, [finding], [Kind.NEW_ERROR], NOW))

    def die() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(watched, states, die, "dead", lambda: NOW)
    catalog = load_lake_catalog(watched)
    almost = NOW + DELIVERY_MAX - timedelta(microseconds=1)
    assert not deliver(watched, states, lambda: catalog, "other", lambda: almost)
    assert rows_of(watched) == []
    assert deliver(watched, states, lambda: catalog, "other", lambda: NOW + DELIVERY_MAX)
    assert (len(rows_of(watched)), len(mails[0].received)) == (1, 2)


def test_a_state_of_another_form_is_named(watched: Settings) -> None:
    store = ObjectStore(watched.s3)
    store.put(watched.s3.lake_bucket, ANOMALY_STATE_KEY, b'{"format": "?"}')
    with pytest.raises(FatalError, match=r"is not the state of the anomalies"):
        Looker(watched).look(NOW)


def test_the_command_says_what_is_open(watched: Settings, lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(lake.env_file))
    assert "Nobody has looked for anomalies yet" in CliRunner().invoke(app, ["anomalies"]).output
    finding = Finding(Kind.ERROR_SHARE, "*", NOW, 0.2, 0.1, Severity.CRITICAL, "/operations")
    states = StateStore(ObjectStore(watched.s3), watched.s3.lake_bucket)
    states.change(lambda state: decided(state, [finding], [Kind.ERROR_SHARE], NOW))
    output = CliRunner().invoke(app, ["anomalies"]).output
    assert "all reasons together: 20.00% of all pings are rejected, of at most 10%" in output
    assert "1 open; looked" in output
    assert "1 changes are not told of yet" in output


def test_the_job_finds_what_happens_now_and_the_command_shows_it(
    watched: Settings,
    lake: Any,
    mails: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    count_hours(watched, now.replace(minute=0) - HOUR)
    receive(watched, now - 4 * HOUR, now - 30 * MINUTE)
    receive(watched, now - 30 * MINUTE, now, ["release"] * 4)
    variables = {
        "TELEMETRY_LAKE_MAIL__HOST": "127.0.0.1",
        "TELEMETRY_LAKE_MAIL__PORT": str(watched.mail.port),
        "TELEMETRY_LAKE_MAIL__SECURITY": "none",
        "TELEMETRY_LAKE_ANOMALIES__MAILS": '["ops@example.org"]',
        ENV_FILE_VARIABLE: str(lake.env_file),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, PROJECT_ROOT / "jobs" / "anomalies.py"], check=True, cwd="/")
    printed = capfd.readouterr().out
    assert "opened: volume_rise all pings: " in printed
    assert "anomalies are open" in printed
    (mail,) = mails[0].received
    assert mail["To"] == "ops@example.org"
    assert "volume rise of all pings" in mail["Subject"]
    shown = CliRunner().invoke(app, ["anomalies"]).output
    assert "critical" in shown
    assert "all pings: " in shown
    assert f"{len(rows_of(watched))} open; looked 0 minutes ago" in shown


def test_a_line_break_in_a_series_adds_no_header() -> None:
    finding = Finding(
        Kind.NEW_ERROR, "x\r\nBcc: all@example.org", NOW, 12, 0, Severity.WARNING, "/operations"
    )
    state, _ = decided(AnomalyState(), [finding], [Kind.NEW_ERROR], NOW)
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        mail_of("lake@example.org", "ann@example.org", state.pending[0], None)


def aggregates(shift_from: date, *, by_build: bool) -> dict[date, Any]:
    """Two weeks of GC_MS, of which the builds or the days from a date on are slower."""
    bounds = bucket_bounds(BucketRange(HistogramType.EXPONENTIAL, 1, 1_000, 20))
    rows = {}
    for number in range(14):
        day = date(2026, 11, 9) + timedelta(days=number)
        builds = [day - timedelta(days=1), day] if by_build else [date(2026, 11, 1)]
        rows[day] = sample_rows(
            HISTOGRAM_AGGREGATES,
            [_row(day, build, bounds, (build if by_build else day) >= shift_from) for build in builds],
        )
    return rows


def _row(day: date, build: date, bounds: tuple[int, ...], is_slow: bool) -> dict[str, Any]:
    place = np.arange(len(bounds))
    counts = (100_000 * np.exp(-((place - (9 if is_slow else 7)) ** 2) / 8)).astype(int) + 1
    return {
        "submission_date": day,
        "build_date": build,
        "namespace": "telemetry",
        "document_type": "main",
        "app_update_channel": "nightly",
        "app_version": "120.0",
        "name": "GC_MS",
        "process": "parent",
        "key": None,
        "histogram_type": int(HistogramType.EXPONENTIAL),
        "bucket_count": 20,
        "range_low": 1,
        "range_high": 1_000,
        "pings": int(counts.sum()),
        "clients": 10,
        "sum": 100,
        "buckets": list(bounds),
        "counts": counts.tolist(),
        "normalized": (counts / counts.sum()).tolist(),
    }


@pytest.mark.parametrize("by_build", [True, False])
def test_a_slower_build_is_found_in_the_cubes_and_linked(lake_settings: Settings, by_build: bool) -> None:
    day = date(2026, 11, 18)
    manifest = make_cubes(lake_settings, aggregates(day, by_build=by_build))
    assert manifest is not None
    last = last_whole_date(manifest)
    assert last == date(2026, 11, 22)
    versions = CubeVersions(ObjectStore(lake_settings.s3), lake_settings.s3.lake_bucket)
    found = {finding.kind: finding for finding in shifts(versions, manifest, last)}
    finding = found[Kind.BUILD_SHIFT if by_build else Kind.DAY_SHIFT]
    assert finding.series == "telemetry/main/nightly/parent/GC_MS"
    assert finding.since.date() == day
    assert finding.value > 0.12
    selection = parse_selection(parse_qsl(urlsplit(finding.link).query), today=last)
    assert (selection.metric, selection.ping) == ("GC_MS", "telemetry/main")
    if not by_build:
        assert Kind.BUILD_SHIFT not in found, "there is one build only"
