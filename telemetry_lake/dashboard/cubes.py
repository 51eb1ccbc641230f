"""One version of the cubes, open for reading: its dictionary, and rows by DuckDB from local files.

What is asked of one metric is read from the parts of the files that have it (`row_groups.py`), and DuckDB
gets it as a table; what is asked of many, DuckDB reads itself. It may read the version's files and nothing
else, and starts no process, extension or download. A cursor of its own serves each query. How many run at
once and how long each may take are limits; a query beyond the second is interrupted.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet

from telemetry_lake.dashboard.format import (
    DEFINITION,
    SEGMENT_SCHEMA,
    Manifest,
    Segment,
    StoredFile,
    View,
)
from telemetry_lake.dashboard.row_groups import Found, RowGroups
from telemetry_lake.failures import FatalError, RetriableError

COMPARABLE: Final = ("channel", "application", "version", "os", "architecture", "process")
"""The columns by which samples can be chosen and compared, in the order in which pages show them."""
UNKNOWN: Final = "unknown"
"""What stands for a dimension that the client did not send."""
FACETS_REMEMBERED: Final = 256
"""For so many metrics their values are remembered, some hundred rows each."""
K = TypeVar("K")
V = TypeVar("V")
KEYS_REMEMBERED: Final = 64
"""For so many choices of rows their keys are remembered, at most some thousand each."""
READ_MAX_ROWS: Final = 200_000
"""So many rows are read at once for a query. Where more may fit, DuckDB reads the files piece by piece."""
_PING: Final = "namespace || '/' || document_type"
_EXPRESSIONS: Final = {"key": '"key"', "ping": _PING, "architecture": f"coalesce(architecture, '{UNKNOWN}')"}
_EMPTY_ROWS: Final = "no_rows"
_READ_ROWS: Final = "read_rows"
_NUMBERS: Final = ("pings", "clients", "sum", "buckets", "counts", "weights")
_STORED_AS: Final = {"ping": ("namespace", "document_type")}
"""The columns behind a name that is not one of them."""


def local_name(file: StoredFile) -> str:
    """Return the name of the local copy of `file`, which follows from its content."""
    return f"{file.sha256}{PurePosixPath(file.key).suffix}"


def files_of(manifest: Manifest) -> tuple[StoredFile, ...]:
    """Return the files of a version that readers need."""
    return (*manifest.segments, manifest.dictionary)


@dataclass(frozen=True, slots=True)
class CubeLimits:
    """What the queries of all readers together may use."""

    queries_at_once: int
    wait_seconds: float
    query_timeout_seconds: float
    memory_max_bytes: int


class CubesBusy(RetriableError):
    """All places for queries are taken, or a query took longer than it may."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What the dictionary says of one metric."""

    name: str
    family: str
    kind: str
    is_keyed: bool
    description: str
    labels: tuple[str, ...]
    processes: tuple[str, ...]
    channels: tuple[str, ...]
    first_date: date | None
    last_date: date | None
    pings: int
    definitions: int
    expires: str | None


class Facet(NamedTuple):
    """A combination of dimensions in which a metric has rows."""

    channel: str
    application: str
    version: str
    os: str
    architecture: str
    process: str
    ping: str
    pings: int
    first_date: date | None
    last_date: date | None


class Key(NamedTuple):
    """A key of a keyed metric; `key` is None for the keys that are not kept one by one."""

    key: str | None
    pings: int
    samples: int
    last_date: date | None
    rest_keys: int | None
    """The most different keys that the rest stands for in one row."""


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows of a metric are meant; an empty tuple means all values."""

    metric: str
    dimensions: Mapping[str, tuple[str, ...]]
    """Allowed values by the names in `COMPARABLE`, and of `ping`."""
    keys: tuple[str, ...] = ()
    """For keyed metrics; with neither `keys` nor `with_rest`, rows of all keys and of the rest."""
    with_rest: bool = False
    first_date: date | None = None
    last_date: date | None = None

    def names(self) -> set[str]:
        """Return the names in `condition`."""
        names = {"metric", *(name for name, allowed in self.dimensions.items() if allowed)}
        if self.keys or self.with_rest:
            names |= {"key", "is_rest"}
        if self.first_date is not None or self.last_date is not None:
            names.add("date")
        return names

    def condition(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL and its parameters."""
        parts, values = ["metric = ?"], [self.metric]
        for name, allowed in self.dimensions.items():
            if allowed:
                parts.append(f"{_EXPRESSIONS.get(name, name)} IN ({', '.join('?' * len(allowed))})")
                values.extend(allowed)
        if self.keys or self.with_rest:
            chosen = [f'(NOT is_rest AND "key" IN ({", ".join("?" * len(self.keys))}))'] if self.keys else []
            values.extend(self.keys)
            parts.append(f"({' OR '.join([*chosen, *(['is_rest'] if self.with_rest else [])])})")
        if self.first_date is not None:
            parts.append("date >= ?")
            values.append(self.first_date)  # type: ignore[arg-type]
        if self.last_date is not None:
            parts.append("date <= ?")
            values.append(self.last_date)  # type: ignore[arg-type]
        return " AND ".join(parts), values


