"""The catalog of a simulated world and its tables, with the faces of pyiceberg's: what the pipeline calls.

A table is a list of rows and a line of snapshots. A commit is a compare-and-swap, as in every Iceberg
catalog: it fails when the table has moved since it was loaded, unless its retries are not switched off; then
it is applied to the table as it is now, which is how pyiceberg would double a batch.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Any, Final, TypeVar

import pyarrow as pa
import requests
from pyarrow.fs import FileType
from pydantic import BaseModel, ConfigDict
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import expression_evaluator
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.typedef import Record

from lake_testing.simulation.world import Service, World
from telemetry_lake.columns import DOCUMENT_TYPE, ERROR_TYPE, RAW_OBJECT, RAW_OBJECT_POSITION, SUBMISSION_DATE
from telemetry_lake.tables.catalog import iceberg_schema
from telemetry_lake.tables.definitions import table_definition

Row = dict[str, Any]
T = TypeVar("T")

_EVERYTHING: Final = AlwaysTrue()
_SCHEME: Final = "simulated://"
_EPOCH: Final = date(1970, 1, 1)
_FILTERED: Final = {SUBMISSION_DATE, DOCUMENT_TYPE, ERROR_TYPE, RAW_OBJECT, RAW_OBJECT_POSITION}
"""The columns that the pipeline's conditions are about."""


@dataclass(slots=True)
class _File:
    rows: list[Row]
    written_at: datetime


class Metadata(BaseModel):
    """What is read of a table's metadata."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    snapshots: list[Snapshot] = []
    properties: dict[str, str] = {}

    @property
    def refs(self) -> dict[str, SnapshotRef]:
        """The branches: main, at the last snapshot."""
        if not self.snapshots:
            return {}
        last = self.snapshots[-1].snapshot_id
        branch = {"snapshot-id": last, "type": SnapshotRefType.BRANCH}
        return {MAIN_BRANCH: SnapshotRef.model_validate(branch)}

    def snapshot_by_id(self, snapshot_id: int) -> Snapshot | None:
        return next((found for found in self.snapshots if found.snapshot_id == snapshot_id), None)


@dataclass(slots=True)
class _Stored:
    """A table as it is in the catalog."""

    rows: list[Row] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    """The staged files that are in the table."""
    properties: dict[str, str] = field(default_factory=dict)


class SimulatedCatalog:
    """A catalog, and the staged files of its tables."""

    def __init__(self, world: World, tables: Sequence[str]) -> None:
        self.world = world
        self.stored = {name: _Stored() for name in tables}
        self.staged: dict[str, _File] = {}
        self.committed_raw_objects: set[str] = set()
        """The raw objects that rows of any table ever named."""
        self._snapshot_ids = itertools.count(1)
        self._file_numbers = itertools.count()

    def load_table(self, name: str) -> "SimulatedTable":
        def load() -> SimulatedTable:
            if name not in self.stored:
                raise NoSuchTableError(name)
            return SimulatedTable(self, name)

        return self.call(load, f"load {name}")

    def namespace_exists(self, name: str) -> bool:
        return self.call(
            lambda: any(table.startswith(f"{name}.") for table in self.stored),
            f"look for the namespace {name}",
        )

    def stage(self, table: str, rows: Sequence[Row]) -> str:
        """Write a file that no snapshot names; its address."""
        uri = f"{_SCHEME}{table}/{next(self._file_numbers)}.parquet"

        def write() -> str:
            self.staged[uri] = _File(list(rows), self.world.now)
            return uri

        return self.world.call(Service.S3, write, _unavailable, f"write {uri}")

    def expire_snapshots(self, name: str, older_than: datetime) -> None:
        """Take old snapshots out of the history, as the maintenance job does."""

        def expire() -> None:
            stored = self.stored[name]
            kept = [
                snapshot
                for snapshot in stored.snapshots
                if snapshot.timestamp_ms >= older_than.timestamp() * 1_000 or snapshot is stored.snapshots[-1]
            ]
            ids = {snapshot.snapshot_id for snapshot in kept}
            stored.snapshots = [
                snapshot
                if snapshot.parent_snapshot_id in ids
                else snapshot.model_copy(update={"parent_snapshot_id": None})
                for snapshot in kept
            ]

        self.call(expire, f"expire snapshots of {name}")

    def remove_orphans(self, name: str, older_than: datetime) -> None:
        """Delete staged files that are in no table, as the maintenance job does."""

        def remove() -> None:
            named = self.stored[name].files
            for uri, file in list(self.staged.items()):
                if uri.startswith(f"{_SCHEME}{name}/") and uri not in named and file.written_at < older_than:
                    del self.staged[uri]

        self.world.call(Service.S3, remove, _unavailable, f"remove orphans of {name}")

    def call(self, act: Callable[[], T], what: str) -> T:
        return self.world.call(Service.CATALOG, act, _unavailable, what)

    def next_snapshot_id(self) -> int:
        return next(self._snapshot_ids)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What the object store says of a file, with the face of pyarrow's."""

    type: FileType
    mtime: datetime | None


