"""Copy one unit: read its records, convert them as the drain does, stage the rows, leave a tally.

Nothing is visible before its date is published, and nothing counts before the tally is written
(`tally`), so a process may die anywhere and the unit is copied again. The digest of the source is made of
the very bytes that are converted, while they pass.
"""

import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake import columns
from telemetry_lake.backfill.archive.source import SourceProblem, SourceRecord, read_records
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import Archive, PlannedFile, Problem, Slice, Unit
from telemetry_lake.backfill.tally import (
    INDEX_SCHEMA,
    PROBLEMS_MAX,
    DateTally,
    Seconds,
    Tally,
)
from telemetry_lake.backfill.units.digest import Digest, hash_of_bytes, hash_of_value
from telemetry_lake.backfill.units.historic_ping import (
    date_of_document,
    document_type,
    record_batch,
    submission_path,
    submission_timestamp,
)
from telemetry_lake.convert.arrays import Array, of_bytes, of_integers, of_texts
from telemetry_lake.convert.converter import Conversion, Converter, Origin, Received
from telemetry_lake.convert.decompress import decompress_document
from telemetry_lake.convert.parquet_writer import StagingFolder, stage_raw_objects
from telemetry_lake.documents.text import parse_json
from telemetry_lake.failures import FatalError, PingRejected
from telemetry_lake.raw.raw_object import RECORD_BATCH_MAX_BODY_BYTES, RECORD_BATCH_MAX_PINGS, Promise
from telemetry_lake.settings import ConversionSettings, Settings, SourceSettings
from telemetry_lake.storage.object_keys import historic_raw_object
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.commits import TABLES_IN_ORDER
from telemetry_lake.tables.staged import Staged

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NODE: Final = "backfill"
"""Stands for the ingest node in what a historic file promises."""

Place = tuple[str, int]
"""`raw_object` and `raw_object_position`."""


