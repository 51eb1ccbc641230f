"""From a client's POST to a row of a table, through every real component of the local stack."""

import gzip
import itertools
import json
import re
import struct
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from client_fleet.pings import Pings, Shares
from client_fleet.proof import read_proof
from lake_testing.airflow_user import AirflowUser, administrator
from lake_testing.chaos import EVERY_KIND, chaos
from lake_testing.local_lake import LocalLake, running_fleet, wait_for
from lake_testing.proof_check import wait_for_verdict
from lake_testing.shipping import MORNING, greeting, ship_pings
from telemetry_lake import columns
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import ErrorType
from telemetry_lake.histograms.list_text import list_numbers
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.query.lake import open_lake
from telemetry_lake.settings import Role, load_settings
from tests.end_to_end import glean_client

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

COMMIT_DEADLINE_SECONDS = 180
RECOVERY_DEADLINE_SECONDS = 400
JOB_DEADLINE_SECONDS = 300
FIREFOX_RECORD = PROJECT_ROOT / "lake_testing" / "data" / "ping.v1.record"
RECORD_HEADER = struct.Struct("<BHIQ")
CURL_TARGET = "http://127.0.0.1:8000"
DOCUMENT_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Sent:
    """A ping that a client sent, and the document in it."""

    path: str
    document: dict[str, Any]

    @property
    def document_id(self) -> str:
        found = DOCUMENT_ID.search(self.path)
        assert found is not None
        return found[0]


