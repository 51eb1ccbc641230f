"""The pipeline in a simulated world: its processes, and the account of every acknowledged ping."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from operator import methodcaller
from typing import Any, Final, cast
from uuid import UUID

from lake_testing.shipping import greeting
from lake_testing.simulation.aws import SimulatedS3, SimulatedSqs
from lake_testing.simulation.tables import Row, SimulatedCatalog
from lake_testing.simulation.world import Killed, World
from telemetry_lake.columns import (
    BODY,
    DOCUMENT_ID,
    DOCUMENT_TYPE,
    ERROR_TYPE,
    HEADERS,
    RAW_OBJECT,
    RAW_OBJECT_POSITION,
    REQUEST,
    SUBMISSION_DATE,
    SUBMISSION_TIMESTAMP,
)
from telemetry_lake.drain.claim import Claimed
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.ledger import Ledger
from telemetry_lake.drain.steps import Drain
from telemetry_lake.failures import RetriableError, TelemetryLakeError
from telemetry_lake.raw.index_message import IndexMessage
from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object
from telemetry_lake.recovery.completeness import check_completeness
from telemetry_lake.recovery.reconcile import reconcile
from telemetry_lake.recovery.replay import replay_dead_letters
from telemetry_lake.recovery.replay_rejected import RejectedSelection, replay_rejected
from telemetry_lake.settings import DrainSettings, S3Settings, Settings, SqsSettings
from telemetry_lake.storage.object_keys import raw_object_key
from telemetry_lake.tables.commits import TABLES_IN_ORDER, UNAVAILABLE
from telemetry_lake.tables.definitions import LIVE_PINGS, LIVE_REJECTED_PINGS
from telemetry_lake.tables.expiry import KEEP_APPENDS
from telemetry_lake.tables.staged import RawObjectRows, Staged, StagedFile

GOOD: Final = b"good"
BAD: Final = b"bad"
"""The body of a ping that is rejected."""
POISON: Final = b"poison"
"""The body of a ping that kills whatever converts it."""
ORPHANS_KEPT: Final = timedelta(days=7)
"""The limit of the maintenance job."""
TASK_ATTEMPTS: Final = 3
SHIPPER_WAIT_MAX_SECONDS: Final = 15
"""A shipper does not ask more often than this while a service is away."""
"""How often a task of a run is tried."""

SETTINGS: Final = Settings(
    s3=S3Settings(raw_bucket="raw", lake_bucket="lake"),
    sqs=SqsSettings(visibility_timeout_seconds=300, max_receive_count=10),
    drain=DrainSettings(batch_max_raw_objects=3, part_max_bytes=4_000, receive_wait_seconds=0),
)


@dataclass(slots=True)
class Acknowledged:
    """The pings that clients were told are safe, by document id, and where they were put."""

    raw_objects: dict[str, list[str]] = field(default_factory=dict)
    """The document ids of each raw object, by its key."""
    poisoned: set[str] = field(default_factory=set)
    """The raw objects that cannot be converted."""


class SimulatedLake:
    """A lake in `world`: what an ingest node ships, and the processes that work on it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.s3 = SimulatedS3(world, ["raw", "lake"])
        self.sqs = SimulatedSqs(world, [SETTINGS.sqs.index_queue_name, SETTINGS.sqs.dead_letter_queue_name])
        self.catalog = SimulatedCatalog(world, TABLES_IN_ORDER)
        self.acknowledged = Acknowledged()
        self._numbers = iter(range(1 << 30))
        self.sqs.before_delete = self._check_deletion

    def connections(self) -> LakeConnections:
        """Return the connections of a new process."""
        return LakeConnections(
            SETTINGS,
            s3=cast(Any, self.s3),
            sqs=cast(Any, self.sqs),
            catalog=cast(Any, self.catalog),
        )

    def ship(self, kinds: Sequence[bytes], *, announced: bool = True, after: timedelta = timedelta()) -> None:
        """Put a raw object with a ping of each kind and announce it, as a shipper does until it succeeds.

        The pings were accepted `after` this long ago.
        """
        number = next(self._numbers)
        ids = [str(UUID(int=number * 1_000 + place)) for place in range(len(kinds))]
        now = self.world.now - after
        pings = [_ping(document_id, body, now) for document_id, body in zip(ids, kinds, strict=True)]
        segment = f"segment-{number}"
        key = raw_object_key(now, "node-1", segment)
        data = write_raw_object(pings, Promise(len(pings), now, now, "node-1", segment))
        message = RawObject(key, data).index_message("raw")
        connections = self.connections()
        self.acknowledged.raw_objects[key] = ids
        if POISON in kinds:
            self.acknowledged.poisoned.add(key)
        put = partial(connections.store.put_if_absent, "raw", key, data, metadata=message.metadata())
        self._until_done(put)
        if announced:
            self._until_done(partial(connections.queue.send, message))

    def drain(self, *, attempts: int = TASK_ATTEMPTS) -> None:
        """Run the drain's DAG once: each step is a process of its own, which is tried again when it fails."""
        run = partial(self._task, attempts)
        found = run(lambda drain: drain.claim().model_dump(mode="json"))
        if found is None:
            return
        claimed = Claimed.model_validate(found)
        for batch in claimed.batches:
            for part in batch.parts:
                run(methodcaller("convert", part))
        run(lambda drain: drain.validate(claimed))
        run(lambda drain: drain.publish(claimed))
        run(lambda drain: drain.acknowledge(claimed))

    def reconcile(self) -> None:
        """Run the reconciler once, as its DAG does."""
        self._once(lambda: reconcile(self.connections(), now=self.world.now))

    def check_completeness(self) -> None:
        """Look whether all days are complete, as the daily DAG does."""
        self._once(lambda: check_completeness(self.connections(), now=self.world.now))

    def replay_dead_letters(self) -> None:
        """Put the dead letters back, as an operator does."""
        self._once(lambda: replay_dead_letters(self.connections()))

    def replay_rejected(self) -> None:
        """Send all rejected pings again, as an operator does."""
        self._once(lambda: replay_rejected(self.connections(), RejectedSelection()))

    def maintain(self) -> None:
        """Expire snapshots and remove orphan files, by the limits of production."""

        def maintain() -> None:
            for table in TABLES_IN_ORDER:
                self.catalog.expire_snapshots(table, self.world.now - KEEP_APPENDS)
                self.catalog.remove_orphans(table, self.world.now - ORPHANS_KEPT)

        self._once(maintain)

    def is_quiet(self) -> bool:
        """Return whether no message is left on the index queue, hidden ones included."""
        return not self.sqs.left(SETTINGS.sqs.index_queue_name)

    def unaccounted(self) -> list[str]:
        """Return a line for every acknowledged ping that is not exactly one row, and for every other row.

        The pings of a raw object that cannot be converted may be set aside instead: the commit of its batch
        says so then.
        """
        rows = Counter(
            row[DOCUMENT_ID] for table in TABLES_IN_ORDER for row in self.catalog.stored[table].rows
        )
        ledger = self.connections().ledger
        lines = []
        for key, ids in self.acknowledged.raw_objects.items():
            is_set_aside = key in self.acknowledged.poisoned and _is_set_aside(ledger, key)
            for document_id in ids:
                count = rows.pop(document_id, 0)
                if count != 1 and not (count == 0 and is_set_aside):
                    lines.append(f"{document_id} of {key}: {count} rows")
        return [
            *lines,
            *(f"{document_id}: {count} rows and never sent" for document_id, count in rows.items()),
        ]

    def _check_deletion(self, queue: str, body: str) -> None:
        """Raise AssertionError when a message is deleted whose raw object is not finished."""
        if queue != SETTINGS.sqs.index_queue_name:
            return
        key = IndexMessage.from_json(body).key
        is_dead = any(
            IndexMessage.from_json(message.body).key == key
            for message in self.sqs.left(SETTINGS.sqs.dead_letter_queue_name)
        )
        if not is_dead and key not in self.catalog.committed_raw_objects:
            raise AssertionError(f"the message of {key} was deleted before its pings were in a table")

    def _task(self, attempts: int, act: Callable[[Drain], Any]) -> Any:
        for _ in range(attempts):
            drain = Drain(self.connections(), stage=self._stage, clock=lambda: self.world.now)
            try:
                return act(drain)
            except TelemetryLakeError:
                continue
            except Killed:
                self.world.revive()
        return None

    def _once(self, act: Callable[[], object]) -> None:
        """Run a process once; one that fails or is killed is left to the next time."""
        try:
            act()
        except (TelemetryLakeError, *UNAVAILABLE):
            return
        except Killed:
            self.world.revive()

    def _until_done(self, act: Callable[[], object]) -> None:
        """Run a process until it has succeeded: a shipper starts again and goes on with the same segment."""
        wait_seconds = 1
        while True:
            try:
                act()
            except RetriableError:
                self.world.wait(wait_seconds)
                wait_seconds = min(2 * wait_seconds, SHIPPER_WAIT_MAX_SECONDS)
            except Killed:
                self.world.revive()
            else:
                return

    def _stage(self, raws: Iterable[RawObject]) -> Staged:
        """Convert raw objects as the converter does, with rows that hold what the account needs."""
        rows: dict[str, list[Row]] = {name: [] for name in TABLES_IN_ORDER}
        totals = []
        for raw in raws:
            pings = list(_pings(raw))
            if any(row[BODY] == POISON for row in pings):
                self.world.kill("converting a poisonous raw object")
            for row in pings:
                rows[LIVE_PINGS if row[BODY] == GOOD else LIVE_REJECTED_PINGS].append(row)
            bad = sum(row[BODY] == BAD for row in pings)
            totals.append(
                RawObjectRows(
                    key=raw.key, pings=len(pings) - bad, rejected={"invalid_json": bad} if bad else {}
                )
            )
        files = tuple(
            StagedFile(table=table, uri=self.catalog.stage(table, found), rows=len(found), bytes=len(found))
            for table, found in rows.items()
            if found
        )
        return Staged(files=files, raw_objects=tuple(totals))