class Cubes:
    """The files of one version below `directory`. Safe for several threads; close it when nobody reads."""

    def __init__(
        self,
        manifest: Manifest,
        directory: Path,
        limits: CubeLimits,
        merged: Mapping[str, Collection[Segment]] = MappingProxyType({}),
    ) -> None:
        """Open the version; `merged` names files, each of which is read in place of segments of one view.

        Raises FatalError when a file is not what the format says.
        """
        self.manifest = manifest
        self.file_names = frozenset([*map(local_name, files_of(manifest)), *merged])
        """The files that have to stay while it is open: also the segments of which merged files are made."""
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.queries_at_once)
        self._facets: dict[tuple[View, str], tuple[Facet, ...]] = {}
        self._keys: dict[tuple[View, str, tuple[Any, ...]], tuple[Key, ...]] = {}
        self._memory_lock = threading.Lock()
        self._releases: dict[View, tuple[tuple[str, str, date], ...]] = {}
        files: dict[View, list[str]] = {view: [] for view in View}
        for name, segments in merged.items():
            files[next(segment.view for segment in segments)].append(str(directory / name))
        in_merged = {segment.key for segments in merged.values() for segment in segments}
        for segment in manifest.segments:
            if segment.rows and segment.key not in in_merged:
                files[segment.view].append(str(directory / local_name(segment)))
        self.files_read = {view: len(names) for view, names in files.items()}
        """How many files a query reads, by view."""
        self.metrics: Mapping[str, Metric] = _dictionary(directory / local_name(manifest.dictionary))
        self._duckdb = duckdb.connect()
        try:
            self._parts = {view: RowGroups(list(map(Path, names))) for view, names in files.items()}
            self._lock([file for names in files.values() for file in names])
            self._duckdb.register(_EMPTY_ROWS, SEGMENT_SCHEMA.empty_table())
            for view, names in files.items():
                # By name, because then the widest type counts, and not that of the first file.
                source = f"read_parquet({_listed(names)}, union_by_name = true)" if names else _EMPTY_ROWS
                self._duckdb.execute(f"CREATE VIEW {view}_rows AS SELECT * FROM {source}")  # noqa: S608
            self._duckdb.execute("SET lock_configuration = true")
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            self._duckdb.close()
            raise FatalError(f"the cubes of version {manifest.version} cannot be read: {error}") from error

    @property
    def version(self) -> str:
        """The version's id."""
        return self.manifest.version

    def close(self) -> None:
        """End DuckDB; queries that still run fail."""
        self._duckdb.close()

    def facets(self, view: View, metric: str) -> tuple[Facet, ...]:
        """Return every combination of dimensions and kind of ping in which the metric has rows."""
        known = self._facets.get((view, metric))
        if known is None:
            groups = ", ".join(f"{_EXPRESSIONS.get(name, name)} AS {name}" for name in (*COMPARABLE, "ping"))
            rows = self._of_metric(
                view,
                RowFilter(metric, {}),
                (*COMPARABLE, "ping", "pings", "date"),
                f"SELECT {groups}, sum(pings)::BIGINT, min(date), max(date) "  # noqa: S608
                "FROM {rows} WHERE {condition} GROUP BY ALL ORDER BY ALL",
            )
            known = tuple(map(Facet._make, zip(*rows.to_pydict().values(), strict=True)))
            self._remember(self._facets, (view, metric), known, FACETS_REMEMBERED)
        return known

    def releases(self, view: View) -> tuple[tuple[str, str, date], ...]:
        """Return every channel, version and date that go together; rows without a date are left out."""
        known = self._releases.get(view)
        if known is None:
            rows = self._table(
                f"SELECT DISTINCT channel, version, date FROM {view}_rows WHERE date IS NOT NULL",  # noqa: S608
                [],
            )
            known = tuple(zip(*rows.to_pydict().values(), strict=True))
            self._releases[view] = known
        return known

    def values(self, view: View, channel: str, versions: Sequence[str]) -> dict[str, list[str]]:
        """Return the metrics of some versions of a channel, and their values of the other dimensions,
        sorted."""
        names = ("metric", "application", "architecture", "os", "process")
        lists = ", ".join(
            f"list_sort(list(DISTINCT {_EXPRESSIONS.get(name, name)})) AS {name}" for name in names
        )
        rows = self._table(
            f"SELECT {lists} FROM {view}_rows "  # noqa: S608
            f"WHERE channel = ? AND version IN ({', '.join('?' * len(versions))})",
            [channel, *versions],
        ).to_pylist()
        return {name: rows[0][name] or [] for name in names}

    def keys(self, view: View, chosen: RowFilter) -> tuple[Key, ...]:
        """Return the keys in the chosen rows, those with most pings first."""
        condition, values = chosen.condition()
        known = self._keys.get((view, condition, tuple(values)))
        if known is not None:
            return known
        rows = self._of_metric(
            view,
            chosen,
            ("is_rest", "key", "pings", "counts", "date", "rest_keys"),
            'SELECT CASE WHEN is_rest THEN NULL ELSE "key" END AS name, sum(pings)::BIGINT AS pings, '
            "coalesce(sum(list_sum(counts)), 0)::BIGINT AS samples, max(date), max(rest_keys) "
            'FROM {rows} WHERE {condition} AND (is_rest OR "key" IS NOT NULL) '
            "GROUP BY ALL ORDER BY pings DESC, name",
        )
        known = tuple(map(Key._make, zip(*rows.to_pydict().values(), strict=True)))
        self._remember(self._keys, (view, condition, tuple(values)), known, KEYS_REMEMBERED)
        return known

    def rows(self, view: View, chosen: RowFilter, columns: Sequence[str]) -> pa.Table:
        """Return the chosen rows as they are stored, with these `columns` (of `COMPARABLE`, `key`, `date`).

        The columns after them are `DEFINITION`, `pings`, `clients`, `sum`, `buckets`, `counts` and `weights`.
        """
        groups = [f"{_EXPRESSIONS.get(name, name)} AS {name}" for name in columns]
        return self._of_metric(
            view,
            chosen,
            (*columns, *DEFINITION, *_NUMBERS),
            f"SELECT {', '.join([*groups, *DEFINITION, *_NUMBERS])} "  # noqa: S608
            "FROM {rows} WHERE {condition}",
        )

    def _remember(self, memory: dict[K, V], key: K, value: V, at_most: int) -> None:
        with self._memory_lock:
            if len(memory) >= at_most:
                memory.pop(next(iter(memory)))
            memory[key] = value

    def _lock(self, files: list[str]) -> None:
        # The order matters: with a temporary directory DuckDB would also allow that directory.
        for statement in (
            "SET temp_directory = ''",
            f"SET allowed_paths = {_listed(files)}",
            "SET enable_external_access = false",
            "SET autoload_known_extensions = false",
            "SET autoinstall_known_extensions = false",
            "SET python_enable_replacements = false",
            f"SET memory_limit = '{self._limits.memory_max_bytes}B'",
            "SET threads = 2",
            "SET TimeZone = 'UTC'",
            "SET parquet_metadata_cache = true",
            # A file of a version never changes.
            "SET validate_external_file_cache = 'NO_VALIDATION'",
        ):
            self._duckdb.execute(statement)

    def _of_metric(self, view: View, chosen: RowFilter, names: Sequence[str], sql: str) -> pa.Table:
        """Return the answer to a query over the chosen rows of one metric that uses these names of theirs."""
        found = self._parts[view].find(
            chosen.metric,
            chosen.dimensions.get("channel", ()),
            chosen.keys,
            with_rest=chosen.with_rest,
        )
        condition, values = chosen.condition()
        if found.rows > READ_MAX_ROWS:
            return self._table(sql.format(rows=f"{view}_rows", condition=condition), values)
        columns = {column for name in (*names, *chosen.names()) for column in _STORED_AS.get(name, (name,))}
        return self._table(sql.format(rows=_READ_ROWS, condition=condition), values, (found, sorted(columns)))

    def _table(self, sql: str, values: list[Any], of: tuple[Found, Sequence[str]] | None = None) -> pa.Table:
        with self._cursor() as cursor:
            if of is not None:
                found, columns = of
                cursor.register(_READ_ROWS, found.read(columns))
            table: pa.Table = cursor.sql(sql, params=values).to_arrow_table()
            return table

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        limits = self._limits
        if not self._places.acquire(timeout=limits.wait_seconds):
            raise CubesBusy(
                f"{limits.queries_at_once} queries are running and this one waited {limits.wait_seconds:g} "
                "seconds for a place: try again in a moment"
            )
        try:
            cursor = self._duckdb.cursor()
            timer = threading.Timer(limits.query_timeout_seconds, cursor.interrupt)
            timer.daemon = True
            timer.start()
            try:
                yield cursor
            except duckdb.InterruptException as error:
                raise CubesBusy(
                    f"the query took longer than {limits.query_timeout_seconds:g} seconds and was stopped: "
                    "choose fewer dates, versions or keys"
                ) from error
            except duckdb.OutOfMemoryException as error:
                raise CubesBusy(
                    "the query needs more memory than queries may have: choose fewer dates, versions or keys"
                ) from error
            except (duckdb.IOException, OSError, pa.ArrowException) as error:
                raise FatalError(
                    f"a file of the cubes of version {self.version} is damaged: {error}"
                ) from error
            finally:
                timer.cancel()
                cursor.close()
        finally:
            self._places.release()


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]"


def _dictionary(file: Path) -> dict[str, Metric]:
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        return {
            row["metric"]: Metric(
                name=row["metric"],
                family=row["family"],
                kind=row["kind"],
                is_keyed=row["keyed"],
                description=row["description"] or "",
                labels=tuple(row["labels"] or ()),
                processes=tuple(row["processes"] or ()),
                channels=tuple(row["channels"] or ()),
                first_date=row["first_date"],
                last_date=row["last_date"],
                pings=row["pings"] or 0,
                definitions=row["definitions"] or 0,
                expires=row["expires"],
            )
            for row in rows
        }
    except (OSError, KeyError, pa.ArrowException) as error:
        raise FatalError(f"the dictionary of metrics cannot be read: {error!r}") from error
