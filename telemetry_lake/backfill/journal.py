"""The records of a backfill in the lake bucket; what decides something is written once, only if absent."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Final, TypeVar

from pydantic import AwareDatetime

from telemetry_lake.backfill.plan import UNDATED, DatePlan, DatePlanReference, Manifest, Record
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.failures import FatalError
from telemetry_lake.object_keys import (
    BACKFILL_PREFIX,
    accepted_loss_key,
    accepted_losses_prefix,
    backfill_manifest_key,
    backfill_plan_key,
    date_record_key,
    tallies_prefix,
    tally_key,
    unit_index_key,
    unit_of_tally_key,
    verification_report_key,
)
from telemetry_lake.object_store import ObjectStore

READS_AT_ONCE: Final = 16

R = TypeVar("R", bound=Record)


class AcceptedLoss(Record):
    """Somebody's decision to publish a date without what a class of losses took."""

    loss: str
    reason: str
    accepted_at: AwareDatetime


class Decision(Record):
    """What the publication of a date consists of, whoever commits it: files by table, and rows by table.

    `left_out` counts the records that are in no file because others stand for them.
    """

    backfill_id: str
    date: date
    number: int
    decided_at: AwareDatetime
    files: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    raw_objects: tuple[str, ...]
    left_out: dict[str, int]

    @property
    def publication_id(self) -> str:
        """What the summary of a snapshot calls it."""
        return f"backfill/{self.backfill_id}/{self.date}/{self.number}"


class Committed(Record):
    """A date is in its tables, in these snapshots."""

    committed_at: AwareDatetime
    snapshots: dict[str, int]


class Undone(Record):
    """A publication of a date is not to be in the tables any more."""

    undone_at: AwareDatetime


class Journal:
    """The records in `bucket`; safe to share between threads."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket

    def put_plan(self, backfill: str, plan: DatePlan) -> DatePlanReference:
        """Keep the plan of a date; where it is."""
        body = plan.model_dump_json().encode()
        key = backfill_plan_key(backfill, str(plan.date or UNDATED), body)
        self._store.put_if_absent(self._bucket, key, body)
        return DatePlanReference(
            date=plan.date,
            key=key,
            files=len(plan.files),
            bytes=sum(file.bytes for file in plan.files),
            units=len(plan.units),
        )

    def begin(self, manifest: Manifest) -> Manifest:
        """Write the manifest unless it is there; the one that is there."""
        return self._decide(backfill_manifest_key(manifest.backfill_id), manifest)

    def manifest(self, backfill: str) -> Manifest | None:
        """The manifest of a backfill that is planned."""
        return self._read(backfill_manifest_key(backfill), Manifest)

    def manifests(self) -> list[Manifest]:
        """The manifests of all backfills, oldest first."""
        keys = (item.key for item in self._store.list_objects(self._bucket, BACKFILL_PREFIX))
        found = self._read_all([key for key in keys if key.endswith("/manifest.json")], Manifest)
        return sorted(found, key=lambda manifest: manifest.created_at)

    def plan(self, reference: DatePlanReference) -> DatePlan:
        """The plan of a date."""
        return DatePlan.model_validate_json(self._store.get(self._bucket, reference.key))

    def finished_units(self, backfill: str) -> set[str]:
        """The units that have a tally."""
        listed = self._store.list_objects(self._bucket, tallies_prefix(backfill))
        return {unit_of_tally_key(backfill, item.key) for item in listed}

    def tally(self, backfill: str, unit: str) -> Tally | None:
        """The tally of a unit that is finished."""
        return self._read(tally_key(backfill, unit), Tally)

    def tallies(self, backfill: str, units: Iterable[str]) -> Iterator[Tally]:
        """The tallies of those of `units` that are finished."""
        return self._read_all([tally_key(backfill, unit) for unit in units], Tally)

    def put_tally(self, backfill: str, tally: Tally) -> Tally:
        """Write the tally of a unit unless it has one; the one that counts."""
        return self._decide(tally_key(backfill, tally.unit), tally)

    def put_index(self, backfill: str, unit: str, attempt: str, body: bytes) -> str:
        """Keep the index of a unit; its key."""
        key = unit_index_key(backfill, unit, attempt)
        self._store.put_if_absent(self._bucket, key, body)
        return key

    def index(self, key: str) -> bytes:
        """The index of a unit."""
        return self._store.get(self._bucket, key)

    def put_report(self, backfill: str, day: date, report: Record) -> None:
        """Keep what the verification of a date found; a later one replaces it."""
        body = report.model_dump_json(indent=1).encode()
        self._store.put(self._bucket, verification_report_key(backfill, day), body)

    def report(self, backfill: str, day: date, form: type[R]) -> R | None:
        """What the last verification of a date found."""
        return self._read(verification_report_key(backfill, day), form)

    def accept(self, backfill: str, day: date, loss: AcceptedLoss) -> None:
        """Let a date be published without what a class of losses took; the first reason is kept."""
        body = loss.model_dump_json().encode()
        self._store.put_if_absent(self._bucket, accepted_loss_key(backfill, day, loss.loss), body)

    def accepted(self, backfill: str, day: date) -> dict[str, AcceptedLoss]:
        """The losses of a date that somebody accepted, by class."""
        listed = self._store.list_objects(self._bucket, accepted_losses_prefix(backfill, day))
        found = self._read_all([item.key for item in listed], AcceptedLoss)
        return {accepted.loss: accepted for accepted in found}

    def publication_number(self, source: str, day: date) -> int:
        """The number of the publication of a date that holds, or comes next: those before are undone."""
        number = 0
        while self.is_undone(source, day, number):
            number += 1
        return number

    def decide(self, source: str, decision: Decision) -> Decision:
        """Write what a publication consists of unless that is decided; the decision that is there."""
        return self._decide(date_record_key(source, decision.date, decision.number, "decision"), decision)

    def decision(self, source: str, day: date, number: int) -> Decision | None:
        """What a publication of a date consists of, when that is decided."""
        return self._read(date_record_key(source, day, number, "decision"), Decision)

    def put_committed(self, source: str, decision: Decision, committed: Committed) -> Committed:
        """Write that a publication is in the tables unless that is known; what is known."""
        return self._decide(date_record_key(source, decision.date, decision.number, "committed"), committed)

    def committed(self, source: str, day: date, number: int) -> Committed | None:
        """Where a publication of a date is, when it is committed."""
        return self._read(date_record_key(source, day, number, "committed"), Committed)

    def undo(self, source: str, decision: Decision, undone: Undone) -> None:
        """Write that a publication is not to be in the tables any more."""
        self._decide(date_record_key(source, decision.date, decision.number, "undone"), undone)

    def is_undone(self, source: str, day: date, number: int) -> bool:
        """Whether a publication of a date is not to be in the tables any more."""
        return self._read(date_record_key(source, day, number, "undone"), Undone) is not None

    def _decide(self, key: str, record: R) -> R:
        if self._store.put_if_absent(self._bucket, key, record.model_dump_json().encode()):
            return record
        found = self._read(key, type(record))
        if found is None:
            raise FatalError(
                f"s3://{self._bucket}/{key} was deleted while it was looked at: somebody removes objects "
                "that are never to change. Stop that first, then run the same command again."
            )
        return found

    def _read(self, key: str, form: type[R]) -> R | None:
        body = self._store.get_or_none(self._bucket, key)
        return None if body is None else form.model_validate_json(body)

    def _read_all(self, keys: list[str], form: type[R]) -> Iterator[R]:
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            yield from (found for found in pool.map(lambda key: self._read(key, form), keys) if found)
