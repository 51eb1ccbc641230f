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
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake import columns
from telemetry_lake.backfill.digest import Digest, hash_of_bytes, hash_of_value
from telemetry_lake.backfill.historic_ping import (
    date_of_document,
    record_batch,
    submission_path,
    submission_timestamp,
)
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import Archive, PlannedFile, Problem, Slice, Unit
from telemetry_lake.backfill.source import SourceProblem, SourceRecord, read_records
from telemetry_lake.backfill.tally import (
    INDEX_SCHEMA,
    PROBLEMS_MAX,
    DateTally,
    Seconds,
    StagedFile,
    Tally,
)
from telemetry_lake.convert import Conversion, Converter, Origin, Received
from telemetry_lake.convert.arrays import Array, of_bytes, of_integers, of_texts
from telemetry_lake.convert.decompress import decompress_document
from telemetry_lake.convert.document_text import parse_json
from telemetry_lake.convert.stage import StagedFiles, StagingFolder, stage_raw_objects
from telemetry_lake.failures import FatalError, PingRejected, RetriableError
from telemetry_lake.object_keys import historic_raw_object
from telemetry_lake.object_store import ObjectStore
from telemetry_lake.publish import TABLES_IN_ORDER
from telemetry_lake.raw_object import RECORD_BATCH_MAX_BODY_BYTES, RECORD_BATCH_MAX_PINGS, Promise
from telemetry_lake.settings import Settings, SourceSettings

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

NODE: Final = "backfill"
"""Stands for the ingest node in what a historic file promises."""

Place = tuple[str, int]
"""`raw_object` and `raw_object_position`."""