@dataclass(frozen=True, slots=True)
class SimulatedFiles:
    """The staged files, as a file system whose paths are addresses without their scheme."""

    catalog: "SimulatedCatalog"

    def get_file_info(self, path: str) -> FileInfo:
        def look() -> FileInfo:
            file = self.catalog.staged.get(_SCHEME + path)
            return FileInfo(FileType.File, file.written_at) if file else FileInfo(FileType.NotFound, None)

        return self.catalog.world.call(Service.S3, look, _unavailable, f"look at {path}")

    def copy_file(self, source: str, target: str) -> None:
        def copy() -> None:
            if _SCHEME + source not in self.catalog.staged:
                raise FileNotFoundError(source)
            rows = self.catalog.staged[_SCHEME + source].rows
            self.catalog.staged[_SCHEME + target] = _File(rows, self.catalog.world.now)

        self.catalog.world.call(Service.S3, copy, _unavailable, f"copy {source}")


def file_system(table: "SimulatedTable", uri: str) -> tuple[SimulatedFiles, str]:
    """Return the file system of a table's files, and the path of one of them."""
    return SimulatedFiles(table.catalog), uri.removeprefix(_SCHEME)


class SimulatedTable:
    """A table as it was when it was loaded or last committed to."""

    def __init__(self, catalog: SimulatedCatalog, name: str) -> None:
        self.catalog = self._catalog = catalog
        self._name = name
        self.metadata = Metadata()
        self._rows: list[Row] = []
        self._read()

    def name(self) -> tuple[str, ...]:
        return tuple(self._name.split("."))

    def current_snapshot(self) -> Snapshot | None:
        return self.metadata.snapshots[-1] if self.metadata.snapshots else None

    def snapshot_by_id(self, snapshot_id: int) -> Snapshot | None:
        return self.metadata.snapshot_by_id(snapshot_id)

    def scan(
        self,
        row_filter: BooleanExpression = _EVERYTHING,
        selected_fields: Sequence[str] = ("*",),
    ) -> "_Scan":
        return _Scan(self._catalog, self._name, self._rows, row_filter, selected_fields)

    @contextmanager
    def transaction(self) -> "Iterator[_Transaction]":
        changes = _Transaction(self._catalog, self._name)
        yield changes
        base = self.current_snapshot()
        safe = self.metadata.properties.get(TableProperties.COMMIT_NUM_RETRIES) == "0"

        def commit() -> None:
            stored = self._catalog.stored[self._name]
            current = stored.snapshots[-1] if stored.snapshots else None
            if changes.changes_rows and current is not base:
                if safe:
                    raise CommitFailedException("the branch main has changed")
                if changes.deletes_others_than(self._rows, stored):
                    raise ValidationException("data files were concurrently deleted")
            changes.apply(stored)

        self._catalog.call(commit, f"commit to {self._name}")
        self._read()

    def _read(self) -> None:
        stored = self._catalog.stored[self._name]
        self.metadata = self.metadata.model_copy(
            update={"snapshots": list(stored.snapshots), "properties": dict(stored.properties)}
        )
        self._rows = list(stored.rows)


