"""A server with the operations page, metrics that tests set, and a Prometheus that reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from lake_testing.running_prometheus import PROMETHEUS, RunningPrometheus
from lake_testing.shown_metrics import ShownMetrics
from lake_testing.stack import EmbeddedS3, Lake, administrator_variables, wait_until
from lake_testing.web_pages import RunningPages
from local_stack.lake_environment import env_file_text
from local_stack.secret_files import write_secret_file
from telemetry_lake.monitoring.volumes import VolumeRow, keep_volumes, volumes_of
from telemetry_lake.settings import ENV_FILE_VARIABLE, load_settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import RecordStore

HOSTILE = '"><script>alert(1)</script>\\'
RULES: list[dict[str, object]] = [
    {
        "alert": "DeadLetters",
        "expr": 'sum(telemetry_lake_queue_messages{queue="dead_letters"}) > 0',
        "labels": {"severity": "page"},
        "annotations": {
            "summary": "{{ $value }} messages are dead letters.",
            "runbook": "docs/runbooks.md#deadletters",
        },
    },
    {
        "alert": "Odd",
        "expr": 'telemetry_lake_analysis_jobs{outcome!="new"} > 100',
        "labels": {"severity": "ticket"},
        "annotations": {"summary": "{{ $labels.outcome }} is odd."},
    },
    {"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "watchdog"}},
]


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, and what it reads."""

    lake: Lake
    pages: RunningPages
    exporter: ShownMetrics
    node: ShownMetrics
    prometheus: RunningPrometheus | None
    users_file: Path

    def log_in(self, client: httpx.Client) -> str:
        """Log the administrator in, and return the secret of the session."""
        password = self.users_file.with_name("admin_password").read_text().strip()
        answer = client.post("/analyses/log-in", data={"name": "admin", "password": password})
        assert answer.status_code == 303, answer.text
        return client.cookies["analyses_session"]

    def page(self, client: httpx.Client, path: str = "/operations") -> str:
        """Return a page for who is logged in."""
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def wait_for(self, client: httpx.Client, text: str, *, path: str = "/operations") -> str:
        """Return the page as soon as it has this text."""

        def page() -> str:
            found = self.page(client, path)
            return found if text in found else ""

        return wait_until(page, deadline_seconds=60, what=f"the page says {text!r}")


def shown_lake(exporter: ShownMetrics) -> None:
    """Let an exporter show a quiet lake."""
    for table in ("live.pings", "live.rejected_pings", "stable.pings", "derived.histogram_aggregates"):
        for what, value in (("rows", 1_000), ("bytes", 5_000_000), ("commit_age_seconds", 30)):
            exporter.show(f"table_{what}", value, table=table)
    exporter.show("queue_messages", 7, queue="index", state="waiting")
    exporter.show("queue_messages", 0, queue="dead_letters", state="waiting")
    exporter.show("live_newest_row_age_seconds", 42)
    exporter.show("work_age_seconds", 4_000, work="dashboard_cubes")
    exporter.show("work_late_seconds", 0, work="dashboard_cubes")
    exporter.show("cost_dollars_per_day", 12.5, part="machines")
    exporter.show("exporter_source_up", 1, source="queue")
    exporter.show("exporter_source_age_seconds", 100, source="queue")


def lake_of(s3: EmbeddedS3, folder: Path) -> Lake:
    """Return a lake that is an object store only: neither log-in nor this page use queue and catalog."""
    raw_bucket, lake_bucket = s3.service.buckets
    environment = {
        "TELEMETRY_LAKE_S3__ENDPOINT_URL": s3.service.s3_url,
        "TELEMETRY_LAKE_S3__RAW_BUCKET": raw_bucket,
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": lake_bucket,
        **administrator_variables(),
    }
    env_file = folder / "telemetry_lake.env"
    write_secret_file(env_file, env_file_text(environment))
    return Lake(load_settings(env_file), {**environment, ENV_FILE_VARIABLE: str(env_file)}, env_file)


@pytest.fixture(scope="session")
def site(embedded_s3: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("operations")
    embedded_s3.start()
    lake, exporter, node = lake_of(embedded_s3, folder), ShownMetrics(), ShownMetrics()
    shown_lake(exporter)
    node.show("ingest_requests_total", 5, status="503")
    node.show("ingest_request_seconds", 0.1)
    now = datetime.now(UTC)
    keep_volumes(
        RecordStore(ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket),
        volumes_of(
            [
                VolumeRow(now.replace(minute=0, second=0, microsecond=0), HOSTILE, None, 1_234, 10),
                VolumeRow(now.replace(minute=0, second=0, microsecond=0), None, "invalid_json", 56, 10),
            ],
            [VolumeRow(now.replace(hour=0, minute=0, second=0, microsecond=0), "beta", None, 4_321, 10)],
            now,
        ),
    )
    prometheus = (
        None
        if PROMETHEUS is None
        else RunningPrometheus(folder / "prometheus", {"exporter": f"127.0.0.1:{exporter.port}"}, RULES)
    )
    pages = RunningPages(
        lake,
        folder,
        OPERATIONS="true",
        OPERATIONS_POLL_SECONDS="0.5",
        EXPORTER_URL=exporter.url,
        NODE_URLS=json.dumps([node.url]),
        **({} if prometheus is None else {"PROMETHEUS_URL": prometheus.url}),
    )
    try:
        exporter.start()
        node.start()
        if prometheus is not None:
            prometheus.start()
        pages.start()
        yield Site(lake, pages, exporter, node, prometheus, folder / "users.json")
    finally:
        pages.kill()
        if prometheus is not None:
            prometheus.kill()
        exporter.stop()
        node.stop()


@pytest.fixture
def stranger(site: Site) -> Iterator[httpx.Client]:
    """A client that is not logged in."""
    with httpx.Client(base_url=site.pages.url, timeout=60, headers={"Origin": site.pages.url}) as client:
        yield client


@pytest.fixture(scope="session")
def session(site: Site) -> str:
    """The secret of a session."""
    with httpx.Client(base_url=site.pages.url, timeout=60, headers={"Origin": site.pages.url}) as client:
        return site.log_in(client)


@pytest.fixture
def operator(site: Site, session: str) -> Iterator[httpx.Client]:
    """A client that is logged in."""
    with httpx.Client(base_url=site.pages.url, timeout=60, headers={"Origin": site.pages.url}) as client:
        client.cookies.set("analyses_session", session)
        yield client
