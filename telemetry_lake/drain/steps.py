"""The drain: from index messages to committed rows, one step at a time.

`claim → convert → validate → publish → acknowledge`. Each step looks in the lake bucket for what was done
before and leaves its outcome there, so that any step may be run again at any time, also beside another
run of it. The DAG `dags/drain.py` calls one method of `Drain` in each task, and `drain_once` calls them one
after another.

While a step works on a batch, the batch's messages are kept hidden from other drains. That is not needed for
safety; it only saves double work.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Final

from telemetry_lake.convert.document_schemas import named_document_types
from telemetry_lake.drain.acknowledge import Acknowledged, acknowledge
from telemetry_lake.drain.audit import Audit, validate
from telemetry_lake.drain.batch import ClaimedBatch, Commitment, Part, StagedPart
from telemetry_lake.drain.claim import Claimed, claim
from telemetry_lake.drain.connections import LakeConnections
from telemetry_lake.drain.convert_part import PartConversion, Stager
from telemetry_lake.drain.publish import NotDecided, publish
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError, TelemetryLakeError
from telemetry_lake.raw.raw_object import RawObject
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import staging_area
from telemetry_lake.tables.catalog_failures import catalog_failures, explained
from telemetry_lake.tables.commits import TABLES_IN_ORDER, UNAVAILABLE
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.tables.staged import Staged

if TYPE_CHECKING:
    from telemetry_lake.convert.converter import Conversions, Converter

EXTENSIONS_PER_TIMEOUT: Final = 3
"""How often the visibility of a message is extended within one visibility timeout."""

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of the clock that production uses, in UTC."""
    return datetime.now(UTC)


def require_catalog(lake: LakeConnections) -> None:
    """Raise RetriableError unless the catalog answers, FatalError when it refuses or has no live tables."""
    namespace = LIVE_PINGS.rpartition(".")[0]
    try:
        exists = lake.catalog.namespace_exists(namespace)
    except UNAVAILABLE as error:
        raise explained("asking the catalog, before anything is received,", error) from error
    if not exists:
        raise ConfigurationError(
            f"the namespace {namespace} is not in the catalog, or this process has no right to load its "
            "tables; nothing was received: python -m telemetry_lake create-tables makes it"
        )


