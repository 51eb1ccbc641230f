"""The local copy: complete, verified, switched under readers, and locked to its own files."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lake_testing.aggregate_rows import FIRST, aggregate_rows, aggregate_tables, definitions_of
from lake_testing.cube_sets import make_cubes
from lake_testing.stack import EmbeddedS3, Lake
from telemetry_lake.dashboard.answers import Thresholds, distribution
from telemetry_lake.dashboard.cubes import CubeLimits, Cubes, CubesBusy, RowFilter, files_of, local_name
from telemetry_lake.dashboard.format import Manifest, View
from telemetry_lake.dashboard.local_copy import LocalCopy, NoCubes
from telemetry_lake.dashboard.resolve import resolve
from telemetry_lake.dashboard.search import MetricIndex
from telemetry_lake.dashboard.selection import parse_selection
from telemetry_lake.failures import ConfigurationError, FatalError, RetriableError
from telemetry_lake.storage.object_store import ObjectStore

LIMITS = CubeLimits(
    queries_at_once=2, wait_seconds=10, query_timeout_seconds=30, memory_max_bytes=256 * 2**20
)
DAYS = (FIRST, FIRST + timedelta(days=1))
ROWS = aggregate_rows(last=DAYS[1])
NOW = datetime(2026, 10, 10, tzinfo=UTC)

NewCopy = Callable[..., LocalCopy]


@pytest.fixture(scope="module")
def two_versions(new_lake: Callable[[], Lake]) -> tuple[Lake, Callable[[date], Manifest]]:
    """A lake, and a function that makes cubes of all dates up to one."""
    lake = new_lake()

    def make(last: date) -> Manifest:
        rows = aggregate_tables({day: rows for day, rows in ROWS.items() if day <= last})
        manifest = make_cubes(lake.settings, rows, definitions=definitions_of, now=NOW)
        assert manifest is not None
        return manifest

    return lake, make


@pytest.fixture
def made(two_versions: tuple[Lake, Callable[[date], Manifest]]) -> tuple[Lake, Manifest]:
    lake, make = two_versions
    return lake, make(DAYS[0])


@pytest.fixture
def new_copy(tmp_path: Path) -> Iterator[NewCopy]:
    copies: list[LocalCopy] = []

    def make(lake: Lake, name: str = "copy", limits: CubeLimits = LIMITS) -> LocalCopy:
        store = ObjectStore(lake.settings.s3)
        copies.append(LocalCopy(store, lake.settings.s3.lake_bucket, tmp_path / name, limits))
        return copies[-1]

    yield make
    for copy in copies:
        copy.close()


def pings(cubes: Cubes) -> int:
    asked = parse_selection([("metric", "GC_MS"), ("compare", "channel")], today=DAYS[1])
    index = MetricIndex(cubes.metrics.values())
    answer = distribution(cubes, resolve(cubes, index, asked), Thresholds({}, 0))
    return sum(series.totals.pings for series in answer.series)


def local_files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "copy" / "files").iterdir()}


def names_of(manifest: Manifest) -> set[str]:
    return {local_name(file) for file in files_of(manifest)}


def test_a_reader_keeps_its_version_while_others_get_the_new_one(
    two_versions: tuple[Lake, Callable[[date], Manifest]], new_copy: NewCopy, tmp_path: Path
) -> None:
    lake, make = two_versions
    first = make(DAYS[0])
    copy = new_copy(lake)
    assert copy.refresh()
    assert not copy.refresh(), "nothing has changed"
    with copy.opened() as before:
        of_first = pings(before)
        second = make(DAYS[1])
        assert copy.refresh()
        with copy.opened() as after:
            assert (before.version, after.version) == (first.version, second.version)
            assert pings(after) > of_first
        assert pings(before) == of_first
        assert local_files(tmp_path) == names_of(first) | names_of(second)
    assert local_files(tmp_path) == names_of(second), "what nobody reads is removed"
    with copy.opened() as after:
        assert pings(after) > of_first


def test_readers_at_work_during_switches_never_fail(
    two_versions: tuple[Lake, Callable[[date], Manifest]], new_copy: NewCopy
) -> None:
    lake, make = two_versions
    make(DAYS[0])
    copy = new_copy(lake)
    copy.refresh()
    failures: list[Exception] = []
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            try:
                with copy.opened() as cubes:
                    assert pings(cubes) > 0
            except Exception as error:  # noqa: BLE001 - the test fails with it
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(3):
            make(DAYS[number % 2])
            copy.refresh()
    finally:
        stopped.set()
        for reader in readers:
            reader.join()
    assert failures == []


def test_the_last_version_is_served_after_a_restart_without_the_object_store(
    made: tuple[Lake, Manifest], new_copy: NewCopy
) -> None:
    lake, manifest = made
    copy = new_copy(lake)
    copy.refresh()
    copy.close()
    nowhere = lake.settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:1", "max_attempts": 1})
    again = new_copy(Lake(lake.settings.model_copy(update={"s3": nowhere}), {}, lake.env_file))
    assert again.version == manifest.version
    with pytest.raises(RetriableError):
        again.refresh()
    with again.opened() as cubes:
        assert pings(cubes) > 0
    assert again.problem is not None


def test_a_damaged_local_file_is_fetched_again(
    made: tuple[Lake, Manifest], new_copy: NewCopy, tmp_path: Path
) -> None:
    lake, manifest = made
    copy = new_copy(lake)
    copy.refresh()
    copy.close()
    damaged = tmp_path / "copy" / "files" / local_name(manifest.segments[0])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tmp_path / "copy" / "files" / "left.tmp").write_bytes(b"a download that was killed")
    again = new_copy(lake)
    assert again.version is None
    with pytest.raises(NoCubes, match="there is no data yet"), again.opened():
        pass
    assert again.refresh()
    assert local_files(tmp_path) == names_of(manifest)


def test_a_damaged_object_is_refused_and_readers_keep_what_they_have(
    two_versions: tuple[Lake, Callable[[date], Manifest]], new_copy: NewCopy
) -> None:
    lake, make = two_versions
    first = make(DAYS[0])
    copy = new_copy(lake)
    copy.refresh()
    second = make(DAYS[1])
    [new] = {segment.key for segment in second.segments_of(View.BUILD)} - {
        segment.key for segment in first.segments
    }
    store, bucket = ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket
    whole = store.get(bucket, new)
    store.put(bucket, new, whole[:-1] + b"x")
    with pytest.raises(FatalError, match=r"has \d+ bytes and the SHA-256 .* build the cubes again"):
        copy.refresh()
    assert copy.version == first.version
    assert "build the cubes again" in str(copy.problem)
    store.put(bucket, new, whole)
    assert copy.refresh()
    assert copy.problem is None


def test_a_directory_belongs_to_one_server(made: tuple[Lake, Manifest], new_copy: NewCopy) -> None:
    new_copy(made[0])
    with pytest.raises(ConfigurationError, match="used by another web server: give each one its own"):
        new_copy(made[0])


def test_without_a_pointer_there_is_no_data(lake: Lake, new_copy: NewCopy) -> None:
    copy = new_copy(lake)
    with pytest.raises(NoCubes, match=r"dashboard/current.json is not there"):
        copy.refresh()
    ObjectStore(lake.settings.s3).put(
        lake.settings.s3.lake_bucket, "dashboard/current.json", b'{"version": "../x"}'
    )
    with pytest.raises(FatalError, match="does not name a version of the cubes"):
        copy.refresh()


@pytest.fixture
def opened(made: tuple[Lake, Manifest], new_copy: NewCopy) -> Iterator[Cubes]:
    copy = new_copy(made[0])
    copy.refresh()
    with copy.opened() as cubes:
        yield cubes


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SELECT * FROM read_parquet('{folder}/../copy/files/*.parquet')",
        "SELECT * FROM read_text('http://127.0.0.1/')",
    ],
)
def test_duckdb_reads_the_files_of_its_version_and_nothing_else(
    opened: Cubes, tmp_path: Path, statement: str
) -> None:
    folder = tmp_path / "copy" / "files"
    before = local_files(tmp_path)
    with pytest.raises(Exception, match=r"(?i)permission|locked|disabled|cannot|not found|not allowed"):
        opened._table(statement.format(folder=folder), [])
    assert local_files(tmp_path) == before


def test_a_query_that_takes_too_long_is_stopped(made: tuple[Lake, Manifest], new_copy: NewCopy) -> None:
    limits = CubeLimits(1, wait_seconds=0.05, query_timeout_seconds=0.2, memory_max_bytes=256 * 2**20)
    copy = new_copy(made[0], limits=limits)
    copy.refresh()
    with copy.opened() as cubes:
        endless = "SELECT sum(sqrt(a.range * b.range)) FROM range(10000000) a, range(100000) b"
        with pytest.raises(CubesBusy, match=r"longer than 0.2 seconds and was stopped: choose fewer dates"):
            cubes._table(endless, [])
        assert cubes.rows(View.BUILD, RowFilter("GC_MS", {}), ("date",)).num_rows, "the next one runs"
        with (
            cubes._cursor(),
            pytest.raises(CubesBusy, match=r"1 queries are running and this one waited 0.05 seconds"),
        ):
            cubes.rows(View.BUILD, RowFilter("GC_MS", {}), ("date",))


def test_an_unreachable_store_is_said_and_found_again(
    made: tuple[Lake, Manifest], new_copy: NewCopy, embedded_s3: EmbeddedS3
) -> None:
    settings = made[0].settings
    quick: Any = settings.s3.model_copy(update={"max_attempts": 1, "connect_timeout_seconds": 1})
    copy = new_copy(Lake(settings.model_copy(update={"s3": quick}), {}, made[0].env_file))
    embedded_s3.kill()
    try:
        with pytest.raises(RetriableError):
            copy.refresh()
    finally:
        embedded_s3.start()
    assert copy.refresh()