class _Transaction:
    def __init__(self, catalog: SimulatedCatalog, name: str) -> None:
        self._catalog = catalog
        self._name = name
        self._added: list[str] = []
        self._deleted: BooleanExpression | None = None
        self._properties: Mapping[str, str] = {}
        self._set: dict[str, str] = {}
        self._removed: list[str] = []

    @property
    def changes_rows(self) -> bool:
        """Whether it makes a snapshot."""
        return bool(self._added) or self._deleted is not None

    def deletes_others_than(self, seen: Sequence[Row], stored: _Stored) -> bool:
        """Whether the rows that it deletes of the table now are not those that were seen."""
        if self._deleted is None:
            return False
        fits = _evaluator(self._name, self._deleted)
        return [row for row in seen if fits(row)] != [row for row in stored.rows if fits(row)]

    def set_properties(self, properties: Mapping[str, str]) -> None:
        self._set.update(properties)

    def remove_properties(self, *names: str) -> None:
        self._removed += names

    def add_files(
        self, uris: Sequence[str], snapshot_properties: Mapping[str, str], *, check_duplicate_files: bool
    ) -> None:
        missing = [uri for uri in uris if uri not in self._catalog.staged]
        if missing:
            raise FileNotFoundError(missing[0])
        self._added += uris
        self._properties = snapshot_properties

    def delete(self, condition: BooleanExpression, snapshot_properties: Mapping[str, str]) -> None:
        self._deleted = condition
        self._properties = snapshot_properties

    def apply(self, stored: _Stored) -> None:
        stored.properties.update(self._set)
        for name in self._removed:
            stored.properties.pop(name, None)
        if not self.changes_rows:
            return
        if self._deleted is not None:
            fits = _evaluator(self._name, self._deleted)
            stored.rows = [row for row in stored.rows if not fits(row)]
        for uri in self._added:
            rows = self._catalog.staged[uri].rows
            stored.rows += rows
            self._catalog.committed_raw_objects.update(row[RAW_OBJECT] for row in rows)
            stored.files.add(uri)
        parent = stored.snapshots[-1] if stored.snapshots else None
        stored.snapshots.append(
            Snapshot(
                snapshot_id=self._catalog.next_snapshot_id(),
                parent_snapshot_id=parent.snapshot_id if parent else None,
                sequence_number=(parent.sequence_number or 0) + 1 if parent else 1,
                timestamp_ms=int(self._catalog.world.now.timestamp() * 1_000),
                manifest_list="",
                summary=Summary(
                    Operation.APPEND if self._deleted is None else Operation.OVERWRITE, **self._properties
                ),
            )
        )


@dataclass(frozen=True, slots=True)
class _Scan:
    catalog: SimulatedCatalog
    name: str
    rows: list[Row]
    condition: BooleanExpression
    fields: Sequence[str]

    def plan_files(self) -> list[Any]:
        """Return none: how large files are does not matter here."""
        return []

    def to_arrow(self) -> pa.Table:
        definition = table_definition(self.name)
        names = None if tuple(self.fields) == ("*",) else list(self.fields)
        schema = definition.arrow_schema(names)
        fits = _evaluator(self.name, self.condition)

        def read() -> pa.Table:
            found = [row for row in self.rows if fits(row)]
            return pa.Table.from_pylist(
                [{name: row.get(name) for name in schema.names} for row in found], schema=schema
            )

        return self.catalog.world.call(Service.S3, read, _unavailable, f"scan {self.name}")


def _evaluator(name: str, condition: BooleanExpression) -> Callable[[Row], bool]:
    """Return a function that tells whether a row fits."""
    if isinstance(condition, AlwaysTrue):
        return lambda row: True
    schema = _filtered_columns(name)
    evaluate = expression_evaluator(schema, condition, True)
    columns = schema.column_names

    def fits(row: Row) -> bool:
        return bool(evaluate(Record(*(_as_stored(row.get(column)) for column in columns))))

    return fits


def _as_stored(value: object) -> object:
    """Return a value in Iceberg's own form, in which a date is a number of days since 1970."""
    return (value - _EPOCH).days if isinstance(value, date) else value


@cache
def _filtered_columns(name: str) -> Schema:
    definition = table_definition(name)
    names = [column.name for column in definition.columns if column.name in _FILTERED]
    return iceberg_schema(definition).select(*names)


def _unavailable(what: str) -> Exception:
    return requests.ConnectionError(what)
