"""Read back what a unit staged, and compare it record by record with what the source had.

A row of `live.pings` is put together again as the document that was sent, a row of `live.rejected_pings` has
its bytes; the hash of either must be the one that the unit's index has for this record, which was
computed from the source. Nothing of the run is believed but the index.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake import columns
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.units.digest import Digest, hash_of_bytes, hash_of_text
from telemetry_lake.backfill.units.historic_ping import document_id_of_path
from telemetry_lake.backfill.units.row_texts import RowTexts
from telemetry_lake.convert.converter import Origin
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.commits import TABLES_IN_ORDER
from telemetry_lake.tables.definitions import LIVE_PINGS
from telemetry_lake.tables.staged import StagedFile

if TYPE_CHECKING:
    from telemetry_lake.tables.catalog import StagingArea

DIFFERENCES_MAX: Final = 20
"""How many differing records of a unit are named; all are counted."""
ROWS_AT_ONCE: Final = 128
NO_DOCUMENT: Final = b""
"""The text of a row whose columns do not fit together: that of no document."""

Place = tuple[str, int]
Record = tuple[bytes, bytes, str | None]
"""Document id, hash of the content, and why it was rejected, None when it was converted."""


@dataclass(slots=True)
class Written:
    """What was found in the staged files of a unit for one date."""

    converted: int = 0
    converted_digest: Digest = field(default_factory=Digest)
    rejected: "Counter[str]" = field(default_factory=Counter)
    """By error type."""
    rejected_digest: Digest = field(default_factory=Digest)
    bytes: int = 0
    document_ids: int = 0
    first: date | None = None
    last: date | None = None


@dataclass(slots=True)
class UnitCheck:
    """What reading a unit's files for one date gave; `differences` are sentences about records or files."""

    unit: str
    written: Written
    document_ids: int = 0
    """How many different ones the index has."""
    differences: list[str] = field(default_factory=list)
    difference_count: int = 0

    def differ(self, what: str) -> None:
        """Note a difference."""
        self.difference_count += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(what)


class StagedFileReader:
    """Opens and names the staged files of a backfill; holds the connections of one process."""

    def __init__(self, settings: Settings, backfill: str) -> None:
        from telemetry_lake.tables.catalog import load_lake_catalog, staging_area

        catalog = load_lake_catalog(settings)
        self.folders: dict[str, StagingArea] = {
            name: staging_area(catalog.load_table(name), backfill) for name in TABLES_IN_ORDER
        }

    def open(self, file: StagedFile) -> pq.ParquetFile:
        """Return the file, opened for reading; raises FileNotFoundError."""
        folder = self.folders[file.table]
        path = folder.path + file.uri.removeprefix(folder.uri)
        return pq.ParquetFile(folder.filesystem.open_input_file(path))


class UnitChecker:
    """Checks units of one backfill."""

    def __init__(self, settings: Settings, backfill: str) -> None:
        self._backfill = backfill
        self._journal = Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
        self._staged = StagedFileReader(settings, backfill)

    def check(self, tally: Tally, day: date) -> UnitCheck:
        """Read everything that a unit staged for a date."""
        check = UnitCheck(tally.unit, Written())
        expected, document_ids = self._expected(tally, day)
        check.document_ids = document_ids
        found: set[bytes] = set()
        for file in tally.files:
            if file.date != day:
                continue
            try:
                rows = _pings if file.table == LIVE_PINGS else _rejected_pings
                for row, content in rows(self._staged.open(file)):
                    found.add(self._compare(check, file, row, content, expected))
            except FileNotFoundError:
                check.differ(f"the staged file {file.uri} is not there any more")
            except (OSError, pa.ArrowInvalid) as error:
                check.differ(f"the staged file {file.uri} cannot be read: {error}")
        for raw_object, position in expected:
            check.differ(f"{raw_object}, record {position}: no row was written")
        check.written.document_ids = len(found)
        return check

    def _expected(self, tally: Tally, day: date) -> tuple[dict[Place, Record], int]:
        """Return what the index has of each record, and how many different document ids it has."""
        index = read_index(self._journal, tally)
        names = ("raw_object", "position", "document_id", "content", "error_type", "submission_date")
        values = (index.column(name).to_pylist() for name in names)
        expected: dict[Place, Any] = {
            (raw_object, position): (document_id, content, error_type)
            for raw_object, position, document_id, content, error_type, row_day in zip(*values, strict=True)
            if row_day == day
        }
        return expected, len({document_id for document_id, *_ in expected.values()})

    def _compare(
        self,
        check: UnitCheck,
        file: StagedFile,
        row: Mapping[str, Any],
        content: bytes,
        expected: dict[Place, Record],
    ) -> bytes:
        """Compare a row with its record, which is removed from `expected`; returns the document id."""
        written = check.written
        error_type: str | None = None
        if file.table == LIVE_PINGS:
            found: bytes = row[columns.DOCUMENT_ID].encode()
            content_hash = hash_of_text(self._backfill, row[columns.DOCUMENT_ID], content)
            written.converted += 1
            written.converted_digest.add(content_hash)
            written.bytes += row[columns.DOCUMENT_BYTES]
        else:
            as_sent = document_id_of_path(row[columns.REQUEST]["path"])
            found = as_sent.lower()
            content_hash = hash_of_bytes(self._backfill, as_sent, content)
            error_type = row[columns.ERROR_TYPE]
            written.rejected[str(error_type)] += 1
            written.rejected_digest.add(content_hash)
            written.bytes += len(content)
        day = row[columns.SUBMISSION_DATE]
        written.first = day if written.first is None else min(written.first, day)
        written.last = day if written.last is None else max(written.last, day)
        place = row[columns.RAW_OBJECT], row[columns.RAW_OBJECT_POSITION]
        where = f"{place[0]}, record {place[1]}"
        source = expected.pop(place, None)
        if source is None:
            check.differ(f"{where}: a row that the source has no record for, or a second one")
        elif source != (found, content_hash, error_type):
            check.differ(f"{where}: the row in {file.table} is not the record of the source")
        elif file.table != LIVE_PINGS and row[columns.ORIGIN] != Origin.BACKFILL:
            check.differ(f"{where}: the origin of the row is {row[columns.ORIGIN]!r}")
        return found


def read_index(journal: Journal, tally: Tally) -> pa.Table:
    """Return the index of a unit's records."""
    return pq.read_table(io.BytesIO(journal.index(tally.index_key)))


def _pings(parquet: pq.ParquetFile) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Yield the rows of `live.pings` without histograms and requests, and the texts of their documents."""
    with parquet:
        for batch in parquet.iter_batches(ROWS_AT_ONCE):
            texts = RowTexts(batch)
            rows = batch.drop_columns([columns.HISTOGRAMS, columns.REQUEST]).to_pylist()
            for index, row in enumerate(rows):
                try:
                    content = texts.canonical_text(index, row)
                except (ValueError, LookupError, TypeError):
                    content = NO_DOCUMENT
                yield row, content


def _rejected_pings(parquet: pq.ParquetFile) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Yield the rows of `live.rejected_pings`, and their bytes."""
    with parquet:
        for batch in parquet.iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield row, row[columns.BODY]
