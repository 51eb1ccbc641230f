"""The first ping of a deployed lake: posted to its nodes, and followed to its row.

It takes the way of every ping: a node answers 200 when it is durable, ships it as part of a raw object, and
the drain makes a row of it. Where it stops, the deployment says how far it came and what to look at.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import httpx

from provisioning.parameters import Values
from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.settings import Settings
from telemetry_lake.storage.aws import aws_failures
from telemetry_lake.storage.object_keys import raw_object_prefix
from telemetry_lake.storage.object_store import ObjectNotFound, ObjectStore

PATH: Final = "/submit/lake-demo/greeting/1/"
PING_ADDRESS: Final = "PingAddress"
"""The output that says where the balancer of the ingest nodes is."""
CERTIFICATE: Final = "CertificateArn"
"""The parameter that names the certificate of the balancer."""
WAIT_MAX_SECONDS: Final = 900.0
"""A machine starts for minutes, a segment is sealed after 60 s, and the first batch compiles for minutes."""
LOOK_SECONDS: Final = 5.0
POST_TIMEOUT_SECONDS: Final = 10.0
CLOCK_SKEW: Final = timedelta(minutes=5)
"""By how much the clocks of this machine, of a node and of S3 may differ."""
RAW_OBJECTS_READ_MAX: Final = 50
"""A busy lake has many raw objects at that time; the row is found there all the same."""


class Reached(StrEnum):
    """How far a ping came."""

    NOWHERE = "not acknowledged"
    ACKNOWLEDGED = "acknowledged"
    SHIPPED = "shipped"
    ROW = "a row"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a ping is posted, and the name for which the certificate has to be when it is not that of the
    URL.
    """

    url: str
    server_name: str | None = None


class NotArrived(FatalError):
    """The first ping did not become a row. `reached` says how far it came."""

    def __init__(self, message: str, reached: Reached) -> None:
        super().__init__(message)
        self.reached = reached


def target_of(outputs: Mapping[str, str], values: Values, acm: Any) -> Target:
    """Return where the nodes of a lake are reached before any name points at them.

    It is their balancer, which has to show the certificate of the name that clients know. Raises
    ConfigurationError when the stacks have no balancer or their parameters no certificate.
    """
    address, certificate = outputs.get(PING_ADDRESS), values.given.get(CERTIFICATE)
    if address is None or certificate is None:
        missing = f"no output {PING_ADDRESS}" if address is None else f"no value of {CERTIFICATE}"
        raise ConfigurationError(
            f"there is {missing}, so it is not known where pings are posted: give --first-ping-url, or "
            "--no-first-ping"
        )
    with aws_failures(f"asking ACM for the name of {certificate}"):
        name = acm.describe_certificate(CertificateArn=certificate)["Certificate"]["DomainName"]
    return Target(f"https://{address}", str(name).replace("*", "first-ping", 1))