def _is_set_aside(ledger: Ledger, key: str) -> bool:
    """Return whether the batch that owns a raw object was committed without it."""
    batch = ledger.ownership(key).batch
    commitment = ledger.commitment(batch) if batch else None
    return commitment is not None and key in commitment.quarantined


def _ping(document_id: str, body: bytes, at: datetime) -> RawPing:
    """Return a small ping: neither address nor headers, which the account does not need."""
    return replace(greeting(document_id, at=at, body=body), remote_address="", headers=())


def _pings(raw: RawObject) -> Iterator[Row]:
    """Yield a row for each ping of a raw object, with the columns that the pipeline reads back."""
    position = 0
    for batch in raw.record_batches():
        for ping in batch.to_pylist():
            path = ping["path"].decode()
            yield {
                DOCUMENT_ID: path.rpartition("/")[2],
                DOCUMENT_TYPE: "greeting",
                ERROR_TYPE: "invalid_json",
                SUBMISSION_TIMESTAMP: ping["submission_timestamp"],
                SUBMISSION_DATE: ping["submission_timestamp"].date(),
                RAW_OBJECT: raw.key,
                RAW_OBJECT_POSITION: position,
                BODY: ping["body"],
                HEADERS: [],
                REQUEST: {
                    "method": ping["method"],
                    "path": path,
                    "query": "",
                    "protocol": ping["protocol"],
                    "host": ping["host"].decode(),
                },
            }
            position += 1