class UnitCopier:
    """Copies units of one backfill; holds the connections and the converter of one process.

    `on_bytes` is called with the length of every stretch of the source that was read, and may wait.
    """

    def __init__(
        self,
        settings: Settings,
        backfill: str,
        archive: Archive,
        *,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        from telemetry_lake.tables.catalog import load_lake_catalog, staging_area

        store = ObjectStore(settings.s3)
        self._backfill = backfill
        self._source = archive.settings(settings.backfill.source)
        self._journal = Journal(store, settings.s3.lake_bucket)
        self._limits = settings.conversion
        self._converter = Converter(settings.conversion, store, origin=Origin.BACKFILL)
        self._on_bytes = on_bytes
        catalog: Catalog = load_lake_catalog(settings)
        self._folders: Mapping[str, StagingFolder] = {
            name: staging_area(catalog.load_table(name), backfill) for name in TABLES_IN_ORDER
        }

    def copy(self, unit: Unit) -> Tally:
        """Copy a unit unless that was done; returns the tally that counts.

        Raises RetriableError when the archive, S3 or the catalog is unavailable, and FatalError when the
        conversion is not what it should be.
        """
        if (done := self._journal.tally(self._backfill, unit.name)) is not None:
            return done
        started_at, stopwatch = datetime.now(UTC), _Stopwatch()
        with stopwatch.running(_Activity.WRITING):
            reading = _Reading(self._backfill, self._source, self._limits, self._on_bytes, stopwatch)
            watched = _WatchedConversions(self._converter, reading, stopwatch)
            # Arrow raises an OSError when S3 does not take a part of a file.
            with catalog_failures(f"staging files of unit {unit.name}"):
                staged = stage_raw_objects(
                    watched, (_HistoricRecords(reading, part) for part in unit.slices), self._folders
                )
            records = reading.records
            dates = _add_up(unit.name, records, watched.rejections, staged)
            index = _index(records, watched.rejections)
            index_key = self._journal.put_index(self._backfill, unit.name, uuid.uuid4().hex, index)
        return self._journal.put_tally(
            self._backfill,
            Tally(
                unit=unit.name,
                source_bytes=unit.bytes,
                started_at=started_at,
                finished_at=datetime.now(UTC),
                seconds=Seconds(
                    reading=stopwatch.seconds[_Activity.READING],
                    converting=stopwatch.seconds[_Activity.CONVERTING],
                    proving=stopwatch.seconds[_Activity.PROVING],
                    writing=stopwatch.seconds[_Activity.WRITING],
                ),
                files=staged.files,
                index_key=index_key,
                has_types=True,
                dates=dates,
                problems={day: tuple(found) for day, found in reading.problems.items()},
                problem_counts={
                    day: dict(sorted(counts.items())) for day, counts in reading.problem_counts.items()
                },
            ),
        )


class _Activity(Enum):
    """What the time that a unit takes is spent on."""

    READING = auto()
    CONVERTING = auto()
    PROVING = auto()
    WRITING = auto()


class _Stopwatch:
    """Measures activities of which one runs at a time: one that starts inside another stops its clock.

    Staging pulls conversions, which pull records: each pulls the next one while it runs itself.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(_Activity, 0.0)
        self._activity: _Activity | None = None
        self._since = 0.0

    @contextmanager
    def running(self, activity: _Activity) -> Iterator[None]:
        """Count the time in this context as that of `activity`."""
        outer = self._activity
        self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, activity: _Activity | None) -> None:
        now = time.perf_counter()
        if self._activity is not None:
            self.seconds[self._activity] += now - self._since
        self._activity, self._since = activity, now


@dataclass(slots=True)
class _Records:
    """What is remembered of each record of a unit, in columns: it may have some hundred thousand."""

    raw_objects: list[str] = field(default_factory=list)
    positions: "array[int]" = field(default_factory=lambda: array("q"))
    days: list[date] = field(default_factory=list)
    document_ids: list[bytes] = field(default_factory=list)
    document_types: list[str] = field(default_factory=list)
    hashes_of_value: list[bytes | None] = field(default_factory=list)
    content_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    document_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    paths: list[str] = field(default_factory=list)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class _Document:
    """A record and what was found out about it."""

    path: bytes
    content: bytes
    day: date


class _Reading:
    """Reads the slices of a unit and remembers what passed."""

    def __init__(
        self,
        backfill: str,
        source: SourceSettings,
        limits: ConversionSettings,
        on_bytes: Callable[[int], None] | None,
        stopwatch: _Stopwatch,
    ) -> None:
        self._backfill = backfill
        self._source = source
        self._stopwatch = stopwatch
        self._limits = limits
        self._on_bytes = on_bytes
        self.records = _Records()
        self.problems: dict[date, list[Problem]] = {}
        self.problem_counts: dict[date, Counter[str]] = {}
        self.unconverted: dict[Place, SourceRecord] = {}
        """What was read and has not come out of the conversion yet: a record batch at most."""

    def raw_object(self, part: Slice) -> str:
        """Return the `raw_object` of the records of a slice."""
        return historic_raw_object(self._backfill, part.file.path, part.start)

    def documents(self, part: Slice) -> Iterator[_Document]:
        """Yield the documents of a slice in their order, each hashed; problems are put aside."""
        raw_object, position = self.raw_object(part), 0
        found = read_records(
            self._source, part.file.source_file(), part.start, part.end, on_bytes=self._on_bytes
        )
        while True:
            with self._stopwatch.running(_Activity.READING):
                record = next(found, None)
            if record is None:
                return
            if isinstance(record, SourceProblem):
                self._note(part.file, record)
                continue
            with self._stopwatch.running(_Activity.PROVING):
                document = self._hashed(raw_object, position, part.file, record)
            yield document
            position += 1

    def hash_of_bytes(self, record: SourceRecord) -> bytes:
        """Return the hash of a record that was rejected."""
        return hash_of_bytes(self._backfill, record.document_id, record.content)

    def _note(self, file: PlannedFile, found: SourceProblem) -> None:
        day = file.date or date_of_document(None, file.modified_ms)
        self.problem_counts.setdefault(day, Counter())[found.kind.value] += 1
        if len(kept := self.problems.setdefault(day, [])) < PROBLEMS_MAX:
            kept.append(Problem.of(found))

    def _hashed(self, raw_object: str, position: int, file: PlannedFile, record: SourceRecord) -> _Document:
        try:
            text = decompress_document(
                record.content, self._limits.document_max_bytes, self._limits.document_max_expansion
            )
            document = parse_json(text)
            value_hash = hash_of_value(self._backfill, record.document_id.decode("latin-1").lower(), document)
        except (PingRejected, ValueError):
            # For any of these, the conversion has to reject it: `_add_up` insists.
            text, document, value_hash = b"", None, None
        day = file.date or date_of_document(document, file.modified_ms)
        records = self.records
        self.unconverted[raw_object, position] = record
        records.raw_objects.append(raw_object)
        records.positions.append(position)
        records.days.append(day)
        records.document_ids.append(record.document_id.lower())
        records.document_types.append(document_type(document))
        records.hashes_of_value.append(value_hash)
        records.content_bytes.append(len(record.content))
        records.document_bytes.append(len(text))
        records.paths.append(file.path)
        records.offsets.append(record.offset)
        records.numbers.append(record.index)
        return _Document(submission_path(record.document_id, document), record.content, day)


class _HistoricRecords:
    """A slice of a historic file in the form of a raw object."""

    def __init__(self, reading: _Reading, part: Slice) -> None:
        self._reading = reading
        self._slice = part
        self._count = 0
        self._days: set[date] = set()

    @property
    def key(self) -> str:
        return self._reading.raw_object(self._slice)

    @property
    def promise(self) -> Promise:
        days = self._days or {self._slice.file.date or date.min}
        first, last = submission_timestamp(min(days)), submission_timestamp(max(days))
        return Promise(self._count, first, last, NODE, self._slice.file.path)

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        group: list[_Document] = []
        size = 0
        for document in self._reading.documents(self._slice):
            full = len(group) >= RECORD_BATCH_MAX_PINGS
            if group and (full or size + len(document.content) > RECORD_BATCH_MAX_BODY_BYTES):
                yield self._batch(group)
                group, size = [], 0
            group.append(document)
            size += len(document.content)
        if group:
            yield self._batch(group)

    def _batch(self, group: list[_Document]) -> pa.RecordBatch:
        self._count += len(group)
        self._days.update(document.day for document in group)
        return record_batch(
            [document.path for document in group],
            [document.content for document in group],
            [document.day for document in group],
        )


@dataclass(frozen=True, slots=True)
class _Rejection:
    """Why a record was rejected, and the hash of its bytes as they were read."""

    reason: str
    hash_of_bytes: bytes


class _WatchedConversions:
    """The conversions of the drain, watched: which records are rejected, and how long converting takes."""

    def __init__(self, converter: Converter, reading: _Reading, stopwatch: _Stopwatch) -> None:
        self._converter = converter
        self._reading = reading
        self._stopwatch = stopwatch
        self.rejections: dict[Place, _Rejection] = {}

    def convert(self, raw: Received) -> Iterator[Conversion]:
        """Yield the conversions of `raw` as they come, each noted before."""
        conversions = self._converter.convert(raw)
        while True:
            with self._stopwatch.running(_Activity.CONVERTING):
                conversion = next(conversions, None)
            if conversion is None:
                return
            with self._stopwatch.running(_Activity.PROVING):
                self._note(raw.key, conversion)
            yield conversion

    def _note(self, raw_object: str, conversion: Conversion) -> None:
        waiting = self._reading.unconverted
        reasons = conversion.rejected.column(columns.ERROR_TYPE).to_pylist()
        for position, reason in zip(_positions(conversion.rejected), reasons, strict=True):
            place = raw_object, position
            self.rejections[place] = _Rejection(str(reason), self._reading.hash_of_bytes(waiting.pop(place)))
        for position in _positions(conversion.pings):
            del waiting[raw_object, position]


def _positions(rows: pa.Table) -> list[int]:
    return [int(str(position)) for position in rows.column(columns.RAW_OBJECT_POSITION).to_pylist()]


@dataclass(slots=True)
class _Sums:
    """A `DateTally` while it is added up."""

    records: int = 0
    bytes: int = 0
    converted: int = 0
    converted_digest: Digest = field(default_factory=Digest)
    rejected: "Counter[str]" = field(default_factory=Counter)
    rejected_digest: Digest = field(default_factory=Digest)


def _add_up(
    unit: str, records: _Records, rejections: Mapping[Place, _Rejection], staged: Staged
) -> dict[date, DateTally]:
    sums: dict[date, _Sums] = {}
    for number, (raw_object, position) in enumerate(_places(records)):
        day_sums = sums.setdefault(records.days[number], _Sums())
        day_sums.records += 1
        rejection = rejections.get((raw_object, position))
        value_hash = records.hashes_of_value[number]
        if rejection is not None:
            day_sums.rejected[rejection.reason] += 1
            day_sums.rejected_digest.add(rejection.hash_of_bytes)
            day_sums.bytes += records.content_bytes[number]
        elif value_hash is not None:
            day_sums.converted += 1
            day_sums.converted_digest.add(value_hash)
            day_sums.bytes += records.document_bytes[number]
        else:
            raise FatalError(
                f"unit {unit}: {raw_object}, record {position} was converted and is not JSON. The conversion "
                "is wrong; nothing of the unit counts. Mend it and run again."
            )
    rows = sum(totals.pings + sum(totals.rejected.values()) for totals in staged.raw_objects)
    if rows != len(records.positions):
        raise FatalError(
            f"unit {unit}: {rows} rows of {len(records.positions)} records. The conversion is wrong; nothing "
            "of the unit counts. Mend it and run again."
        )
    return {
        day: DateTally(
            records=day_sums.records,
            bytes=day_sums.bytes,
            converted=day_sums.converted,
            converted_digest=str(day_sums.converted_digest),
            rejected=dict(sorted(day_sums.rejected.items())),
            rejected_digest=str(day_sums.rejected_digest),
        )
        for day, day_sums in sorted(sums.items())
    }


def _index(records: _Records, rejections: Mapping[Place, _Rejection]) -> bytes:
    found = [rejections.get(place) for place in _places(records)]
    contents = [
        rejection.hash_of_bytes if rejection else value_hash or b""
        for rejection, value_hash in zip(found, records.hashes_of_value, strict=True)
    ]
    epoch = date(1970, 1, 1).toordinal()
    days = of_integers([day.toordinal() - epoch for day in records.days], pa.int32())
    arrays: dict[str, Array] = {
        "raw_object": of_texts(records.raw_objects),
        "position": of_integers(records.positions, pa.int64()),
        "submission_date": days.view(pa.date32()),
        "document_id": of_bytes(records.document_ids),
        "document_type": of_texts(records.document_types),
        "content": of_bytes(contents),
        "error_type": pa.array([rejection and rejection.reason for rejection in found], pa.string()),
        "path": of_texts(records.paths),
        "offset": of_integers(records.offsets, pa.int64()),
        "number": of_integers(records.numbers, pa.int32()),
    }
    table = pa.Table.from_arrays([arrays[name] for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA)
    sink = pa.BufferOutputStream()
    repeated = ["raw_object", "submission_date", "document_type", "error_type", "path"]
    # The stub of the argument knows bool only.
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeated)  # type: ignore[arg-type]
    return sink.getvalue().to_pybytes()


def _places(records: _Records) -> Iterable[Place]:
    return zip(records.raw_objects, records.positions, strict=True)