class UnitCopier:
    """Copies units of one backfill; holds the connections and the converter of one process.

    `on_bytes` is told of every stretch of the source that was read, and may wait.
    """

    def __init__(
        self,
        settings: Settings,
        backfill: str,
        archive: Archive,
        *,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        from telemetry_lake.catalog import load_lake_catalog, staging_area

        store = ObjectStore(settings.s3)
        self._backfill = backfill
        self._source = archive.settings(settings.backfill.source)
        self._journal = Journal(store, settings.s3.lake_bucket)
        self._document_max_bytes = settings.conversion.document_max_bytes
        self._converter = _WatchedConverter(settings.conversion, store, origin=Origin.BACKFILL)
        self._on_bytes = on_bytes
        catalog: Catalog = load_lake_catalog(settings)
        self._folders: Mapping[str, StagingFolder] = {
            name: staging_area(catalog.load_table(name), backfill) for name in TABLES_IN_ORDER
        }

    def copy(self, unit: Unit) -> Tally:
        """Copy a unit unless that was done; the tally that counts.

        Raises RetriableError when the archive, S3 or the catalog is away, and FatalError when the conversion
        is not what it should be.
        """
        if (done := self._journal.tally(self._backfill, unit.name)) is not None:
            return done
        started_at, start = datetime.now(UTC), time.perf_counter()
        reading = _Reading(self._backfill, self._source, self._document_max_bytes, self._on_bytes)
        self._converter.begin(reading)
        try:
            staged = stage_raw_objects(
                self._converter, (_HistoricRecords(reading, part) for part in unit.slices), self._folders
            )
        except OSError as error:
            # What Arrow raises when S3 does not take a part of a file.
            raise RetriableError(f"staging files of unit {unit.name}: {error}") from error
        records = reading.records
        dates = _add_up(unit.name, records, self._converter.rejections, staged)
        index = _index(records, self._converter.rejections)
        index_key = self._journal.put_index(self._backfill, unit.name, uuid.uuid4().hex, index)
        # The staging pulls the converter, which pulls the records: each one's time holds that of the next.
        converting = self._converter.seconds - reading.seconds - reading.proving_seconds
        writing = time.perf_counter() - start - self._converter.seconds
        return self._journal.put_tally(
            self._backfill,
            Tally(
                unit=unit.name,
                source_bytes=unit.bytes,
                started_at=started_at,
                finished_at=datetime.now(UTC),
                seconds=Seconds(
                    reading=reading.seconds,
                    converting=converting,
                    proving=reading.proving_seconds,
                    writing=writing,
                ),
                files=tuple(
                    StagedFile(
                        uri=file.uri,
                        table=file.table,
                        date=date.fromisoformat(file.partition[columns.SUBMISSION_DATE]),
                        rows=file.rows,
                        bytes=file.bytes,
                    )
                    for file in staged.files
                ),
                index_key=index_key,
                dates=dates,
                problems={day: tuple(found) for day, found in reading.problems.items()},
                problem_counts={day: dict(sorted(of.items())) for day, of in reading.problem_counts.items()},
            ),
        )


@dataclass(slots=True)
class _Records:
    """What is remembered of each record of a unit, in columns: it may have some hundred thousand."""

    raw_objects: list[str] = field(default_factory=list)
    positions: "array[int]" = field(default_factory=lambda: array("q"))
    days: list[date] = field(default_factory=list)
    document_ids: list[bytes] = field(default_factory=list)
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
        document_max_bytes: int,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self._backfill = backfill
        self._source = source
        self._document_max_bytes = document_max_bytes
        self._on_bytes = on_bytes
        self.records = _Records()
        self.problems: dict[date, list[Problem]] = {}
        self.problem_counts: dict[date, Counter[str]] = {}
        self.unconverted: dict[Place, SourceRecord] = {}
        """What was read and has not come out of the conversion yet: a record batch at most."""
        self.seconds = 0.0
        self.proving_seconds = 0.0

    def raw_object(self, part: Slice) -> str:
        """What `raw_object` says of the records of a slice."""
        return historic_raw_object(self._backfill, part.file.path, part.start)

    def documents(self, part: Slice) -> Iterator[_Document]:
        """The documents of a slice in their order, each hashed; problems are put aside."""
        raw_object, position = self.raw_object(part), 0
        found = read_records(
            self._source, part.file.source_file(), part.start, part.end, on_bytes=self._on_bytes
        )
        while True:
            start = time.perf_counter()
            record = next(found, None)
            self.seconds += time.perf_counter() - start
            if record is None:
                return
            if isinstance(record, SourceProblem):
                self._note(part.file, record)
                continue
            start = time.perf_counter()
            document = self._hashed(raw_object, position, part.file, record)
            self.proving_seconds += time.perf_counter() - start
            yield document
            position += 1

    def hash_of_bytes(self, record: SourceRecord) -> bytes:
        """The hash of a record that was rejected."""
        return hash_of_bytes(self._backfill, record.document_id, record.content)

    def _note(self, file: PlannedFile, found: SourceProblem) -> None:
        day = file.date or date_of_document(None, file.modified_ms)
        self.problem_counts.setdefault(day, Counter())[found.kind.value] += 1
        if len(kept := self.problems.setdefault(day, [])) < PROBLEMS_MAX:
            kept.append(Problem.of(found))

    def _hashed(self, raw_object: str, position: int, file: PlannedFile, record: SourceRecord) -> _Document:
        try:
            text = decompress_document(record.content, self._document_max_bytes)
            document = parse_json(text)
            of_value = hash_of_value(self._backfill, record.document_id.decode("latin-1").lower(), document)
        except (PingRejected, ValueError, RecursionError):
            # Whatever it is, the conversion has to reject it: `_add_up` insists.
            text, document, of_value = b"", None, None
        day = file.date or date_of_document(document, file.modified_ms)
        records = self.records
        self.unconverted[raw_object, position] = record
        records.raw_objects.append(raw_object)
        records.positions.append(position)
        records.days.append(day)
        records.document_ids.append(record.document_id.lower())
        records.hashes_of_value.append(of_value)
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


class _WatchedConverter(Converter):
    """The conversion of the drain; notes which records are rejected, and how long it takes."""

    def begin(self, reading: _Reading) -> None:
        """Watch what is converted of the records that `reading` reads."""
        self._reading = reading
        self.rejections: dict[Place, _Rejection] = {}
        self.seconds = 0.0

    def convert(self, raw: Received) -> Iterator[Conversion]:
        conversions = super().convert(raw)
        while True:
            start = time.perf_counter()
            conversion = next(conversions, None)
            self.seconds += time.perf_counter() - start
            if conversion is None:
                return
            start = time.perf_counter()
            self._note(raw.key, conversion)
            self._reading.proving_seconds += time.perf_counter() - start
            self.seconds += time.perf_counter() - start
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
    unit: str, records: _Records, rejections: Mapping[Place, _Rejection], staged: StagedFiles
) -> dict[date, DateTally]:
    sums: dict[date, _Sums] = {}
    for number, (raw_object, position) in enumerate(_places(records)):
        of_date = sums.setdefault(records.days[number], _Sums())
        of_date.records += 1
        rejection = rejections.get((raw_object, position))
        of_value = records.hashes_of_value[number]
        if rejection is not None:
            of_date.rejected[rejection.reason] += 1
            of_date.rejected_digest.add(rejection.hash_of_bytes)
            of_date.bytes += records.content_bytes[number]
        elif of_value is not None:
            of_date.converted += 1
            of_date.converted_digest.add(of_value)
            of_date.bytes += records.document_bytes[number]
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
            records=of.records,
            bytes=of.bytes,
            converted=of.converted,
            converted_digest=str(of.converted_digest),
            rejected=dict(sorted(of.rejected.items())),
            rejected_digest=str(of.rejected_digest),
        )
        for day, of in sorted(sums.items())
    }


def _index(records: _Records, rejections: Mapping[Place, _Rejection]) -> bytes:
    found = [rejections.get(place) for place in _places(records)]
    contents = [
        rejection.hash_of_bytes if rejection else of_value or b""
        for rejection, of_value in zip(found, records.hashes_of_value, strict=True)
    ]
    epoch = date(1970, 1, 1).toordinal()
    days = of_integers([day.toordinal() - epoch for day in records.days], pa.int32())
    arrays: dict[str, Array] = {
        "raw_object": of_texts(records.raw_objects),
        "position": of_integers(records.positions, pa.int64()),
        "submission_date": days.view(pa.date32()),
        "document_id": of_bytes(records.document_ids),
        "content": of_bytes(contents),
        "error_type": pa.array([rejection and rejection.reason for rejection in found], pa.string()),
        "path": of_texts(records.paths),
        "offset": of_integers(records.offsets, pa.int64()),
        "number": of_integers(records.numbers, pa.int32()),
    }
    table = pa.Table.from_arrays([arrays[name] for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA)
    sink = pa.BufferOutputStream()
    # The stub of the argument knows bool only.
    repeated: Any = ["raw_object", "submission_date", "error_type", "path"]
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeated)
    return sink.getvalue().to_pybytes()


def _places(records: _Records) -> Iterable[Place]:
    return zip(records.raw_objects, records.positions, strict=True)
