"""Drills of the edge: ingest nodes, their spools, S3 and SQS."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from benchmarks.drills.drill import Drill
from benchmarks.drills.stage import Part, Stage, repeatedly, send_signal
from lake_testing.local_lake import wait_for
from telemetry_lake.units import MIB

DISK_FULL_STATUS: Final = 507
KILLS: Final = 6
STARVED_SECONDS: Final = 0.4
RUNNING_SECONDS: Final = (0.001, 0.01)
"""At least and at most: what waited is committed at once, and has to be stopped in the middle of that."""
LARGE_BODY: Final = b"\0" * (MIB - 1)
"""As large as a ping may be; SeaweedFS gets it compressed."""


@contextmanager
def node_hangs(stage: Stage) -> Iterator[None]:
    node = stage.nodes[-1]
    send_signal(stage.lake.processes(node), signal.SIGSTOP)
    try:
        yield
    finally:
        # By the runbook: kill -9; what supervises the node starts it again.
        send_signal(stage.lake.processes(node), signal.SIGKILL)


@contextmanager
def no_node_is_known(stage: Stage) -> Iterator[None]:
    stage.watchers.watch("ingest", [])
    try:
        yield
    finally:
        stage.watchers.watch("ingest", stage.ingest_targets)


@contextmanager
def spools_are_gone(stage: Stage) -> Iterator[None]:
    spools = [node.spool_directory / node.node / "open" for node in stage.lake.plan.nodes]
    for spool in spools:
        spool.rename(spool.with_name("away"))
    try:
        yield
    finally:
        for spool in spools:
            spool.rmdir() if spool.exists() else None
            spool.with_name("away").rename(spool)


@contextmanager
def worker_starves(stage: Stage) -> Iterator[None]:
    """Stop the worker for nearly all of the time, as on a machine whose disk or processor is taken."""
    worker = stage.child(stage.nodes[0], "worker")
    with repeatedly(lambda: _stop_for_a_moment(worker)):
        yield


@contextmanager
def s3_is_away(stage: Stage) -> Iterator[None]:
    with stage.without("seaweedfs"):
        yield


@contextmanager
def sqs_is_away(stage: Stage) -> Iterator[None]:
    with stage.without("elasticmq"):
        yield


@contextmanager
def spools_fill(stage: Stage) -> Iterator[None]:
    with stage.without("seaweedfs"), repeatedly(lambda: _post_large(stage, pause_seconds=0.2)):
        yield


@contextmanager
def spools_are_full(stage: Stage) -> Iterator[None]:
    with stage.without("seaweedfs"):
        wait_for(
            lambda: _post_large(stage) == DISK_FULL_STATUS, deadline_seconds=120, what="a node answers 507"
        )
        with repeatedly(lambda: _post_large(stage, pause_seconds=0.2)):
            yield


@contextmanager
def shipper_hangs(stage: Stage) -> Iterator[None]:
    shipper = stage.child(stage.nodes[0], "shipper")
    send_signal([shipper], signal.SIGSTOP)
    try:
        yield
    finally:
        # By the runbook: kill it; the node starts another.
        send_signal([shipper], signal.SIGKILL)


@contextmanager
def segment_is_damaged(stage: Stage) -> Iterator[None]:
    node = stage.lake.plan.nodes[0]
    spool = node.spool_directory / node.node
    shipper = stage.child(node.name, "shipper")
    send_signal([shipper], signal.SIGSTOP)
    # Those that are there already may be in its memory.
    known = set((spool / "sealed").iterdir())
    segment = wait_for(
        lambda: next(iter(set((spool / "sealed").glob("*.segment")) - known), None),
        deadline_seconds=60,
        what="a segment is sealed",
    )
    _flip_a_byte(segment)
    send_signal([shipper], signal.SIGCONT)
    try:
        yield
    finally:
        # By the runbook: keep the file elsewhere.
        kept = stage.directory / "damaged"
        kept.mkdir(exist_ok=True)
        for file in (spool / "damaged").iterdir():
            file.rename(kept / file.name)


@contextmanager
def worker_dies_again_and_again(stage: Stage) -> Iterator[None]:
    node = stage.nodes[0]
    for _ in range(KILLS):
        worker = stage.child(node, "worker")
        send_signal([worker], signal.SIGKILL)
        wait_for(
            lambda: not psutil.pid_exists(worker),  # noqa: B023
            deadline_seconds=30,
            what="the worker has ended",
        )
    yield


@contextmanager
def web_hook_is_broken(stage: Stage) -> Iterator[None]:
    stage.sink.refuses = True
    try:
        wait_for(
            lambda: stage.watchers.value('ALERTS{alertname="NotTold", alertstate="firing"}'),
            deadline_seconds=60,
            what="NotTold fires in Prometheus",
        )
    finally:
        stage.sink.refuses = False
    yield


@contextmanager
def prometheus_is_away(stage: Stage) -> Iterator[None]:
    stage.watchers.prometheus.kill()
    try:
        yield
    finally:
        stage.watchers.prometheus.start()


@contextmanager
def alertmanager_is_away(stage: Stage) -> Iterator[None]:
    stage.watchers.alertmanager.kill()
    try:
        yield
    finally:
        stage.watchers.alertmanager.start()


def _stop_for_a_moment(process: int) -> None:
    send_signal([process], signal.SIGSTOP)
    time.sleep(STARVED_SECONDS)
    send_signal([process], signal.SIGCONT)
    time.sleep(random.uniform(*RUNNING_SECONDS))


def _post_large(stage: Stage, *, pause_seconds: float = 0.0) -> int:
    """Post a ping as large as may be. Returns the status, 0 for none."""
    parts = urlsplit(stage.lake.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("POST", f"/submit/lake-demo/greeting/1/{uuid4()}", LARGE_BODY)
        status = connection.getresponse().status
    except (OSError, HTTPException):
        status = 0
    finally:
        connection.close()
    time.sleep(pause_seconds)
    return status


def _flip_a_byte(segment: Path) -> None:
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)


_BUDGETS: Final = ("IngestErrorBudgetFast", "IngestErrorBudgetSlow", "IngestErrorBudgetLow")

EDGE_DRILLS: Final = (
    Drill(("IngestNodeDown",), "every process of a node gets SIGSTOP", node_hangs, Part.EDGE, node=-1),
    Drill(("IngestNodesMissing",), "the list of nodes is emptied", no_node_is_known, Part.EDGE),
    Drill(("SegmentOld",), "the shipper of a node gets SIGSTOP", shipper_hangs, Part.EDGE, node=0),
    Drill(
        ("SegmentDamaged",), "a byte of a sealed segment is flipped", segment_is_damaged, Part.EDGE, node=0
    ),
    Drill(
        ("ChildRestarting",),
        f"a worker is killed {KILLS} times",
        worker_dies_again_and_again,
        Part.EDGE,
        node=0,
    ),
    Drill(
        ("CommitSlow",),
        f"a worker is stopped for {STARVED_SECONDS:g} s, again and again",
        worker_starves,
        Part.EDGE,
        node=0,
    ),
    Drill(("NotTold",), "the web hook of the alarms answers 500", web_hook_is_broken, Part.EDGE),
    Drill(("Watchdog",), "Prometheus is killed", prometheus_is_away, Part.EDGE, by_outer_watcher=True),
    Drill(("Watchdog",), "Alertmanager is killed", alertmanager_is_away, Part.EDGE, by_outer_watcher=True),
    Drill(("SqsUnreachable",), "ElasticMQ is stopped", sqs_is_away, Part.EDGE),
    Drill(("S3Unreachable",), "SeaweedFS is stopped", s3_is_away, Part.EDGE),
    Drill(_BUDGETS, "the folder of open segments is moved away", spools_are_gone, Part.EDGE),
    Drill(("SpoolFilling",), "SeaweedFS is stopped, large pings are sent", spools_fill, Part.EDGE),
    Drill(("SpoolFull",), "SeaweedFS is stopped until the spools are full", spools_are_full, Part.EDGE),
)
