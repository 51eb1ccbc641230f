"""The plan: every byte in exactly one unit, units of bounded size, ids that follow from what is asked."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.backfill.archive.source import ProblemKind
from telemetry_lake.backfill.archive.throttle import Throttle
from telemetry_lake.backfill.plan import (
    UNIT_MAX_FILES,
    Archive,
    DatePlanReference,
    Manifest,
    PlannedFile,
    Selection,
    cut_into_units,
    directories_of,
    plan_dates,
)
from telemetry_lake.backfill.progress import progress
from telemetry_lake.backfill.tally import DateTally, Seconds, Tally
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import SourceFormat, SourceSettings

DAY, NEXT_DAY = date(2014, 3, 1), date(2014, 3, 2)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def archive(*directories, root="file:///archive"):
    return Archive.of(
        SourceSettings(root_url=root, directories=directories or ("",), format=SourceFormat.TEXT_LINES)
    )


def selection(*directories, first=DAY, last=DAY, **more):
    return Selection(archive=archive(*directories), first=first, last=last, **more)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.booleans()), max_size=300), st.integers(100, 2_000))
def test_every_byte_is_in_one_unit_and_units_keep_their_limits(sizes, limit):
    files = [
        PlannedFile(path=f"{n}.gz" if whole else f"{n}", bytes=size, modified_ms=0, checksum=None, date=DAY)
        for n, (size, whole) in enumerate(sizes)
    ]
    units = list(cut_into_units(DAY, files, limit))
    assert units == list(cut_into_units(DAY, files, limit))
    assert len({unit.name for unit in units}) == len(units)
    for unit in units:
        assert len(unit.slices) <= UNIT_MAX_FILES
        assert unit.bytes <= limit or len(unit.slices) == 1
    for file in files:
        ranges = sorted((part.start, part.end) for unit in units for part in unit.slices if part.file == file)
        assert ranges[0][0] == 0
        assert ranges[-1][1] == file.bytes
        assert all(one[1] == two[0] for one, two in pairwise(ranges))


def test_a_date_without_files_is_said(tmp_path):
    folder = tmp_path / "2014" / "03" / "01"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"x\ty\n")
    (tmp_path / "undated.txt").write_bytes(b"x\ty\n")
    source = SourceSettings(root_url=tmp_path.as_uri(), format=SourceFormat.TEXT_LINES)
    asked = Selection(archive=Archive.of(source), first=DAY, last=DAY + timedelta(days=1))
    first, second = plan_dates(asked, source)
    assert [file.path for file in first.files] == ["2014/03/01/a.txt"]
    assert first.problems == ()
    assert [problem.kind for problem in second.problems] == [ProblemKind.MISSING_DIRECTORY]
    (undated,) = plan_dates(Selection(archive=Archive.of(source), undated=True), source)
    assert [file.path for file in undated.files] == ["undated.txt"]


def test_the_id_follows_from_what_is_asked_for():
    assert selection().backfill_id == selection().backfill_id
    others = [
        selection(label="again"),
        selection("a"),
        selection(last=DAY + timedelta(days=1)),
        Selection(archive=archive(), undated=True),
    ]
    assert len({selection().backfill_id, *(other.backfill_id for other in others)}) == 5
    assert selection(label="again").source_id == selection().source_id


@pytest.mark.parametrize(
    "one,other,overlap",
    [
        (selection(), selection(label="again"), False),  # the same dates are published once
        (selection("a"), selection("a/b"), True),
        (selection("a"), selection("ab"), False),
        (selection(), selection("a"), True),
        (selection("a", "b"), selection("b", "c"), True),
        (
            selection("a"),
            selection("a/b", first=NEXT_DAY, last=NEXT_DAY),
            False,
        ),
    ],
)
def test_backfills_that_would_copy_the_same_files_unnoticed_are_found(one, other, overlap):
    assert one.overlaps(other) == other.overlaps(one) == overlap


@pytest.mark.parametrize(
    "paths,directories",
    [
        ([], ()),
        (["a/1", "a/2", "b/1"], ("a", "b")),
        (["a/b/1", "a/1", "ab/1"], ("a", "ab")),
        (["1", "a/1"], ("",)),
    ],
)
def test_files_are_looked_for_where_they_were(paths, directories):
    files = [PlannedFile(path=path, bytes=1, modified_ms=0, checksum=None, date=DAY) for path in paths]
    assert directories_of(files) == directories


def test_without_a_root_it_is_said_what_to_set():
    with pytest.raises(ConfigurationError, match="TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL"):
        Archive.of(SourceSettings())


def test_the_throttle_lets_so_many_bytes_through_and_no_more():
    slept, clock = [], [100.0]

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    throttle = Throttle(1_000, clock=lambda: clock[0], sleep=sleep)
    for _ in range(100):
        throttle.take(500)
    assert clock[0] == pytest.approx(100 + 100 * 500 / 1_000)
    # An hour without reading is no leave to read for an hour without waiting.
    clock[0] += 3_600
    before = clock[0]
    for _ in range(10):
        throttle.take(500)
    assert clock[0] - before >= 10 * 500 / 1_000 - 1


def tally(unit, start, end, size, records):
    of_date = DateTally(
        records=records, bytes=0, converted=records, converted_digest="0", rejected={}, rejected_digest="0"
    )
    return Tally(
        unit=unit,
        source_bytes=size,
        started_at=NOW + timedelta(seconds=start),
        finished_at=NOW + timedelta(seconds=end),
        seconds=Seconds(reading=0, converting=0, proving=0, writing=0),
        files=(),
        index_key="",
        dates={DAY: of_date},
        problems={},
        problem_counts={},
    )


def test_progress_counts_the_time_in_which_somebody_worked():
    reference = DatePlanReference(date=DAY, key="", files=1, bytes=4_000, units=4)
    manifest = Manifest(backfill_id="", created_at=NOW, selection=selection(), dates=(reference,))
    nothing = progress(manifest, [])
    assert (nothing.left, nothing.records_per_second) == (None, None)
    # Two side by side for ten seconds, a pause, ten seconds more.
    shown = progress(
        manifest, [tally("a", 0, 10, 1_000, 50), tally("b", 0, 10, 1_000, 50), tally("c", 60, 70, 1_000, 100)]
    )
    assert (shown.units_done, shown.bytes_done, shown.records) == (3, 3_000, 200)
    assert shown.bytes_per_second == pytest.approx(150)
    assert shown.records_per_second == pytest.approx(10)
    assert shown.left == timedelta(seconds=7)
    assert "3 of 4 units" in str(shown)
    assert "left" in str(shown)
