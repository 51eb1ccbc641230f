"""The exporter: what it shows while sources fail, and the command that runs it."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lake_testing.shipping import ship
from lake_testing.stack import EmbeddedS3, Lake, free_ports, wait_until
from lake_testing.web_pages import RunningPages
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import drain_once
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.monitoring.exporter import INTERVALS_UNTIL_STALE, Exporter, Reading, exporter_of, serve
from telemetry_lake.monitoring.exporter_metrics import DAGS
from telemetry_lake.monitoring.metrics import BY_NAME
from telemetry_lake.monitoring.sources.facts import Fact, age, value
from telemetry_lake.monitoring.sources.lake_sources import AnomalySource
from telemetry_lake.monitoring.sources.web_pages import ANSWER_MAX_SECONDS, WebSource
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import ENV_FILE_VARIABLE, Settings
from telemetry_lake.storage.object_keys import ANOMALY_STATE_KEY

NEVER_DONE: Final = {"telemetry_lake_work_age_seconds", "telemetry_lake_anomalies_age_seconds"}
DEADLINE_SECONDS: Final = 60.0


class Scripted:
    """A source whose readings are given; None fails."""

    name = "queue"
    interval_seconds = 10.0

    def __init__(self, *readings: list[Fact] | None) -> None:
        self._readings = iter(readings)

    def read(self, now: datetime) -> list[Fact]:
        facts = next(self._readings)
        if facts is None:
            raise RetriableError("the queue is away")
        return facts


def waiting(count: int) -> list[Fact]:
    return [value("queue_messages", count, "index", "waiting")]


def samples(exporter: Exporter) -> dict[str, float]:
    return {
        sample.name.removeprefix("telemetry_lake_")
        + "".join(f"/{label}" for label in sample.labels.values()): sample.value
        for family in exporter.collect()
        for sample in family.samples
    }


def in_place(settings: Settings, directory: Path) -> Settings:
    kept = settings.monitoring.model_copy(update={"state_directory": directory})
    return settings.model_copy(update={"monitoring": kept})


@pytest.fixture
def listening(tabled_lake: Lake, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "telemetry_lake", "export-metrics", "--port", str(port)],
        cwd=PROJECT_ROOT,
        env={
            "PATH": "",
            ENV_FILE_VARIABLE: str(tabled_lake.env_file),
            "TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY": str(tmp_path / "kept"),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, port
    process.kill()
    process.communicate()


def test_a_source_that_fails_keeps_its_figures_for_a_while_and_says_so(caplog):
    reading = Reading(Scripted(waiting(1), None, None, waiting(2)))
    exporter = Exporter([])
    exporter.readings.append(reading)
    assert samples(exporter)["exporter_source_errors_total/queue"] == 0
    assert "exporter_source_up/queue" not in samples(exporter)
    reading.read()
    assert samples(exporter)["queue_messages/index/waiting"] == 1
    assert samples(exporter)["exporter_source_up/queue"] == 1
    reading.read()
    reading.read()
    assert samples(exporter)["queue_messages/index/waiting"] == 1
    assert samples(exporter)["exporter_source_up/queue"] == 0
    assert samples(exporter)["exporter_source_errors_total/queue"] == 2
    assert caplog.text.count("queue cannot be read: RetriableError: the queue is away") == 1
    at = reading.good_at
    assert at is not None
    stale_after = INTERVALS_UNTIL_STALE * Scripted.interval_seconds
    names = [
        {fact.name for fact in reading.shown(at + seconds)} for seconds in (stale_after, stale_after + 0.1)
    ]
    assert ["telemetry_lake_queue_messages" in shown for shown in names] == [True, False]
    assert "telemetry_lake_exporter_source_age_seconds" in names[1]
    reading.read()
    hanging = {fact.name: fact.value for fact in reading.shown(time.time() + stale_after + 0.1)}
    assert hanging["telemetry_lake_exporter_source_up"] == 0
    assert samples(exporter)["queue_messages/index/waiting"] == 2
    assert samples(exporter)["exporter_source_up/queue"] == 1


def test_ages_grow_between_readings():
    fact = age("batches_open_oldest_age_seconds", datetime.now(UTC) - timedelta(seconds=5))
    assert fact.value_at(fact.value + 7) == 7
    assert fact.value_at(fact.value - 7) == 0, "another machine's clock may be ahead"


@pytest.mark.parametrize(
    "name, labels",
    [("invented", ()), ("queue_messages", ("index",)), ("queue_messages", ("index", "lost"))],
)
def test_a_fact_that_is_not_in_the_list_is_refused(name, labels):
    with pytest.raises(ValueError, match=r"list of metrics|no labels"):
        value(name, 1, *labels)


def test_every_listed_metric_is_shown_of_a_lake_at_work(tabled_lake, tmp_path):
    exporter = exporter_of(in_place(tabled_lake.settings, tmp_path))
    for reading in exporter.readings:
        reading.read()
    ship(tabled_lake.settings, good=2, bad=1)
    assert drain_once(tabled_lake.settings).failures == []
    for _ in range(2):  # cost comes of what others have read
        for reading in exporter.readings:
            reading.read()
            assert reading.is_good, reading.problem
    shown = {sample.name for family in exporter.collect() for sample in family.samples}
    # Of a lake without a look at all days, without works that were done, and without Airflow and pages.
    absent = {
        name
        for name, metric in BY_NAME.items()
        if metric.source in ("airflow", "completeness", "web") or "_ingest_" in name
    }
    assert shown == BY_NAME.keys() - absent - NEVER_DONE


def test_open_anomalies_are_counted_and_unknown_ones_too(lake_settings):
    lake = LakeConnections(lake_settings)
    source = AnomalySource(lake.records)
    now = datetime.now(UTC)
    assert sum(fact.value for fact in source.read(now)) == 0
    opened = [
        {"kind": "volume_fall", "severity": "critical", "series": "telemetry/main/release"},
        {"kind": "volume_fall", "severity": "critical", "series": "telemetry/main/beta", "silenced": True},
        {"kind": "of tomorrow", "severity": "unheard of"},
    ]
    state = {"format": 1, "checked_at": now.isoformat(), "open": opened}
    lake.store.put(lake_settings.s3.lake_bucket, ANOMALY_STATE_KEY, json.dumps(state).encode())
    counted = {fact.labels: fact.value_at(now.timestamp()) for fact in source.read(now)}
    assert {labels: number for labels, number in counted.items() if number} == {
        ("volume_fall", "critical"): 1,
        ("other", "other"): 1,
    }
    assert counted[()] == 0


def test_web_pages_that_do_not_answer_are_down(lake: Lake, tmp_path: Path):
    pages = RunningPages(lake, tmp_path)
    source = WebSource(pages.url)

    def seen() -> tuple[float, float]:
        up, seconds = source.read(datetime.now(UTC))
        return up.value, seconds.value

    pages.start()
    try:
        assert seen()[0] == 1
    finally:
        pages.kill()
    up, seconds = seen()
    assert up == 0
    assert 0 < seconds < ANSWER_MAX_SECONDS


def test_a_dead_s3_takes_neither_the_queue_nor_the_page_with_it(
    tabled_lake, embedded_s3: EmbeddedS3, tmp_path
):
    exporter = exporter_of(in_place(tabled_lake.settings, tmp_path))
    embedded_s3.kill()
    try:
        for reading in exporter.readings:
            reading.read()
    finally:
        embedded_s3.start()
    shown = samples(exporter)
    assert shown["exporter_source_up/queue"] == 1
    assert shown["queue_messages/index/waiting"] == 0
    for source in ("batches", "tables", "completeness", "work", "analyses"):
        assert shown[f"exporter_source_up/{source}"] == 0
        assert shown[f"exporter_source_errors_total/{source}"] == 1
    for reading in exporter.readings:
        reading.read()
        assert reading.is_good, reading.problem


def test_the_command_shows_metrics_until_it_is_stopped(listening):
    process, port = listening

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    wait_until(
        lambda: 'table_rows{table="live.pings"}' in page(), deadline_seconds=DEADLINE_SECONDS, what="shown"
    )
    for family in text_string_to_metric_families(page()):
        for sample in family.samples:
            assert set(sample.labels) == set(BY_NAME[sample.name].label_names)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0, "it listens on 127.0.0.1 only"
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0


def test_a_port_in_use_is_said_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(FatalError, match=rf"cannot listen on 127.0.0.1:{port}: .*in use.*another --port"):
            serve(lambda: Exporter([]), "127.0.0.1", port, threading.Event())


def test_a_stopped_exporter_reads_no_more():
    exporter = Exporter([Scripted(waiting(1))])
    exporter.start()
    wait_until(lambda: exporter.readings[0].is_good, deadline_seconds=10, what="the first reading")
    begun = time.monotonic()
    exporter.stop()
    assert time.monotonic() - begun < Scripted.interval_seconds
    assert exporter.readings[0].errors == 0


def test_dags_are_listed_in_order():
    assert list(DAGS) == sorted(DAGS)