class UnfinishedDrain(FatalError):
    """A drain left something to look at: dead letters, or a batch that did not finish."""


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

    `stage` replaces the conversion, and `clock` gives the time that goes into manifests, in UTC.
    """

    def __init__(
        self,
        connections: LakeConnections,
        *,
        stage: Stager | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.connections = connections
        self.stage = stage
        self._clock = clock
        self._settings = connections.settings

    def claim(self) -> Claimed:
        """Cut what waits on the queue into batches.

        S3 and the catalog are asked first, so that an outage does not use up the messages' receive counts.
        Raises RetriableError when one of them, or SQS, is unavailable.
        """
        lake = self.connections
        for bucket in (self._settings.s3.raw_bucket, self._settings.s3.lake_bucket):
            lake.store.look_for(bucket)
        require_catalog(lake)
        return claim(self._settings, lake.queue, lake.ledger, created_at=self._clock())

    def convert(self, part: Part) -> StagedPart:
        """Convert one part of a batch into staged files."""
        with self._hidden(part.receipts), ExitStack() as resources:
            conversion = PartConversion(
                self.connections.store,
                self.connections.ledger,
                self.stage or self.stager(part.batch_id),
                self.stage or self._isolated_stager(part.batch_id, resources),
                bucket=self._settings.s3.raw_bucket,
                max_attempts=self._settings.drain.conversion_max_attempts,
            )
            return conversion.convert(part)

    def validate(self, claimed: Claimed) -> list[Audit]:
        """Audit the batches of a claim and decide their publications; those decided before are left out.

        All batches are asked before GateFailed, GateAlarm or RetriableError is raised for those that failed
        or have to be looked at.
        """
        audits: list[Audit] = []
        conversion = self._settings.conversion
        named_types = named_document_types(
            conversion.schemas_directory, conversion.further_schemas_directories
        )

        def ask(batch: ClaimedBatch) -> None:
            catalog, ledger = self.connections.catalog, self.connections.ledger
            audit = validate(catalog, ledger, batch, named_types=named_types, at=self._clock())
            if audit is not None:
                audits.append(audit)

        self._each(claimed.batches, ask)
        return audits

    def publish(self, claimed: Claimed) -> list[Commitment]:
        """Commit the batches of a claim that are decided; the others are left out.

        All batches are tried before RetriableError or FatalError is raised for those that failed.
        """
        commitments: list[Commitment] = []

        def commit(batch: ClaimedBatch) -> None:
            catalog, ledger = self.connections.catalog, self.connections.ledger
            try:
                done = publish(self._settings.drain, catalog, ledger, batch.batch_id, at=self._clock())
            except NotDecided as error:
                _log.warning("left out: %s", error)
            else:
                commitments.append(done)

        self._each(claimed.batches, commit)
        return commitments

    def acknowledge(self, claimed: Claimed) -> list[Acknowledged]:
        """Finish the messages of the batches of a claim, according to how far each batch has come."""
        queue, ledger = self.connections.queue, self.connections.ledger
        return [acknowledge(queue, ledger, batch) for batch in claimed.batches]

    def _each(self, batches: Iterable[ClaimedBatch], act: Callable[[ClaimedBatch], None]) -> None:
        errors: list[TelemetryLakeError] = []
        for batch in batches:
            with self._hidden(message.receipt for message in batch.held):
                try:
                    with catalog_failures(f"working on batch {batch.batch_id}"):
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
        """Return the conversion into the staging areas of a batch."""
        return self._stager(batch, lambda: self._converter)

    def _isolated_stager(self, batch: str, resources: ExitStack) -> Stager:
        """Return the same in processes of its own, which end with `resources`."""

        @cache
        def isolated() -> "Conversions":
            from telemetry_lake.convert.isolation.isolated import IsolatedConverter

            return resources.enter_context(IsolatedConverter(self._settings, self._converter))

        return self._stager(batch, isolated)

    def _stager(self, batch: str, conversions: "Callable[[], Conversions]") -> Stager:
        from telemetry_lake.convert.parquet_writer import stage_raw_objects

        with catalog_failures(f"looking where files of batch {batch} are staged"):
            catalog = self.connections.catalog
            folders = {name: staging_area(catalog.load_table(name), batch) for name in TABLES_IN_ORDER}

        def stage(raws: Iterable[RawObject]) -> Staged:
            # Arrow raises an OSError when S3 does not take a part of a file.
            with catalog_failures(f"staging files of batch {batch}"):
                return stage_raw_objects(conversions(), raws, folders)

        return stage

    @cached_property
    def _converter(self) -> "Converter":
        from telemetry_lake.convert.converter import Converter

        return Converter(self._settings.conversion, self.connections.store)

    @contextmanager
    def _hidden(self, receipts: Iterable[str]) -> Iterator[None]:
        """Keep these messages hidden from other drains until the end of the block."""
        held = list(receipts)
        over = threading.Event()

        def extend() -> None:
            while not over.wait(self._settings.sqs.visibility_timeout_seconds / EXTENSIONS_PER_TIMEOUT):
                try:
                    self.connections.queue.extend_visibility(held)
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
    """Drain once from claim to acknowledge in this process: all that waits, up to the limits of a claim.

    What fails does not stop what can go on; `report.failures` says why. Raises RetriableError when nothing
    could be claimed.
    """
    drain = Drain(LakeConnections(settings), stage=stage)
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
    """Raise UnfinishedDrain when a message went to the dead letters or a batch did not finish."""
    done = list(acknowledged)
    letters = [*claimed.dead_letters, *(letter for batch in done for letter in batch.dead_letters)]
    lines = [f"- in the dead letters: {letter}" for letter in letters]
    lines += [
        f"- batch {batch.batch_id} did not finish; its messages come again. The failed task says why."
        for batch in done
        if not batch.committed and not batch.dead_letters
    ]
    if lines:
        raise UnfinishedDrain(
            "\n".join(["something needs to be looked at; docs/drain.md has a section for each case", *lines])
        )
