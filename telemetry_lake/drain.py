"""The drain: from index messages to committed rows, one step at a time.

`claim → convert → validate → publish → acknowledge`. Each step looks in the lake bucket for what was done
before and leaves its outcome there, so that any step may be run again, by anybody, at any time, also beside
another run of it. `Drain` holds the connections of one process; the DAG `dags/drain.py` calls one of its
methods in each task, and `drain_once` calls them one after another.

While a step works on a batch, the batch's messages are kept hidden from other drains. Nothing rests on
that; it only saves double work.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from telemetry_lake.acknowledge import Acknowledged, acknowledge
from telemetry_lake.audit import Audit, validate
from telemetry_lake.batch import ClaimedBatch, Commitment, Part, RawObjectRows, StagedFile, StagedPart
from telemetry_lake.catalog import load_lake_catalog, staging_area
from telemetry_lake.claim import Claimed, claim
from telemetry_lake.failures import FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.index_queue import IndexQueue
from telemetry_lake.ledger import Ledger
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.publish import TABLES_IN_ORDER, NotDecided, publish
from telemetry_lake.raw_object import RawObject
from telemetry_lake.settings import Settings
from telemetry_lake.stage_part import Staged, Stager, stage_part

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from telemetry_lake.convert import Converter

EXTENSIONS_PER_TIMEOUT: Final = 3
"""How often the visibility of a message is extended within one visibility timeout."""

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


class UnfinishedDrain(FatalError):
    """A drain left something to look at: dead letters, or a batch that came to no end."""


@dataclass(slots=True)
class DrainReport:
    """What one drain did; `failures` says what went wrong."""

    claimed: Claimed = field(default_factory=Claimed)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def committed(self) -> list[str]:
        """The batches that are in the tables now."""
        return [done.batch_id for done in self.acknowledged if done.committed]


class Drain:
    """The steps of the drain, over one process's connections.

    `stage` takes the place of the conversion, and `clock` tells the time that goes into manifests.
    """

    def __init__(
        self, settings: Settings, *, stage: Stager | None = None, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.settings = settings
        self.stage = stage
        self._clock = clock
        self.store = ObjectStore(settings.s3)
        self.queue = IndexQueue(settings.sqs)
        self.ledger = Ledger(self.store, settings.s3.lake_bucket)

    @cached_property
    def catalog(self) -> "Catalog":
        """The Iceberg catalog; loaded when a step needs it."""
        return load_lake_catalog(self.settings)

    def claim(self) -> Claimed:
        """Cut what waits on the queue into batches.

        S3 is asked first, so that an outage does not use up the messages' receive counts.
        """
        for bucket in (self.settings.s3.raw_bucket, self.settings.s3.lake_bucket):
            if not self.store.is_reachable(bucket):
                raise RetriableError(f"the bucket {bucket} does not answer; nothing was received")
        return claim(self.settings, self.queue, self.ledger, created_at=self._clock())

    def convert(self, part: Part) -> StagedPart:
        """Convert one part of a batch into staged files."""
        with self._hidden(part.receipts):
            return stage_part(
                self.store,
                self.ledger,
                part,
                self.stage or self.stager(part.batch_id),
                bucket=self.settings.s3.raw_bucket,
                max_attempts=self.settings.drain.conversion_max_attempts,
            )

    def validate(self, claimed: Claimed) -> list[Audit]:
        """Audit the batches of a claim and decide their publications; those decided before are left out.

        All batches are asked before GateFailed or RetriableError is raised for those that failed.
        """
        audits: list[Audit] = []

        def ask(batch: ClaimedBatch) -> None:
            if (audit := validate(self.catalog, self.ledger, batch, at=self._clock())) is not None:
                audits.append(audit)

        self._each(claimed.batches, ask)
        return audits

    def publish(self, claimed: Claimed) -> list[Commitment]:
        """Commit the batches of a claim that are decided; the others are left out.

        All batches are tried before RetriableError or FatalError is raised for those that failed.
        """
        commitments: list[Commitment] = []

        def commit(batch: ClaimedBatch) -> None:
            try:
                done = publish(self.settings.drain, self.catalog, self.ledger, batch.batch_id)
            except NotDecided as error:
                _log.warning("left out: %s", error)
            else:
                commitments.append(done)

        self._each(claimed.batches, commit)
        return commitments

    def acknowledge(self, claimed: Claimed) -> list[Acknowledged]:
        """Finish the messages of the batches of a claim, according to how far each batch has come."""
        return [acknowledge(self.queue, self.ledger, batch) for batch in claimed.batches]

    def _each(self, batches: Iterable[ClaimedBatch], act: Callable[[ClaimedBatch], None]) -> None:
        errors: list[TelemetryLakeError] = []
        for batch in batches:
            with self._hidden(message.receipt for message in batch.held):
                try:
                    act(batch)
                except TelemetryLakeError as error:
                    errors.append(error)
        if len(errors) > 1:
            message = "\n".join(map(str, errors))
            again = any(isinstance(error, RetriableError) for error in errors)
            raise RetriableError(message) if again else FatalError(message)
        if errors:
            raise errors[0]

    def stager(self, batch: str) -> Stager:
        """The conversion into the staging areas of a batch."""
        from telemetry_lake.convert.stage import stage_raw_objects

        folders = {name: staging_area(self.catalog.load_table(name), batch) for name in TABLES_IN_ORDER}

        def stage(raws: Iterable[RawObject]) -> Staged:
            try:
                result = stage_raw_objects(self._converter, raws, folders)
            except OSError as error:
                # What Arrow raises when S3 does not take a part of a file.
                raise RetriableError(f"staging files of batch {batch}: {error}") from error
            return Staged(
                [
                    StagedFile(table=file.table, uri=file.uri, rows=file.rows, bytes=file.bytes)
                    for file in result.files
                ],
                [
                    RawObjectRows(key=raw.key, pings=raw.pings, rejected=raw.rejected)
                    for raw in result.raw_objects
                ],
            )

        return stage

    @cached_property
    def _converter(self) -> "Converter":
        from telemetry_lake.convert import Converter

        return Converter(self.settings.conversion, self.store)

    @contextmanager
    def _hidden(self, receipts: Iterable[str]) -> Iterator[None]:
        """Keep these messages hidden from other drains until the end of the block."""
        held = list(receipts)
        over = threading.Event()

        def extend() -> None:
            while not over.wait(self.settings.sqs.visibility_timeout_seconds / EXTENSIONS_PER_TIMEOUT):
                try:
                    self.queue.extend_visibility(held)
                except TelemetryLakeError as error:
                    _log.warning("messages may be received by another drain, which is harmless: %s", error)

        thread = threading.Thread(target=extend, name="extend-visibility", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def drain_once(settings: Settings, *, stage: Stager | None = None) -> DrainReport:
    """One drain from claim to acknowledge in this process, all that waits up to the limits of a claim.

    What fails does not stop what can go on; `report.failures` says why. Raises RetriableError when nothing
    could be claimed.
    """
    drain = Drain(settings, stage=stage)
    report = DrainReport(claimed=drain.claim())
    steps: list[Callable[[], object]] = [
        *(partial(drain.convert, part) for batch in report.claimed.batches for part in batch.parts),
        partial(drain.validate, report.claimed),
        partial(drain.publish, report.claimed),
    ]
    for step in steps:
        try:
            step()
        except TelemetryLakeError as error:
            report.failures.append(str(error))
    report.acknowledged = drain.acknowledge(report.claimed)
    return report


def raise_if_unfinished(claimed: Claimed, acknowledged: Iterable[Acknowledged]) -> None:
    """Raise UnfinishedDrain when a message went to the dead letters or a batch came to no end."""
    done = list(acknowledged)
    letters = [*claimed.dead_letters, *(letter for batch in done for letter in batch.dead_letters)]
    lines = [f"- in the dead letters: {letter}" for letter in letters]
    lines += [
        f"- batch {batch.batch_id} came to no end; its messages come again. The failed task says why."
        for batch in done
        if not batch.committed and not batch.dead_letters
    ]
    if lines:
        raise UnfinishedDrain(
            "\n".join(["something needs to be looked at; docs/drain.md has a section for each case", *lines])
        )
