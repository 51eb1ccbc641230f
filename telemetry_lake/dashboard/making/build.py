"""Making the cubes: a day costs a day.

`update_cubes` compares the dates of the aggregates with those of the current version, and makes the segments
of what has changed (`plan`). Each month that changes is a version of its own, so that a run that is killed
loses at most a month. What is made is on the local disk first, and is held in memory only in pieces.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl
import pyarrow as pa

from telemetry_lake.dashboard.cube_rows import READ, add_up, cube_rows, of_submission_date
from telemetry_lake.dashboard.format import Manifest, Segment, View
from telemetry_lake.dashboard.making.dictionary import (
    RANGE,
    SUMMARY_SCHEMA,
    Definitions,
    dictionary_of,
    parquet_bytes,
    summary,
)
from telemetry_lake.dashboard.making.kept_keys import READ_FOR_KEYS, choose_keys
from telemetry_lake.dashboard.making.plan import MonthPlan, month_of, plan_month
from telemetry_lake.dashboard.making.source import Source, end_of
from telemetry_lake.dashboard.making.versions import CubeVersions, new_version, replaced_versions
from telemetry_lake.dashboard.segment_files import SegmentWriter, add_up_files
from telemetry_lake.failures import RetriableError

DICTIONARY: Final = "metrics.parquet"
SUMMARIES: Final = "summaries.parquet"
RUN_ROWS: Final = 100_000
"""So many rows of a view are held before they are added up, sorted and written to the disk."""
LOST_MAX: Final = 5
"""After so many attempts in a row for which another run was faster, a run gives up."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class MadeFile:
    """The rows of some submission dates in a view, on the local disk."""

    view: View
    first_date: date
    last_date: date
    path: Path
    rows: int


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def update_cubes(
    versions: CubeVersions,
    open_source: Callable[[], Source],
    definitions: Definitions,
    *,
    clock: Clock = utc_now,
) -> Iterator[Manifest]:
    """Bring the cubes up to date, and yield each version once it is current; none when they are.

    `open_source` says what there is at the moment; it is called for each version. Raises RetriableError when
    other runs are always faster.
    """
    lost = 0
    while True:
        base = versions.current()
        source = open_source()
        plan = plan_month(base.manifest, source.dates(), clock())
        if plan is None:
            return
        with TemporaryDirectory(prefix="cubes-") as folder:
            attempt = _Attempt(versions, base.manifest, source, definitions, Path(folder), clock)
            manifest = attempt.make(plan)
        if versions.make_current(manifest, base):
            versions.remove_unused(manifest)
            yield manifest
            lost = 0
            continue
        lost += 1
        if lost == LOST_MAX:
            raise RetriableError(
                f"other runs replaced the cubes {lost} times while this one was at work; they do the "
                "same, so this run may be left out"
            )


def make_date(source: Source, day: date, version: str, folder: Path) -> list[MadeFile]:
    """Make the files of a submission date in `folder`, one a view; return those that have rows."""
    keys = choose_keys(source.batches(day, READ_FOR_KEYS), folder)
    runs = {view: _Runs(folder, f"{day}-{view}", version) for view in View}
    for batch in source.batches(day, READ):
        rows = keys.fold(cube_rows(pa.Table.from_batches([batch])))
        runs[View.BUILD].add(rows)
        runs[View.SUBMISSION].add(of_submission_date(rows, day))
    made = []
    for view, run in runs.items():
        path, count = run.finish()
        if count:
            made.append(MadeFile(view, day, day, path, count))
    return made


class _Runs:
    """Collects rows in any order, and ends with one sorted file of them."""

    def __init__(self, folder: Path, name: str, version: str) -> None:
        self._folder = folder
        self._name = name
        self._version = version
        self._held: list[pa.Table] = []
        self._runs: list[tuple[Path, int]] = []

    def add(self, rows: pa.Table) -> None:
        """Add rows of a cube."""
        self._held.append(rows)
        if sum(part.num_rows for part in self._held) >= RUN_ROWS:
            self._held = [add_up(self._held)]
            # What was added up to much less has room for more.
            if self._held[0].num_rows >= RUN_ROWS // 2:
                self._write()

    def finish(self) -> tuple[Path, int]:
        """Return the file and its number of rows."""
        if self._held:
            self._held = [add_up(self._held)]
            self._write()
        path = self._folder / f"{self._name}.parquet"
        if not self._runs:
            return path, 0
        if len(self._runs) == 1:
            ((run, rows),) = self._runs
            return run.rename(path), rows
        rows = add_up_files([run for run, _ in self._runs], path, self._version)
        for run, _ in self._runs:
            run.unlink()
        return path, rows

    def _write(self) -> None:
        path = self._folder / f"{self._name}-{len(self._runs)}.parquet"
        with SegmentWriter(path, self._version) as writer:
            writer.write(self._held[0])
        self._runs.append((path, self._held[0].num_rows))
        self._held = []


