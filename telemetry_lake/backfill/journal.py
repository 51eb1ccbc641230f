"""The journal: the records of a backfill in the lake bucket; what decides something is written once."""

from collections.abc import Iterable
from datetime import date

from pydantic import AwareDatetime

from telemetry_lake.backfill.plan import UNDATED, DatePlan, DatePlanReference, Manifest
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.storage.object_keys import (
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
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import R, Record, RecordStore


class AcceptedLoss(Record):
    """An operator's decision to publish a date without what a class of losses took."""

    loss: str
    reason: str
    accepted_at: AwareDatetime


class Decision(Record):
    """What the publication of a date consists of, for every commit of it: files and rows by table.

    `left_out` counts the records that are not in the files because others stand for them.
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
        """Its name in the summary of a snapshot."""
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
        self._records = RecordStore(store, bucket)

    def put_plan(self, backfill: str, plan: DatePlan) -> DatePlanReference:
        """Keep the plan of a date; returns where it is."""
        key = backfill_plan_key(backfill, str(plan.date or UNDATED), plan.model_dump_json().encode())
        self._records.put_if_absent(key, plan)
        return DatePlanReference(
            date=plan.date,
            key=key,
            files=len(plan.files),
            bytes=sum(file.bytes for file in plan.files),
            units=len(plan.units),
        )

    def begin(self, manifest: Manifest) -> Manifest:
        """Write the manifest unless it is there; returns the one that is there."""
        return self._records.decide(backfill_manifest_key(manifest.backfill_id), manifest)

    def manifest(self, backfill: str) -> Manifest | None:
        """Return the manifest of a backfill, or None before it is planned."""
        return self._records.read(backfill_manifest_key(backfill), Manifest)

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all backfills, oldest first."""
        keys = [key for key in self._records.keys(BACKFILL_PREFIX) if key.endswith("/manifest.json")]
        found = filter(None, self._records.read_all(keys, Manifest))
        return sorted(found, key=lambda manifest: manifest.created_at)

    def plan(self, reference: DatePlanReference) -> DatePlan:
        """Return the plan of a date."""
        return self._records.require(reference.key, DatePlan)

    def finished_units(self, backfill: str) -> set[str]:
        """Return the names of the units that have a tally."""
        return {unit_of_tally_key(backfill, key) for key in self._records.keys(tallies_prefix(backfill))}

    def tally(self, backfill: str, unit: str) -> Tally | None:
        """Return the tally of a unit, or None before it is finished."""
        return self._records.read(tally_key(backfill, unit), Tally)

    def tallies(self, backfill: str, units: Iterable[str]) -> list[Tally]:
        """Return the tallies of those of `units` that are finished."""
        found = self._records.read_all([tally_key(backfill, unit) for unit in units], Tally)
        return [tally for tally in found if tally is not None]

    def put_tally(self, backfill: str, tally: Tally) -> Tally:
        """Write the tally of a unit unless it has one; returns the one that counts."""
        return self._records.decide(tally_key(backfill, tally.unit), tally)

    def put_index(self, backfill: str, unit: str, attempt: str, body: bytes) -> str:
        """Keep the index of a unit; returns its key."""
        key = unit_index_key(backfill, unit, attempt)
        self._store.put_if_absent(self._bucket, key, body)
        return key

    def index(self, key: str) -> bytes:
        """Return the index of a unit, a Parquet file."""
        return self._store.get(self._bucket, key)

    def put_report(self, backfill: str, day: date, report: Record) -> None:
        """Keep what the verification of a date found; a later one replaces it."""
        self._records.put(verification_report_key(backfill, day), report, indent=1)

    def report(self, backfill: str, day: date, form: type[R]) -> R | None:
        """Return what the last verification of a date found, or None before the first."""
        return self._records.read(verification_report_key(backfill, day), form)

    def accept(self, backfill: str, day: date, loss: AcceptedLoss) -> None:
        """Let a date be published without what a class of losses took; the first reason is kept."""
        self._records.put_if_absent(accepted_loss_key(backfill, day, loss.loss), loss)

    def accepted(self, backfill: str, day: date) -> dict[str, AcceptedLoss]:
        """Return the losses of a date that were accepted, by class."""
        keys = self._records.keys(accepted_losses_prefix(backfill, day))
        found = self._records.read_all(keys, AcceptedLoss)
        return {accepted.loss: accepted for accepted in found if accepted is not None}

    def publication_number(self, source: str, day: date) -> int:
        """Return the number of a date's publication that holds, or comes next: those before are undone."""
        number = 0
        while self.is_undone(source, day, number):
            number += 1
        return number

    def decide(self, source: str, decision: Decision) -> Decision:
        """Write what a publication consists of unless that is decided; returns the decision that is there."""
        key = date_record_key(source, decision.date, decision.number, "decision")
        return self._records.decide(key, decision)

    def decision(self, source: str, day: date, number: int) -> Decision | None:
        """Return what a publication of a date consists of, or None before that is decided."""
        return self._records.read(date_record_key(source, day, number, "decision"), Decision)

    def put_committed(self, source: str, decision: Decision, committed: Committed) -> Committed:
        """Write that a publication is in the tables unless that is recorded; returns the record there."""
        key = date_record_key(source, decision.date, decision.number, "committed")
        return self._records.decide(key, committed)

    def committed(self, source: str, day: date, number: int) -> Committed | None:
        """Return where a publication of a date is, or None before it is committed."""
        return self._records.read(date_record_key(source, day, number, "committed"), Committed)

    def undo(self, source: str, decision: Decision, undone: Undone) -> None:
        """Write that a publication is not to be in the tables any more."""
        self._records.decide(date_record_key(source, decision.date, decision.number, "undone"), undone)

    def is_undone(self, source: str, day: date, number: int) -> bool:
        """Return whether a publication of a date is not to be in the tables any more."""
        return self._records.read(date_record_key(source, day, number, "undone"), Undone) is not None
