"""What the processes of a cluster do: each function takes what a process is given and yields what came of it.

They are of the core, so that executors need this package and nothing else of ours. Each holds its
connections and its converter for as long as it has something to do.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_lake.backfill.archive.throttle import Throttle
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import Archive, Unit
from telemetry_lake.backfill.tally import INDEX_SCHEMA, Tally
from telemetry_lake.backfill.units.check_unit import UnitCheck, UnitChecker, read_index
from telemetry_lake.backfill.units.copy_unit import UnitCopier
from telemetry_lake.backfill.units.settle_unit import UnitSettler
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import Record
from telemetry_lake.tables.staged import StagedFile

RECORDS_SCHEMA: Final = pa.schema(
    [pa.field("unit", pa.string()), *(field for field in INDEX_SCHEMA if field.name != "submission_date")]
)
"""The columns of `date_records`."""
RECORDS_SPARK_SCHEMA: Final = (
    "unit string, raw_object string, position long, document_id binary, document_type string, "
    "content binary, error_type string, path string, offset long, number int"
)
"""The same as Spark says it."""


@dataclass(frozen=True, slots=True)
class FailedUnit:
    """A unit that was not copied, and why."""

    unit: str
    error: str


class SettledUnit(Record):
    """What is published of a unit: its files, and how many records are left out by reason."""

    files: tuple[StagedFile, ...]
    left_out: dict[str, int]


def copy_units(
    settings: Settings,
    backfill: str,
    archive: Archive,
    bytes_per_second: float | None,
    units: Iterable[Unit],
) -> Iterator[FailedUnit]:
    """Copy units one after another, reading at most so fast; yields those that failed, and goes on."""
    copier: UnitCopier | None = None
    on_bytes = Throttle(bytes_per_second).take if bytes_per_second else None
    for unit in units:
        try:
            if copier is None:
                copier = UnitCopier(settings, backfill, archive, on_bytes=on_bytes)
            with _no_garbage_collection():
                copier.copy(unit)
        except Exception as error:  # noqa: BLE001  any error of one unit leaves the others a way
            text = str(error) if isinstance(error, FatalError) else f"{type(error).__name__}: {error}"
            yield FailedUnit(unit.name, text)


def check_units(
    settings: Settings, backfill: str, day: date, tallies: Iterable[Tally]
) -> Iterator[UnitCheck]:
    """Read back what these units staged for a date."""
    checker: UnitChecker | None = None
    for tally in tallies:
        checker = checker or UnitChecker(settings, backfill)
        with _no_garbage_collection():
            check = checker.check(tally, day)
        yield check


def settle_units(
    settings: Settings, backfill: str, day: date, units: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the files of these units for a date without what is left out of each, as JSON `SettledUnit`s.

    Units come as rows: the tally as JSON, and a list, or null, of what is left out (raw_object, position,
    reason).
    """
    settler: UnitSettler | None = None
    for batch in units:
        for row in batch.to_pylist():
            settler = settler or UnitSettler(settings, backfill)
            left_out = row["left_out"] or []
            places = {(place["raw_object"], place["position"]) for place in left_out}
            settled = SettledUnit(
                files=tuple(settler.settle(Tally.model_validate_json(row["tally"]), day, places)),
                left_out=Counter(place["reason"] for place in left_out),
            )
            yield pa.RecordBatch.from_pydict({"settled": [settled.model_dump_json()]})


def date_records(
    settings: Settings, day: date, tallies: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield the records of a date in the indexes of these units.

    Each of `tallies` has the tallies of some units as JSON in its first column.
    """
    journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
    texts = (str(text) for batch in tallies for text in batch.column(0).to_pylist())
    for tally in map(Tally.model_validate_json, texts):
        index = read_index(journal, tally)
        day_index = index.filter(pc.equal(index.column("submission_date"), pa.scalar(day)))
        names = pa.array([tally.unit] * day_index.num_rows, pa.string())
        records = day_index.drop_columns(["submission_date"]).add_column(0, "unit", names)
        if not tally.has_types:
            no_types = pa.nulls(records.num_rows, pa.string())
            records = records.append_column("document_type", no_types)
        yield from records.select(RECORDS_SCHEMA.names).cast(RECORDS_SCHEMA).to_batches()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off for the block: documents are trees, without cycles to find.

    What was there before is set aside, so that the one look at the end is at what has come since, and not at
    every module of this process: that took half as long as verifying a unit.
    """
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()