class _Attempt:
    """One attempt to make a version; a run that loses begins another one, and uses nothing of this one."""

    def __init__(
        self,
        versions: CubeVersions,
        base: Manifest | None,
        source: Source,
        definitions: Definitions,
        folder: Path,
        clock: Clock,
    ) -> None:
        self._versions = versions
        self._base = base
        self._source = source
        self._wanted = source.dates()
        self._definitions = definitions
        self._folder = folder
        self._clock = clock
        self._version = new_version(clock())

    def make(self, plan: MonthPlan) -> Manifest:
        """Store what is new, and return the manifest of the version with it."""
        made = [
            file for day in plan.made for file in make_date(self._source, day, self._version, self._folder)
        ]
        kept = list(plan.kept)
        if plan.is_merged:
            made, kept = self._merged(made, kept)
        stored = [self._stored(file) for file in made]
        segments = [*plan.others, *kept, *stored]
        summaries = pl.concat(
            [
                self._summaries_of([*plan.others, *kept]),
                *(
                    summary(file.path, file.first_date, file.last_date)
                    for file in made
                    if file.view is View.SUBMISSION
                ),
            ]
        )
        other_dates = self._base.dates.items() if self._base else ()
        dates = {day: state for day, state in other_dates if month_of(day) != plan.month}
        dates |= {day: wanted.identity for day, wanted in self._wanted.items() if month_of(day) == plan.month}
        last = max(dates, default=None)
        until = self._wanted[last].received_until if last in self._wanted else None
        now = self._clock()
        return Manifest(
            version=self._version,
            built_at=now,
            data_until=until,
            preliminary_date=last if last and until and until < end_of(last) else None,
            segments=tuple(sorted(segments, key=lambda segment: (segment.view, segment.first_date))),
            dictionary=self._versions.put_file(
                self._version, DICTIONARY, parquet_bytes(dictionary_of(summaries, self._definitions))
            ),
            summaries=self._versions.put_file(self._version, SUMMARIES, parquet_bytes(summaries.to_arrow())),
            dates=dict(sorted(dates.items())),
            replaced=replaced_versions(self._base, now),
        )

    def _merged(
        self, made: Sequence[MadeFile], kept: Sequence[Segment]
    ) -> tuple[list[MadeFile], list[Segment]]:
        """Return the files and segments of a month with one file in place of all those of a view."""
        files: list[MadeFile] = []
        left: list[Segment] = []
        for view in View:
            parts = [file for file in made if file.view is view]
            segments = [segment for segment in kept if segment.view is view]
            if len(parts) + len(segments) < 2:
                files += parts
                left += segments
                continue
            parts += [self._fetched(segment) for segment in segments]
            first, last = min(part.first_date for part in parts), max(part.last_date for part in parts)
            path = self._folder / f"{view}-month.parquet"
            rows = add_up_files([part.path for part in parts], path, self._version)
            files.append(MadeFile(view, first, last, path, rows))
        return files, left

    def _fetched(self, segment: Segment) -> MadeFile:
        path = self._folder / Path(segment.key).name
        path.write_bytes(self._versions.get(segment))
        return MadeFile(segment.view, segment.first_date, segment.last_date, path, segment.rows)

    def _stored(self, file: MadeFile) -> Segment:
        return self._versions.put_segment(file.view, (file.first_date, file.last_date), file.path, file.rows)

    def _summaries_of(self, segments: Sequence[Segment]) -> pl.DataFrame:
        """Return what the version before says of segments that it has, too."""
        if self._base is None:
            return pl.DataFrame(schema=SUMMARY_SCHEMA)
        ranges = pl.DataFrame(
            [
                (segment.first_date, segment.last_date)
                for segment in segments
                if segment.view is View.SUBMISSION
            ],
            schema=dict.fromkeys(RANGE, pl.Date),
            orient="row",
        )
        known = pl.read_parquet(self._versions.get(self._base.summaries))
        return known.join(ranges, on=RANGE, how="semi")
