"""The node as an operator sees it: start, stop, what it shows, what it takes."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import telemetry_lake
from ingest_server.edge import PIPELINED_MAX
from ingest_server.health import version_of
from lake_testing.stack import wait_until
from telemetry_lake.project_files import PROJECT_ROOT
from tests.ingest.running_node import RunningNode, request, wait_for_bytes

NewNode = Callable[..., RunningNode]
SPECIFICATION = PROJECT_ROOT / "docs" / "ingest_spec.md"
PIPELINED = PIPELINED_MAX - 1
WORKER_MAX_BYTES = 150 * 1024 * 1024


def run_to_its_end(node: RunningNode) -> tuple[int, str]:
    node.start(wait=False)
    assert node.process is not None
    return node.process.wait(60), node.log()


# --- start ------------------------------------------------------------------------------------


def test_help() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ingest_server", "--help"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "docs/ingest_spec.md" in shown.stdout


def test_a_wrong_option_is_named() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ingest_server", "--workers", "0"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("ingest_server: --workers:")


@pytest.mark.parametrize("files, connections", [(164, "100"), (163, "99"), (64, None)])
def test_connections_are_no_more_than_files_may_be_open(files: int, connections: str | None) -> None:
    code = (
        "from ingest_server.__main__ import with_possible_connections as possible;"
        "from telemetry_lake.settings import IngestSettings, Settings;"
        "settings = Settings(ingest=IngestSettings(connections_max=100));"
        "print(possible(settings).ingest.connections_max)"
    )
    shown = subprocess.run(
        ["prlimit", f"--nofile={files}:{files}", sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if connections is None:
        assert "raise the limit with `ulimit -n`" in shown.stderr
    else:
        assert shown.stdout.strip() == connections


@pytest.mark.parametrize("shares", [True, False], ids=["with SO_REUSEPORT", "without"])
def test_a_port_that_somebody_else_has_is_not_shared(new_node: NewNode, shares: bool) -> None:
    node = new_node()
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", node.port))
        other.listen()
        status, log = run_to_its_end(node)
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{node.port}" in log
    assert "TELEMETRY_LAKE_INGEST__PORT" in log


def test_a_spool_that_cannot_be_used_is_named(new_node: NewNode) -> None:
    node = new_node()
    node.spool.directory.write_text("not a directory")
    status, log = run_to_its_end(node)
    assert status == 1
    assert str(node.spool.directory) in log
    assert "TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY" in log


def test_workers_import_nothing_heavy() -> None:
    code = (
        "import sys, ingest_server.__main__, ingest_server.node, ingest_server.worker;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    heavy = {
        "boto3",
        "botocore",
        "pyarrow",
        "numpy",
        "pandas",
        "polars",
        "pyiceberg",
        "tenacity",
        "typer",
        "rich",
    }
    assert heavy & set(shown.stdout.split()) == set()


def test_memory_of_a_worker_under_256_connections(new_node: NewNode) -> None:
    node = new_node().start()
    clients = [node.client() for _ in range(256)]
    body = b"x" * 30_000
    for _ in range(20):
        for client in clients:
            client.send(request(body=body))
        assert {client.answer().status for client in clients} == {200}
    (worker,) = node.children("worker")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    for client in clients:
        client.close()
    assert int(peak) * 1024 <= WORKER_MAX_BYTES


def test_workers_share_the_port_and_the_numbers(new_node: NewNode) -> None:
    node = new_node(workers=3).start()
    for _ in range(60):
        assert node.ask(request()).status == 200
    workers = {path.name.split("-")[1] for path in node.spool.open_directory.iterdir()}
    assert workers == {"w0", "w1", "w2"}
    metrics = node.metrics()
    assert metrics['requests_total{status="200"}'] >= 60
    assert metrics["request_seconds_count"] == 60
    wait_until(
        lambda: node.metrics()['spool_segments{state="open"}'] == 3,
        deadline_seconds=30,
        what="the observer looks at the spool",
    )


# --- commit -----------------------------------------------------------------------------------


def test_waiting_requests_share_a_commit(node: RunningNode) -> None:
    before = node.metrics()
    with node.client() as client:
        client.send(request() * PIPELINED)
        assert {client.answer().status for _ in range(PIPELINED)} == {200}
    after = node.metrics()
    assert after["request_seconds_count"] - before["request_seconds_count"] == PIPELINED
    assert 1 <= after["commit_seconds_count"] - before["commit_seconds_count"] < PIPELINED


def test_segments_are_sealed_at_their_size_and_age(new_node: NewNode) -> None:
    node = new_node(segment_max_bytes=50_000, stop_ship_seconds=0.1).start()
    for _ in range(7):
        assert node.ask(request(body=b"x" * 20_000)).status == 200
    assert [segment.pings for segment in node.spool.sealed_segments()] == [3, 3]
    assert node.stop() == 0
    aged = new_node(segment_max_age_seconds=0.2).start()
    assert aged.ask(request()).status == 200
    wait_until(
        lambda: not aged.spool.waiting_open().segments, deadline_seconds=30, what="the segment is sealed"
    )


# --- stop -------------------------------------------------------------------------------------


def test_stop_answers_what_has_begun(new_node: NewNode) -> None:
    node = new_node(stop_ship_seconds=0.1, stop_answer_seconds=30).start()
    data = request(b"/submit/telemetry/begun", b"x" * 1_000)
    with node.client() as idle, node.client() as begun:
        idle.send(request())
        assert idle.answer().status == 200
        begun.send(data[:-1])
        # The other connection's answer shows that the worker has read what was sent before.
        assert node.ask(request()).status == 200
        assert node.process is not None
        node.process.terminate()
        assert idle.is_closed_by_server()
        wait_until(lambda: refuses(node), deadline_seconds=30, what="no new connections")
        assert not wait_for_bytes(begun, 0.1)
        begun.send(data[-1:])
        answer = begun.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert node.process.wait(30) == 0
    assert node.spool.waiting_open().segments == 0
    assert b"/submit/telemetry/begun" in [ping.path for ping in node.stored()]


def refuses(node: RunningNode) -> bool:
    try:
        with node.client(timeout_seconds=1):
            return False
    except ConnectionError:
        return True


def test_stop_does_not_wait_for_ever(new_node: NewNode) -> None:
    node = new_node(stop_answer_seconds=0.3, stop_ship_seconds=0.1).start()
    with node.client() as client:
        client.send(request(body=b"x" * 100)[:-1])
        assert node.ask(request()).status == 200
        assert node.stop() == 0
        assert client.is_closed_by_server()


# --- what it shows ----------------------------------------------------------------------------


def test_heartbeat(new_node: NewNode) -> None:
    node = new_node().start()
    assert node.ask(request()).status == 200

    def shown_now() -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(node.get_privately("/__heartbeat__").body)
        return shown

    wait_until(
        lambda: shown_now()["checks"]["sqs"] == "unreachable" and shown_now()["spool_waiting_bytes"],
        deadline_seconds=60,
        what="the shipper has looked at S3 and SQS, and the observer at the spool",
    )
    answer = node.get_privately("/__heartbeat__")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    shown = json.loads(answer.body)
    assert shown["checks"] == {"disk": "ok", "commit": "ok", "s3": "unreachable", "sqs": "unreachable"}
    assert shown["spool_free_bytes"] > 0
    assert shown["spool_waiting_bytes"] > 0
    assert shown["oldest_segment_age_seconds"] > 0
    assert node.metrics()["s3_reachable"] == 0


def test_version(node: RunningNode) -> None:
    shown = json.loads(node.get("/__version__").body)
    assert set(shown) == {"source", "version", "commit", "build", "telemetry_lake"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", shown["version"])
    assert shown["telemetry_lake"] == telemetry_lake.__version__


def test_version_of_a_build_says_what_runs_as_well(tmp_path: Path) -> None:
    built = {"source": "https://example.org/lake", "version": "1.2.3", "commit": "abc", "build": "17"}
    (tmp_path / "version.json").write_text(json.dumps(built))
    assert version_of(tmp_path) == {**built, "telemetry_lake": telemetry_lake.__version__}


def test_metrics_are_those_of_the_specification(node: RunningNode) -> None:
    _, _, table = SPECIFICATION.read_text().partition("### Metrics")
    rows = [
        line.split("|")[1]
        for line in table.partition("## Durability")[0].splitlines()
        if line.startswith("| `")
    ]
    promised = {name.partition("{")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    wait_until(lambda: "sqs_reachable" in node.metrics(), deadline_seconds=60, what="the shipper has looked")
    text = node.get_privately("/metrics").body.decode()
    shown = re.findall(r"^# TYPE telemetry_lake_ingest_(\S+) \S+$", text, re.MULTILINE)
    assert sorted(shown) == sorted(promised)


def test_every_status_of_the_specification_is_counted(node: RunningNode) -> None:
    _, _, table = SPECIFICATION.read_text().partition("## Answers")
    promised = set(re.findall(r"^\| (\d{3}) \|", table, re.MULTILINE))
    shown = {name for name in node.metrics() if name.startswith("requests_total")}
    assert shown == {f'requests_total{{status="{status}"}}' for status in promised}


def test_limits_in_the_specification_are_the_defaults() -> None:
    from telemetry_lake.settings import IngestSettings

    text = SPECIFICATION.read_text()
    for name in (
        "max_path_bytes",
        "max_captured_field_bytes",
        "head_timeout_seconds",
        "body_timeout_seconds",
        "keep_alive_seconds",
        "connections_max",
        "connections_per_address_max",
        "memory_max_bytes",
        "memory_per_address_max_bytes",
        "commit_max_seconds",
        "segment_max_age_seconds",
        "stop_answer_seconds",
        "stop_ship_seconds",
    ):
        (said,) = set(re.findall(rf"`{name}`[ \n]\(([\d,]+)\)", text))
        assert float(said.replace(",", "")) == getattr(IngestSettings(), name), name


def test_logs_are_json_lines(node: RunningNode) -> None:
    for line in node.log().splitlines():
        assert {"time", "level", "process", "pid", "event"} <= set(json.loads(line))
