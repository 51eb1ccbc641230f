"""Versions of cubes in a real S3: two runs at once, runs that are killed, and what is removed."""

import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from multiprocessing.context import ForkServerContext
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lake_testing.cube_sets import GivenAggregates, make_cubes
from lake_testing.killer import Killer, quick_workers, writes_of
from lake_testing.lossy_proxy import lossy_proxy
from lake_testing.sample_rows import sample_rows
from telemetry_lake.dashboard.format import Manifest, View
from telemetry_lake.dashboard.making import versions as versions_module
from telemetry_lake.dashboard.making.build import LOST_MAX, update_cubes
from telemetry_lake.dashboard.making.versions import CubeVersions, CurrentVersion
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.definitions import HISTOGRAM_AGGREGATES

DAYS = (date(2026, 8, 30), date(2026, 8, 31), date(2026, 9, 1))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WORKER_DEADLINE_SECONDS = 60


def rows_of(pings: Mapping[date, int]) -> dict[date, pa.Table]:
    """Rows of these dates, each with so many pings."""
    return {
        day: sample_rows(
            HISTOGRAM_AGGREGATES,
            [
                {
                    "submission_date": day,
                    "histogram_type": 2,
                    "bucket_count": 3,
                    "pings": number,
                    "buckets": [0, 1, 2],
                    "counts": [number, 0, 0],
                    "normalized": [1.0, 0.0, 0.0],
                }
            ],
        )
        for day, number in pings.items()
    }


def store(settings: Settings) -> ObjectStore:
    return ObjectStore(settings.s3)


def cube_versions(settings: Settings) -> CubeVersions:
    return CubeVersions(store(settings), settings.s3.lake_bucket)


def keys(settings: Settings) -> set[str]:
    return {item.key for item in store(settings).list_objects(settings.s3.lake_bucket, "dashboard/")}


def shown(settings: Settings) -> dict[date, int]:
    """The pings of each date in the current version, of which every file is read and is as it should be."""
    versions = cube_versions(settings)
    manifest = versions.current().manifest
    if manifest is None:
        return {}
    versions.get(manifest.dictionary)
    versions.get(manifest.summaries)
    pings: dict[date, int] = {}
    for segment in manifest.segments:
        rows = pl.read_parquet(BytesIO(versions.get(segment)))
        if segment.view is View.SUBMISSION:
            pings.update(rows.select("date", "pings").iter_rows())
    return pings


class Overtaken(CubeVersions):
    """Versions of a run which another run overtakes just before each of its first versions is current."""

    def __init__(self, settings: Settings, others: Sequence[Mapping[date, int]]) -> None:
        super().__init__(store(settings), settings.s3.lake_bucket)
        self._settings = settings
        self._others = list(others)

    def make_current(self, manifest: Manifest, base: CurrentVersion) -> bool:
        if self._others:
            made_at = {day: NOW + timedelta(minutes=len(self._others)) for day in DAYS}
            make_cubes(self._settings, rows_of(self._others.pop(0)), made_at=made_at)
        return super().make_current(manifest, base)


def test_of_two_runs_one_loses_and_starts_again_from_what_the_other_made(lake_settings):
    pings = {DAYS[2]: 5}
    make_cubes(lake_settings, rows_of({DAYS[2]: 1}), made_at={DAYS[2]: NOW - timedelta(days=1)})
    others = [{DAYS[1]: 3, DAYS[2]: 4}]
    made = list(
        update_cubes(Overtaken(lake_settings, others), lambda: GivenAggregates(rows_of(pings)), lambda _: {})
    )
    assert shown(lake_settings) == pings  # without the date that only the other run knew
    assert len(made) == 2


def test_a_run_that_always_loses_gives_up(lake_settings):
    others = [{DAYS[2]: number} for number in range(1, LOST_MAX + 1)]
    with pytest.raises(RetriableError, match=r"replaced the cubes 5 times.*may be left out"):
        list(
            update_cubes(
                Overtaken(lake_settings, others),
                lambda: GivenAggregates(rows_of({DAYS[2]: 9})),
                lambda _: {},
            )
        )
    assert shown(lake_settings) == {DAYS[2]: LOST_MAX}


def test_a_put_of_the_pointer_whose_answer_was_lost_counts(lake_settings):
    class Lossy(ObjectStore):
        def put_if_unchanged(self, *arguments: Any, **named: Any) -> bool:
            assert super().put_if_unchanged(*arguments, **named)
            return super().put_if_unchanged(*arguments, **named)  # boto3's second attempt

    versions = CubeVersions(Lossy(lake_settings.s3), lake_settings.s3.lake_bucket)
    source = GivenAggregates(rows_of({DAYS[2]: 1}))
    assert len(list(update_cubes(versions, lambda: source, lambda _: {}))) == 1
    assert shown(lake_settings) == {DAYS[2]: 1}