def _post(stack: LocalLake, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    parts = urlsplit(stack.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("POST", path, body=body, headers=dict(headers or {}))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, path


def _rows(stack: LocalLake, table: str, document_ids: list[str]) -> dict[str, dict[str, Any]]:
    """The rows of `table` by document id; AssertionError when an id has two."""
    listed = ", ".join(f"'{document_id}'" for document_id in document_ids)
    with open_lake(stack.settings) as lake:
        found = lake.query(f"SELECT * FROM {table} WHERE document_id IN ({listed})")
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    assert len({row[columns.DOCUMENT_ID] for row in rows}) == len(rows)
    return {row[columns.DOCUMENT_ID]: row for row in rows}


def _all_rows(stack: LocalLake, table: str, document_ids: list[str]) -> dict[str, dict[str, Any]]:
    """The same, once a row for every document id is there."""

    def all_there() -> dict[str, dict[str, Any]] | None:
        rows = _rows(stack, table, document_ids)
        return rows if rows.keys() == set(document_ids) else None

    return wait_for(
        all_there, deadline_seconds=COMMIT_DEADLINE_SECONDS, what=f"{len(document_ids)} rows in {table}"
    )


def _glean_pings(stack: LocalLake, folder: Path) -> list[Sent]:
    """What the real Glean SDK sends when an application uses it."""
    record = folder / "sent"
    subprocess.run(
        (
            *(sys.executable, "-m", glean_client.__name__, "--server", stack.url),
            *("--data-directory", str(folder / "glean"), "--record", str(record)),
        ),
        cwd=PROJECT_ROOT,
        check=True,
        timeout=120,
    )
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [line["status"] for line in lines] == [200] * len(lines)
    return [Sent(line["path"], line["document"]) for line in lines]


def _firefox_ping(stack: LocalLake) -> Sent:
    """A ping that a Firefox 23 sent in 2013, under a new document id."""
    record = FIREFOX_RECORD.read_bytes()
    _, path_length, data_length, _ = RECORD_HEADER.unpack_from(record)
    path = record[RECORD_HEADER.size :][:path_length].decode()
    body = record[RECORD_HEADER.size + path_length :][:data_length]
    sent = Sent(
        f"/submit/telemetry/{DOCUMENT_ID.sub(str(uuid.uuid4()), path)}", json.loads(gzip.decompress(body))
    )
    _post(stack, sent.path, body, {"Content-Encoding": "gzip"})
    return sent


def _fleet_pings(stack: LocalLake) -> list[Sent]:
    sent = []
    for ping in itertools.islice(
        Pings(uuid.uuid4().int, 20, Shares(late=0.2), lambda: datetime.now(UTC)), 40
    ):
        headers = dict(line.split(": ", 1) for line in ping.headers.splitlines())
        _post(stack, ping.target, ping.body(), headers)
        sent.append(Sent(ping.target, json.loads(gzip.decompress(ping.body()))))
    return sent


def _readme_pings(stack: LocalLake) -> tuple[list[Sent], list[str]]:
    """What the curl examples of the README send, and the document ids of those that are no pings."""
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    good, bad = [], []
    for example in re.findall(r"^```sh\n(curl .*?)^```", readme, re.MULTILINE | re.DOTALL):
        command = example
        for document_id in set(DOCUMENT_ID.findall(example)):
            # The same example twice would be a duplicate, in a stack that runs more than one test.
            command = command.replace(document_id, str(uuid.uuid4()))
        assert CURL_TARGET in command
        done = subprocess.run(
            ("bash", "-c", command.replace(CURL_TARGET, stack.url)),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("HTTP/1.1 200"), done.stdout
        path = re.search(r"/submit/[^\s'\"]*", command)
        data = re.search(r"(?:-d|--data|--data-binary) '(.*?)'", command, re.DOTALL)
        assert path is not None
        assert data is not None
        try:
            good.append(Sent(path[0], json.loads(data[1])))
        except json.JSONDecodeError:
            bad.append(Sent(path[0], {}).document_id)
    assert good
    assert bad
    return good, bad


def test_pings_of_real_clients_become_rows(stack, tmp_path):
    glean = _glean_pings(stack, tmp_path)
    firefox = _firefox_ping(stack)
    readme, readme_garbage = _readme_pings(stack)
    fleet = _fleet_pings(stack)
    sent = {ping.document_id: ping for ping in [*glean, firefox, *readme, *fleet]}

    rows = _all_rows(stack, "live.pings", list(sent))

    for document_id, ping in sent.items():
        assert restore_document(rows[document_id]) == ping.document, ping.path
    _assert_glean(glean, rows)
    _assert_firefox(firefox, rows[firefox.document_id])
    rejected = _all_rows(stack, "live.rejected_pings", readme_garbage)
    assert {row[columns.ERROR_TYPE] for row in rejected.values()} == {ErrorType.INVALID_JSON}
    _assert_audits_can_be_read(stack)


def _assert_audits_can_be_read(stack: LocalLake) -> None:
    """In Airflow's user interface, by users who are logged in and by no others."""
    airflow = stack.plan.airflow_url
    assert httpx.get(f"{airflow}/audits/").status_code == 401
    with administrator(stack) as client:
        day = client.get("/audits/").raise_for_status().text
        batch = re.search(r'href="([0-9a-f]{32})"', day)
        assert batch is not None
        assert "The batch may be published." in client.get(f"/audits/{batch[1]}").raise_for_status().text
        assert client.get(f"/audits/{'0' * 32}").status_code == 404
        assert client.get("/audits/no-batch").status_code == 422
        no_audit = "/audits/dates/2026-11-23/093000.000000-stable.pings-2026-11-22"
        assert client.get(no_audit).status_code == 404
        assert client.get("/audits/dates/no-audit").status_code == 422
        assert httpx.get(f"{airflow}{no_audit}").status_code == 401


def _assert_glean(glean: list[Sent], rows: dict[str, dict[str, Any]]) -> None:
    types = [ping.path.split("/")[3] for ping in glean]
    assert sorted(types) == ["baseline", "baseline", "events", "health", "reading-session"]
    for ping in glean:
        row = rows[ping.document_id]
        client_info = ping.document["client_info"]
        assert row[columns.NAMESPACE] == glean_client.APPLICATION_ID
        assert row[columns.DOCUMENT_TYPE] == ping.path.split("/")[3]
        assert row[columns.DOCUMENT_VERSION] == "1"
        assert row[columns.APP_VERSION] == glean_client.APPLICATION_VERSION
        assert row[columns.APP_BUILD_ID] == glean_client.BUILD_ID
        assert row[columns.APP_UPDATE_CHANNEL] == row[columns.NORMALIZED_CHANNEL] == glean_client.CHANNEL
        assert row[columns.OS] == row[columns.NORMALIZED_OS] == "Linux"
        assert row[columns.CLIENT_ID] == client_info["client_id"]
        assert row[columns.SAMPLE_ID] == zlib.crc32(client_info["client_id"].lower().encode()) % 100
        assert row[columns.REQUEST]["path"] == ping.path
        assert row[columns.COUNTRY] == "??"
    own = next(ping for ping in glean if "reading-session" in ping.path)
    metrics = json.loads(rows[own.document_id][columns.DOCUMENT])["metrics"]
    assert metrics["string"] == {"reading.book": glean_client.BOOK}
    assert metrics["counter"] == {"reading.pages_turned": glean_client.PAGES_TURNED}
    assert rows[own.document_id][columns.REASON] == "book_closed"


def _assert_firefox(sent: Sent, row: dict[str, Any]) -> None:
    info = sent.document["info"]
    assert [row[name] for name in (columns.NAMESPACE, columns.DOCUMENT_TYPE, columns.DOCUMENT_VERSION)] == [
        "telemetry",
        "idle-daily",
        "1",
    ]
    for column, field in (
        (columns.REASON, "reason"),
        (columns.APP_NAME, "appName"),
        (columns.APP_VERSION, "appVersion"),
        (columns.APP_UPDATE_CHANNEL, "appUpdateChannel"),
        (columns.APP_BUILD_ID, "appBuildID"),
        (columns.OS, "OS"),
        (columns.OS_VERSION, "version"),
        (columns.ARCHITECTURE, "arch"),
    ):
        assert row[column] == info[field]
    assert row[columns.NORMALIZED_OS] == "Windows"
    assert row[columns.CLIENT_ID] is None
    histograms = {histogram["name"]: histogram for histogram in row[columns.HISTOGRAMS]}
    # Two have no definition in that revision and stay in the document as they came.
    assert len(sent.document["histograms"].keys() - histograms.keys()) == 2
    for name in histograms:
        histogram = sent.document["histograms"][name]
        assert histograms[name]["sum"] == histogram["sum"]
        filled = {bucket: count for bucket, count in histogram["values"].items() if count}
        buckets, counts = (list_numbers(histograms[name][field]) for field in ("buckets", "counts"))
        stored = dict(zip(map(str, buckets), counts, strict=True))
        assert {bucket: count for bucket, count in stored.items() if count} == filled


def test_a_finished_date_goes_on_to_the_dashboard_by_events_alone(stack):
    document_id = str(uuid.uuid4())
    settings = load_settings(stack.layout.env_file, role=Role.NODE)
    ship_pings(settings, [greeting(document_id, at=MORNING)], first=MORNING)
    _all_rows(stack, "live.pings", [document_id])
    with administrator(stack) as client:

        def is_told() -> bool:
            # What was claimed a moment ago is not looked at yet.
            assert AirflowUser(client).run("reconcile") == "success"
            told = client.get("/api/v2/assets/events", params={"source_dag_id": "reconcile"})
            return any(_names_the_date(event) for event in told.raise_for_status().json()["asset_events"])

        wait_for(is_told, deadline_seconds=COMMIT_DEADLINE_SECONDS, what="the date is finished")
        stable = _run_by_event(client, "stable_tables", _names_the_date)
        _run_by_event(client, "dashboard", lambda event: event["source_run_id"] == stable)


def _names_the_date(event: dict[str, Any]) -> bool:
    return event["source_dag_id"] == "reconcile" and f"{MORNING:%Y-%m-%d}" in event["extra"].get("dates", ())


def _run_by_event(client: httpx.Client, dag: str, is_cause: Callable[[dict[str, Any]], bool]) -> str:
    """Return the id of the run of `dag` that such an event has started, once it has succeeded."""
    runs = f"/api/v2/dags/{dag}/dagRuns"

    def succeeded() -> str | None:
        listed = client.get(runs, params={"run_type": "asset_triggered", "state": "success"})
        for run in listed.raise_for_status().json()["dag_runs"]:
            run_id = str(run["dag_run_id"])
            events = client.get(f"{runs}/{run_id}/upstreamAssetEvents").raise_for_status().json()
            if any(is_cause(event) for event in events["asset_events"]):
                return run_id
        return None

    return wait_for(
        succeeded, deadline_seconds=JOB_DEADLINE_SECONDS, what=f"a run of {dag} that an event started"
    )


def _post_known_garbage(stack: LocalLake) -> dict[str, tuple[str, bytes]]:
    """Garbage whose bytes we know: by document id, the error to expect and the body sent."""
    garbage = {
        ErrorType.UNKNOWN_HISTOGRAM_REVISION: json.dumps(
            {
                "ver": 1,
                "histograms": {"GC_MS": {"values": {"0": 1}}},
                "info": {"revision": "http://hg.mozilla.org/releases/mozilla-release/rev/00000000dead"},
            }
        ).encode(),
        ErrorType.INVALID_JSON: b"\x00\xff\xfe no JSON, and no UTF-8 either",
    }
    posted = {}
    for error, body in garbage.items():
        document_id = str(uuid.uuid4())
        path = f"/submit/telemetry/{document_id}/idle-daily/Firefox/23.0.1/release/20130814063812"
        _post(stack, path, body, {"X-Forwarded-For": "203.0.113.7"})
        posted[document_id] = (str(error), body)
    return posted


def test_garbage_is_kept_with_the_reason_for_which_it_was_rejected(stack, proof):
    known = _post_known_garbage(stack)
    garbage = ("--rate", "60", "--malformed", "0.4", "--oversized", "0.01", "--quiet")
    with running_fleet(stack.url, proof, *garbage) as fleet:
        # Only old pings need definitions, and what has a wrong type does not fit its schema already.
        not_made = {ErrorType.UNKNOWN_HISTOGRAM_REVISION, ErrorType.INVALID_VALUE}
        # A document that is too large costs a fleet too much, and no client can cause a defect of the lake.
        not_made |= {ErrorType.TOO_LARGE, ErrorType.CONVERSION_FAILED}
        needed = {f"rejected:{error}" for error in set(ErrorType) - not_made}

        def every_kind() -> bool:
            return fleet.acknowledged() > 0 and needed <= {ping.expected for ping in read_proof(proof)}

        wait_for(every_kind, deadline_seconds=60, what="garbage of all kinds")
        fleet.stop()

    verdict = wait_for_verdict(proof, stack.settings, deadline_seconds=COMMIT_DEADLINE_SECONDS)
    assert verdict.holds, verdict
    rows = _all_rows(stack, "live.rejected_pings", list(known))
    for document_id, (error, body) in known.items():
        row = rows[document_id]
        assert (row[columns.ERROR_TYPE], row[columns.BODY]) == (error, body)
        assert row[columns.ERROR_MESSAGE]
        assert "203.0.113.7" not in str(row)
        assert "127.0.0.1" not in str(row[columns.HEADERS])


def test_killing_any_process_loses_and_doubles_nothing(stack, proof):
    report = chaos(stack, proof, victims=EVERY_KIND, rate=30, recovery_max_seconds=RECOVERY_DEADLINE_SECONDS)
    assert report.killed.keys() >= set(EVERY_KIND)
    assert report.verdict.acknowledged > 300
    assert report.verdict.holds, report
