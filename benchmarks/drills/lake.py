"""Drills of what is behind the edge and of its exporter, on a stack that is drained by hand."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from uuid import uuid4

import boto3

from benchmarks.drills.drill import Drill
from benchmarks.drills.stage import Part, Stage, hanging, repeatedly, send_signal
from lake_testing.local_lake import wait_for
from lake_testing.shipping import greeting, ship_pings
from local_stack.monitoring import EXPORTER
from local_stack.web_pages import WEB
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.steps import Drain
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Role, SqsSettings
from telemetry_lake.storage.aws import client_arguments

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MESSAGES: Final = 1_100
"""A tenth more than may wait: drained before something has waited so long that QueueOld mutes QueueDeep."""
GARBAGE_RATE: Final = 20.0
"""Pings of an unknown kind, per second: twice as many as the others."""
WRONG_PRICE: Final = "1000"
"""Dollars for a million requests of SQS, 2,500 times too many."""
STARVED_SECONDS: Final = 4.0
RUNNING_SECONDS: Final = 0.05
MENDED_SECONDS: Final = 240.0
"""What a command that is given again and again needs at most, on a busy machine."""


def _sqs(settings: SqsSettings) -> "SQSClient":
    client: SQSClient = boto3.client("sqs", **client_arguments(settings))  # type: ignore[call-overload]
    return client


@contextmanager
def exporter_is_away(stage: Stage) -> Iterator[None]:
    with stage.without(EXPORTER):
        yield


@contextmanager
def dead_letters_have_no_queue(stage: Stage) -> Iterator[None]:
    settings = stage.settings(Role.DRAIN).sqs
    sqs = _sqs(settings)
    name = settings.dead_letter_queue_name
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
    try:
        yield
    finally:
        sqs.create_queue(QueueName=name)


@contextmanager
def queue_has_a_foreign_message(stage: Stage) -> Iterator[None]:
    settings = stage.settings(Role.DRAIN).sqs
    sqs = _sqs(settings)
    index = sqs.get_queue_url(QueueName=settings.index_queue_name)["QueueUrl"]
    sqs.send_message(QueueUrl=index, MessageBody='{"hello": "queue"}')
    yield
    # By the runbook: no raw object waits behind it.
    stage.command("replay", "dead-letters", "--delete-foreign")


@contextmanager
def strangers_send_garbage(stage: Stage) -> Iterator[None]:
    parts = urlsplit(stage.lake.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)

    def send() -> None:
        connection.request("POST", f"/submit/lake-demo/no-such-kind/1/{uuid4()}", b'{"hello": "lake"}')
        connection.getresponse().read()
        time.sleep(1 / GARBAGE_RATE)

    # By the runbook nothing is to be done: the share falls when it ends.
    with repeatedly(send):
        yield


@contextmanager
def batch_is_forgotten(stage: Stage) -> Iterator[None]:
    """Claim a batch, and lose its messages, as a run that is killed while somebody purges the queue."""
    with stage.drain.stopped():
        lake = LakeConnections(stage.settings(Role.DRAIN))
        claimed = wait_for(
            lambda: Drain(lake).claim().batches, deadline_seconds=MENDED_SECONDS, what="a batch is claimed"
        )
        lake.queue.delete(message.receipt for batch in claimed for message in batch.held)
    yield
    # By the runbook: its messages are sent again, and the next drain finishes it.
    wait_for(
        lambda: " 0 claimed and never committed" not in stage.command("reconcile").stdout,
        deadline_seconds=MENDED_SECONDS,
        what="reconcile sends the messages of the batch again",
    )
    # It also saw them as overdue, which they are until somebody looks again.
    _wait_until_complete(stage)


@contextmanager
def message_is_lost(stage: Stage) -> Iterator[None]:
    now = datetime.now(UTC)
    pings = [greeting(str(uuid4()), at=now) for _ in range(3)]
    ship_pings(stage.settings(Role.NODE), pings, first=now, send=False)
    wait_for(
        lambda: " overdue" in stage.command("completeness").stdout,
        deadline_seconds=MENDED_SECONDS,
        what="a raw object is overdue",
    )
    yield
    # By the runbook: make the queue again, drain, look again.
    stage.command("rebuild-queue", "--skip-complete")
    _wait_until_complete(stage)


def _wait_until_complete(stage: Stage) -> None:
    wait_for(
        lambda: stage.command("completeness").returncode == 0,
        deadline_seconds=MENDED_SECONDS,
        what="nothing is overdue any more",
    )


@contextmanager
def queue_grows(stage: Stage) -> Iterator[None]:
    now = datetime.now(UTC)
    settings = stage.settings(Role.NODE)
    with stage.drain.stopped():
        message = ship_pings(settings, [greeting(str(uuid4()), at=now)], first=now)
        again: list[IndexMessage] = [message] * MESSAGES
        IndexQueue(settings.sqs).send_all(again)
        yield


@contextmanager
def nothing_drains(stage: Stage) -> Iterator[None]:
    with stage.drain.stopped():
        yield


@contextmanager
def shippers_hang(stage: Stage) -> Iterator[None]:
    with hanging(stage.child(node, "shipper") for node in stage.nodes):
        yield


@contextmanager
def price_is_wrong(stage: Stage) -> Iterator[None]:
    name = "TELEMETRY_LAKE_MONITORING__PRICES__QUEUE_REQUESTS_MILLION"
    stage.restart_exporter_with(**{name: WRONG_PRICE})
    try:
        yield
    finally:
        stage.restart_exporter_with(**{name: "0.4"})


@contextmanager
def pages_are_away(stage: Stage) -> Iterator[None]:
    with stage.without(WEB):
        yield


@contextmanager
def pages_starve(stage: Stage) -> Iterator[None]:
    """Stop the web pages for most of the time, as on a machine whose processors are taken."""

    def starve() -> None:
        for number, seconds in ((signal.SIGSTOP, STARVED_SECONDS), (signal.SIGCONT, RUNNING_SECONDS)):
            send_signal(stage.lake.processes(WEB), number)
            time.sleep(seconds)

    with repeatedly(starve):
        yield


_BUDGETS: Final = ("FreshnessBudgetFast", "FreshnessBudgetSlow", "FreshnessBudgetLow")

LAKE_DRILLS: Final = (
    Drill(_BUDGETS, "the shippers of all nodes get SIGSTOP", shippers_hang, Part.FLOW),
    Drill(("ExporterDown",), "the exporter is stopped", exporter_is_away, Part.FLOW),
    Drill(("SourceUnread",), "the queue of dead letters is deleted", dead_letters_have_no_queue, Part.FLOW),
    Drill(
        ("DeadLetters",),
        "the queue gets a message of another program",
        queue_has_a_foreign_message,
        Part.FLOW,
    ),
    Drill(
        ("RejectedUnusual", "RejectedMany"),
        f"{GARBAGE_RATE:g} pings/s of an unknown document type are sent",
        strangers_send_garbage,
        Part.FLOW,
    ),
    Drill(("BatchStuck",), "the messages of a claimed batch are deleted", batch_is_forgotten, Part.FLOW),
    Drill(("QueueDeep",), f"{MESSAGES} messages are sent, and nothing drains", queue_grows, Part.FLOW),
    Drill(("QueueOld",), "nothing drains", nothing_drains, Part.FLOW),
    Drill(
        ("PingsOverdue",),
        "a raw object is shipped without a message, and is overdue after 72 s",
        message_is_lost,
        Part.FLOW,
    ),
    Drill(("WebDown",), "the web pages are stopped", pages_are_away, Part.FLOW),
    Drill(
        ("WebSlow",),
        f"the web pages are stopped for {STARVED_SECONDS:g} s, again and again",
        pages_starve,
        Part.FLOW,
    ),
    Drill(("CostJump",), "a price is set 2,500 times too high", price_is_wrong, Part.FLOW),
)