def test_what_no_reader_needs_is_removed_after_the_time_of_grace_and_not_before(lake_settings, monkeypatch):
    first = make_cubes(lake_settings, rows_of({DAYS[1]: 1, DAYS[2]: 1}), now=NOW)
    stray = "dashboard/segments/build/2026-09-01_2026-09-01-of-a-killed-run.parquet"
    store(lake_settings).put(lake_settings.s3.lake_bucket, stray, b"")
    before = keys(lake_settings)
    made_at = {DAYS[2]: NOW}
    make_cubes(lake_settings, rows_of({DAYS[1]: 1, DAYS[2]: 2}), made_at=made_at, now=NOW)
    assert keys(lake_settings) > before  # the version before, and what is young

    # S3 has a clock of its own: for it, everything is as old as it should be.
    monkeypatch.setattr(versions_module, "GRACE", timedelta(days=-1))
    third = make_cubes(
        lake_settings,
        rows_of({DAYS[1]: 1, DAYS[2]: 3}),
        made_at={DAYS[2]: NOW + timedelta(minutes=1)},
        now=NOW + timedelta(minutes=1),
    )
    assert first is not None
    assert third is not None
    kept = {version.version for version in third.replaced}
    assert first.version not in kept
    left = keys(lake_settings)
    assert stray not in left
    assert {key for key in left if first.version in key} == set()
    assert shown(lake_settings) == {DAYS[1]: 1, DAYS[2]: 3}
    # The version that was replaced just now is whole.
    for version in kept:
        manifest = cube_versions(lake_settings).manifest(version)
        assert {segment.key for segment in manifest.segments} <= left


def test_a_damaged_file_and_another_format_are_said(lake_settings):
    manifest = make_cubes(lake_settings, rows_of({DAYS[2]: 1}))
    assert manifest is not None
    bucket = lake_settings.s3.lake_bucket
    store(lake_settings).put(bucket, manifest.segments[0].key, b"damage")
    with pytest.raises(FatalError, match="is damaged: its SHA-256"):
        cube_versions(lake_settings).get(manifest.segments[0])
    newer = manifest.model_copy(update={"format": 2}).model_dump_json().encode()
    store(lake_settings).put(bucket, f"dashboard/versions/{manifest.version}/manifest.json", newer)
    with pytest.raises(FatalError, match=r"has the format 2, and this program reads the format 1"):
        cube_versions(lake_settings).current()


@pytest.fixture(scope="session")
def workers() -> ForkServerContext:
    return quick_workers(["polars", "duckdb", "telemetry_lake.dashboard.making.build"])


def make(settings: Settings, pings: Mapping[date, int]) -> None:
    made_at = {day: NOW for day, number in pings.items() if number == 2}
    make_cubes(settings, rows_of(pings), made_at=made_at, now=NOW)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_killed_after_any_write_leaves_a_whole_version_and_a_rerun_finishes(lake_settings, workers):
    before = {DAYS[0]: 1, DAYS[1]: 1, DAYS[2]: 1}
    after = {**before, DAYS[1]: 2, DAYS[2]: 2}
    killer = Killer()

    def worked(fatal_request: int) -> int | None:
        """Make one change in a process of its own, killed at its n-th request; return its exit status."""
        store(lake_settings).delete(lake_settings.s3.lake_bucket, sorted(keys(lake_settings)))
        make(lake_settings, before)
        return killer.work(workers, make, proxied, after, fatal_request=fatal_request)

    with lossy_proxy(lake_settings.s3.endpoint_url, killer.on_answer) as proxy:
        s3 = lake_settings.s3.model_copy(update={"endpoint_url": proxy})
        proxied = lake_settings.model_copy(update={"s3": s3})
        assert worked(0) == 0
        assert shown(lake_settings) == after
        writes = [number for number, _ in writes_of(killer.requests)]
        # Two months change, each in a version of its own: two files, what describes them, the pointer.
        assert len(writes) >= 2 * (2 + 2 + 2)
        for number in writes:
            assert worked(number) == -signal.SIGKILL
            assert shown(lake_settings) in (before, {**before, DAYS[2]: 2}, after)
            make(lake_settings, after)
            assert shown(lake_settings) == after
