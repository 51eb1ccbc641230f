"""Merged days in the local copy: the same answers from fewer files, made once, found again, never trusted
blindly."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lake_testing.aggregate_rows import FIRST, LAST, aggregate_rows, aggregate_tables, definitions_of
from lake_testing.cube_sets import make_cubes
from lake_testing.stack import Lake
from telemetry_lake.dashboard.answers import Thresholds, distribution, evolution
from telemetry_lake.dashboard.cubes import CubeLimits, local_name
from telemetry_lake.dashboard.format import Manifest, View
from telemetry_lake.dashboard.local_copy import LocalCopy
from telemetry_lake.dashboard.local_merge import LOOSE_DATES, MERGED_PREFIX
from telemetry_lake.dashboard.resolve import resolve
from telemetry_lake.dashboard.search import MetricIndex
from telemetry_lake.dashboard.selection import parse_selection
from telemetry_lake.failures import RetriableError
from telemetry_lake.storage.object_store import ObjectStore

LIMITS = CubeLimits(
    queries_at_once=2, wait_seconds=10, query_timeout_seconds=30, memory_max_bytes=256 * 2**20
)
BEFORE_SEPTEMBER_IS_MERGED = datetime(2026, 10, 5, tzinfo=UTC)
BOTH_MONTHS_ARE_OVER = datetime(2026, 11, 20, tzinfo=UTC)
ROWS = aggregate_rows(last=LAST + timedelta(days=1), many_keys=205)
MONTHS_AND_LOOSE = 2 + LOOSE_DATES


@pytest.fixture(scope="module")
def versions(new_lake: Callable[[], Lake]) -> tuple[Lake, Callable[[date], Manifest]]:
    """A lake, and a function that makes cubes of all dates up to one."""
    lake = new_lake()

    def make(last: date) -> Manifest:
        rows = aggregate_tables({day: rows for day, rows in ROWS.items() if day <= last})
        manifest = make_cubes(lake.settings, rows, definitions=definitions_of, now=BEFORE_SEPTEMBER_IS_MERGED)
        assert manifest is not None
        return manifest

    return lake, make


@pytest.fixture
def new_copy(versions: tuple[Lake, Any], tmp_path: Path) -> Iterator[Callable[[], LocalCopy]]:
    lake, copies = versions[0], []

    def make() -> LocalCopy:
        store = ObjectStore(lake.settings.s3)
        copies.append(LocalCopy(store, lake.settings.s3.lake_bucket, tmp_path, LIMITS))
        return copies[-1]

    yield make
    for copy in copies:
        copy.close()


def merged_all(copy: LocalCopy) -> int:
    """Merge until nothing is left to merge. Returns how many files were made."""
    made = 0
    while copy.merge():
        made += 1
    return made


def answers(copy: LocalCopy) -> list[Any]:
    """Return answers about every metric, by both dates, with all keys and the rest of them."""
    found: list[Any] = []
    with copy.opened() as cubes:
        index = MetricIndex(cubes.metrics.values())
        for metric in sorted(cubes.metrics):
            for view in View:
                asked = [("metric", metric), ("by", view.value), ("compare", "channel"), ("rest", "1")]
                resolved = resolve(cubes, index, parse_selection(asked, today=LAST))
                found.append(distribution(cubes, resolved, Thresholds({}, 0)))
                found.append(evolution(cubes, resolved, Thresholds({}, 0)))
                found.append(sorted(cubes.keys(view, resolved.row_filter), key=repr))
                found.append(sorted(cubes.facets(view, metric)))
    return found


def merged_files(folder: Path) -> list[Path]:
    return sorted((folder / "files").glob(f"{MERGED_PREFIX}*"))


def test_merged_days_give_the_answers_of_the_days(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy]
) -> None:
    manifest = versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    before = answers(copy)
    assert len(manifest.segments_of(View.BUILD)) == (LAST - FIRST).days + 1
    assert merged_all(copy) == 2 * len(View)
    assert answers(copy) == before
    with copy.opened() as cubes:
        assert cubes.files_read == dict.fromkeys(View, MONTHS_AND_LOOSE)


def test_months_become_a_file_of_their_year(lake: Lake, tmp_path: Path) -> None:
    rows = aggregate_tables({day: rows for day, rows in ROWS.items() if day <= LAST})
    manifest = make_cubes(lake.settings, rows, definitions=definitions_of, now=BOTH_MONTHS_ARE_OVER)
    assert manifest is not None
    assert len(manifest.segments_of(View.BUILD)) == 2
    copy = LocalCopy(ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket, tmp_path / "copy", LIMITS)
    try:
        copy.refresh()
        before = answers(copy)
        assert merged_all(copy) == len(View)
        assert answers(copy) == before
        with copy.opened() as cubes:
            assert cubes.files_read == dict.fromkeys(View, 1)
    finally:
        copy.close()


def test_a_new_day_is_added_to_the_file_of_its_month(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy], tmp_path: Path
) -> None:
    first = versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    merged_all(copy)
    september = merged_files(tmp_path)
    versions[1](LAST + timedelta(days=1))
    copy.refresh()
    days = answers(copy)
    # Whoever reads the days that are merged already fails from here on.
    for segment in first.segments:
        if segment.last_date <= LAST - timedelta(days=LOOSE_DATES):
            (tmp_path / "files" / local_name(segment)).write_bytes(b"")
    assert merged_all(copy) == len(View)
    assert answers(copy) == days
    after = merged_files(tmp_path)
    assert len(after) == 2 * len(View), "the smaller file of the month is removed"
    assert len(set(september) & set(after)) == len(View), "that of the other month stays"


def test_merged_files_are_found_again_and_damaged_ones_made_again(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy], tmp_path: Path
) -> None:
    versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    merged_all(copy)
    before = answers(copy)
    copy.close()
    again = new_copy()
    assert merged_all(again) == 0
    again.close()
    damaged = merged_files(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (tmp_path / "files" / f"{MERGED_PREFIX}left.tmp").write_bytes(b"of a process that was killed")
    third = new_copy()
    assert answers(third) == before
    assert merged_all(third) == 1
    assert answers(third) == before
    assert not list((tmp_path / "files").glob("*.tmp"))


def test_what_cannot_be_merged_is_read_as_it_is(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy], tmp_path: Path
) -> None:
    manifest = versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    october = next(each for each in manifest.segments_of(View.SUBMISSION) if each.first_date.month == 10)
    path = tmp_path / "files" / local_name(october)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(RetriableError, match=r"from 2026-10-01 to 2026-10-07 cannot be merged"):
        copy.merge()
    path.write_bytes(whole)
    before = answers(copy)
    assert merged_all(copy) == 3, "the others are merged, and this one is left until the next version"
    assert answers(copy) == before
    assert not list((tmp_path / "files").glob("*.tmp"))


def test_nothing_is_merged_once_the_copy_is_closed(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy], tmp_path: Path
) -> None:
    versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    copy.close()
    assert not copy.merge()
    assert merged_files(tmp_path) == []


def test_readers_at_work_while_days_are_merged_never_fail(
    versions: tuple[Lake, Callable[[date], Manifest]], new_copy: Callable[[], LocalCopy]
) -> None:
    versions[1](LAST)
    copy = new_copy()
    copy.refresh()
    expected, failures, stopped = answers(copy)[:4], [], threading.Event()

    def read() -> None:
        while not stopped.is_set():
            try:
                assert answers(copy)[:4] == expected
            except Exception as error:  # noqa: BLE001 - the test fails with it
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        merged_all(copy)
    finally:
        stopped.set()
        for reader in readers:
            reader.join()
    assert failures == []