@dataclass(slots=True)
class FirstPing:
    """A ping on its way. `say` is told of each place that it has reached, `observe` of the seconds so far."""

    target: Target
    settings: Settings
    """Of a reader of the tables."""
    store: ObjectStore
    say: Callable[[str], None]
    observe: Callable[[float], None]
    max_seconds: float = WAIT_MAX_SECONDS
    sleep: Callable[[float], None] = time.sleep
    document_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    reached: Reached = Reached.NOWHERE
    _started: float = field(default_factory=time.monotonic)
    _posted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _read: set[str] = field(default_factory=set)

    def deliver(self) -> None:
        """Post the ping and wait until it is a row of live.pings. Raises NotArrived."""
        self._post()
        self._reach(Reached.ACKNOWLEDGED, f"the ping {self.document_id} is acknowledged by {self.target.url}")
        while self._has_time():
            if self._has_row("live.pings"):
                self._reach(Reached.ROW, "it is a row of live.pings")
                return
            if self.reached is Reached.ACKNOWLEDGED and (key := self._shipped_as()) is not None:
                self._reach(Reached.SHIPPED, f"it is shipped: {key}")
            if self._has_row("live.rejected_pings"):
                self.reached = Reached.REJECTED
                break
            self.sleep(LOOK_SECONDS)
        raise NotArrived(self._why(), self.reached)

    def _post(self) -> None:
        answer = "nothing"
        while self._has_time():
            try:
                status = self._answer()
            except httpx.TransportError as error:
                answer = repr(error)
            else:
                if status == httpx.codes.OK:
                    return
                answer = str(status)
                if status < httpx.codes.INTERNAL_SERVER_ERROR:
                    break
            self.sleep(LOOK_SECONDS)
        raise NotArrived(
            f"the first ping was not acknowledged by {self.target.url}: the last answer was {answer}, and a "
            "ping that is stored is answered 200. Does `status` show a healthy node? The log of its start is "
            "/var/log/cloud-init-output.log there. The stacks and tables are as they should be: deploy again "
            "to send another ping",
            Reached.NOWHERE,
        )

    def _answer(self) -> int:
        name = self.target.server_name
        with httpx.Client(timeout=POST_TIMEOUT_SECONDS) as client:
            return client.post(
                f"{self.target.url.rstrip('/')}{PATH}{self.document_id}",
                content=json.dumps({"text": "the first ping of a deployment", "client_id": "provisioning"}),
                headers={} if name is None else {"Host": name},
                extensions={} if name is None else {"sni_hostname": name},
            ).status_code

    def _shipped_as(self) -> str | None:
        """Return the address of the raw object that has the ping, None while it is in none."""
        bucket = self.settings.s3.raw_bucket
        for key in self._young_raw_objects():
            if len(self._read) == RAW_OBJECTS_READ_MAX:
                return None
            self._read.add(key)
            try:
                with self.store.opened(bucket, key) as file:
                    if self._is_in(RawObject(key, file)):
                        return f"s3://{bucket}/{key}"
            except ObjectNotFound:  # a rule of the bucket has just deleted it
                continue
        return None

    def _young_raw_objects(self) -> Iterator[str]:
        """Yield the raw objects that can have the ping and were not read yet."""
        begun = self._posted_at - CLOCK_SKEW
        days = sorted({begun.date(), datetime.now(UTC).date()})
        for day in days:
            # Keys sort by their hour.
            after = f"{raw_object_prefix(day)}{begun.hour:02d}" if day == begun.date() else ""
            for item in self.store.list_objects(
                self.settings.s3.raw_bucket, raw_object_prefix(day), after=after
            ):
                if item.modified_at >= begun and item.key not in self._read:
                    yield item.key

    def _is_in(self, raw: RawObject) -> bool:
        return any(
            self.document_id.encode() in (path or b"")
            for batch in raw.record_batches()
            for path in batch.column("path").to_pylist()
        )

    def _has_row(self, table: str) -> bool:
        from telemetry_lake.query.lake import open_lake

        with open_lake(self.settings) as lake:
            row = lake.query(
                f"SELECT count(*) FROM {table} WHERE document_id = '{uuid.UUID(self.document_id)}' "  # noqa: S608
                f"AND submission_date >= DATE '{(self._posted_at - CLOCK_SKEW).date()}'"
            ).fetchone()
        return row is not None and bool(row[0])

    def _has_time(self) -> bool:
        seconds = time.monotonic() - self._started
        self.observe(seconds)
        return seconds < self.max_seconds

    def _reach(self, reached: Reached, line: str) -> None:
        self.reached = reached
        self.say(f"{line}, {time.monotonic() - self._started:.0f} s after it was sent")

    def _why(self) -> str:
        """Return how far the ping came, and what to look at."""
        ping = f"the first ping, {self.document_id},"
        if self.reached is Reached.REJECTED:
            return (
                f"{ping} is a row of live.rejected_pings, whose column error_message says why: does the code "
                "of the drain know the document type lake-demo/greeting?"
            )
        if self.reached is Reached.SHIPPED:
            return (
                f"{ping} is in the raw bucket and in no table after {self.max_seconds:.0f} s. Nothing is "
                "lost: it is on the queue, or set aside. Is the DAG Drain on, and are its runs green? Then "
                "look at `python -m telemetry_lake dead-letters`"
            )
        return (
            f"{ping} was acknowledged and is in no raw object after {self.max_seconds:.0f} s. Nothing is "
            "lost: it is in the node's spool. Look at the node's journal (telemetry-lake-ingest) for what S3 "
            "answers, and at the role of nodes"
        )
