"""The plan of a backfill: which files it copies, cut into units of work.

The archive is listed once. What was found is kept in the lake bucket and never changes: a `DatePlan` for each
date, and last of all the `Manifest` that names them, written only if absent. Planning the same again,
at the same time or later, gives the plan that is there; a source that has changed since is a finding of
the verification, not another plan. A backfill's id follows from what was asked for.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, Field

from telemetry_lake.backfill.archive.source import (
    ProblemKind,
    SourceFile,
    SourceProblem,
    list_source,
    split_points,
)
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import SourceFormat, SourceSettings
from telemetry_lake.storage.records import Record
from telemetry_lake.units import MIB

UNIT_MAX_BYTES: Final = 128 * MIB
"""How much of the source one unit has: what is lost with a process, and one line of progress."""
UNIT_MAX_FILES: Final = 200
UNDATED: Final = "undated"
"""Stands for a date in the names of what has none."""


class Archive(Record):
    """Which archive, and how it is read; what the settings say beyond that may change at any time."""

    root_url: str
    directories: tuple[str, ...]
    format: SourceFormat
    date_pattern: str

    @classmethod
    def of(cls, source: SourceSettings) -> Self:
        """Return the archive of the settings; raises ConfigurationError when they name none."""
        if source.root_url is None:
            raise ConfigurationError(
                "no historic archive is configured: give --root, or set "
                "TELEMETRY_LAKE_BACKFILL__SOURCE__ROOT_URL to webhdfs://<name node>:<port>/<path>, "
                "s3://<bucket>/<prefix> or file:///<path>"
            )
        return cls(
            root_url=source.root_url.rstrip("/"),
            directories=source.directories,
            format=source.format,
            date_pattern=source.date_pattern,
        )

    def settings(self, source: SourceSettings) -> SourceSettings:
        """Return `source`, pointed at this archive."""
        return source.model_copy(update=dict(self))

    def date_of_path(self, path: str) -> date | None:
        """Return the date that the date pattern finds in the path of a file or a directory, or None."""
        found = re.search(self.date_pattern, f"{path}/")
        try:
            return None if found is None else date(*(int(found[part]) for part in ("year", "month", "day")))
        except ValueError:
            return None


class Selection(Record):
    """What one backfill copies: the dates from `first` to `last`, or with `undated` all files without a date.

    A `label` makes another backfill of the same.
    """

    archive: Archive
    first: date | None = None
    last: date | None = None
    undated: bool = False
    label: str = ""

    @property
    def backfill_id(self) -> str:
        """The id: 32 hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]

    @property
    def source_id(self) -> str:
        """What a date of it is published under, once for all its backfills: 32 hexadecimal digits."""
        archive = "\n".join([self.archive.root_url, *self.archive.directories, UNDATED * self.undated])
        return hashlib.sha256(archive.encode()).hexdigest()[:32]

    def overlaps(self, other: "Selection") -> bool:
        """Return whether both may copy the same files without noticing: directories inside each other."""
        if self.source_id == other.source_id or self.undated != other.undated:
            return False
        if self.archive.root_url != other.archive.root_url or (
            not set(self.days()) & set(other.days()) and not self.undated
        ):
            return False
        pairs = product(self.archive.directories, other.archive.directories)
        return any(_is_inside(one, two) or _is_inside(two, one) for one, two in pairs)

    def includes(self, day: date | None) -> bool:
        """Return whether a file of this date belongs to the selection."""
        if day is None or self.first is None or self.last is None:
            return self.undated and day is None
        return self.first <= day <= self.last

    def days(self) -> list[date]:
        """Return the dates of the range; an empty list for files without a date."""
        if self.first is None or self.last is None:
            return []
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]

    def __str__(self) -> str:
        return UNDATED if self.undated else f"{self.first}..{self.last}"


class Problem(Record):
    """A line of a report: what is wrong with the archive, and where."""

    path: str
    offset: int | None
    kind: ProblemKind
    message: str

    @classmethod
    def of(cls, found: SourceProblem) -> Self:
        """Return the same as a record."""
        return cls(path=found.path, offset=found.offset, kind=found.kind, message=found.message)


class PlannedFile(Record):
    """A file as it was when it was listed; see `SourceFile`."""

    path: str
    bytes: int
    modified_ms: int
    checksum: str | None
    date: date | None

    @classmethod
    def of(cls, file: SourceFile) -> Self:
        """Return the same as a record."""
        return cls(
            path=file.path,
            bytes=file.bytes,
            modified_ms=file.modified_ms,
            checksum=file.checksum,
            date=file.date,
        )

    def source_file(self) -> SourceFile:
        """Return the file as the reader takes it."""
        return SourceFile(self.path, self.bytes, self.modified_ms, self.checksum, self.date)


class Slice(Record):
    """The records of a file that begin at bytes `start` to `end`, without `end`."""

    file: PlannedFile
    start: int
    end: int


class Unit(Record):
    """What one process copies at a time: it counts as a whole or not at all."""

    name: str
    slices: Annotated[tuple[Slice, ...], Field(min_length=1)]

    @property
    def bytes(self) -> int:
        """How much of the source it is."""
        return sum(part.end - part.start for part in self.slices)


class DatePlan(Record):
    """All files and units of one date, or of the files without a date, and what the listing found wrong."""

    date: date | None
    files: tuple[PlannedFile, ...]
    units: tuple[Unit, ...]
    problems: tuple[Problem, ...]


class DatePlanReference(Record):
    """Where a date's plan is, and how much it is."""

    date: date | None
    key: str
    files: int
    bytes: int
    units: int


class Manifest(Record):
    """What a backfill copies."""

    backfill_id: str
    created_at: AwareDatetime
    selection: Selection
    dates: tuple[DatePlanReference, ...]


@dataclass(slots=True)
class _Listed:
    """What the listing found of one date."""

    files: list[PlannedFile]
    problems: list[Problem]


def plan_dates(
    selection: Selection, source: SourceSettings, *, unit_max_bytes: int = UNIT_MAX_BYTES
) -> Iterator[DatePlan]:
    """List the archive and cut it into units; yields a plan for each date of the selection, even if empty.

    Raises what `list_source` raises.
    """
    listed: dict[date | None, _Listed] = {day: _Listed([], []) for day in selection.days()}
    if selection.undated:
        listed[None] = _Listed([], [])
    for found in list_source(selection.archive.settings(source)):
        day = found.date if isinstance(found, SourceFile) else selection.archive.date_of_path(found.path)
        if not selection.includes(day):
            continue
        if isinstance(found, SourceFile):
            listed[day].files.append(PlannedFile.of(found))
        else:
            listed[day].problems.append(Problem.of(found))
    for day, found_of_day in listed.items():
        if not found_of_day.files and not found_of_day.problems:
            message = "no file of this date" if day else "no file without a date"
            found_of_day.problems.append(
                Problem(path="", offset=None, kind=ProblemKind.MISSING_DIRECTORY, message=message)
            )
        yield DatePlan(
            date=day,
            files=tuple(found_of_day.files),
            units=tuple(cut_into_units(day, found_of_day.files, unit_max_bytes)),
            problems=tuple(found_of_day.problems),
        )


def cut_into_units(day: date | None, files: Sequence[PlannedFile], unit_max_bytes: int) -> Iterator[Unit]:
    """Put small files together and cut large ones; the same files and limit give the same units."""
    for number, slices in enumerate(_groups(_slices(files, unit_max_bytes), unit_max_bytes)):
        yield Unit(name=f"{day or UNDATED}-{number:06d}", slices=tuple(slices))


def directories_of(files: Iterable[PlannedFile]) -> tuple[str, ...]:
    """Return the directories of these files, without those that are inside another one of them."""
    kept: list[str] = []
    for directory in sorted({file.path.rpartition("/")[0] for file in files}):
        if not any(_is_inside(directory, other) for other in kept):
            kept.append(directory)
    return tuple(kept)


def _is_inside(directory: str, other: str) -> bool:
    return not other or f"{directory}/".startswith(f"{other}/")


def _slices(files: Iterable[PlannedFile], unit_max_bytes: int) -> Iterator[Slice]:
    for file in files:
        for start, end in split_points(file.source_file(), unit_max_bytes):
            yield Slice(file=file, start=start, end=end)


def _groups(slices: Iterable[Slice], unit_max_bytes: int) -> Iterator[list[Slice]]:
    group: list[Slice] = []
    size = 0
    for part in slices:
        length = part.end - part.start
        if group and (size + length > unit_max_bytes or len(group) == UNIT_MAX_FILES):
            yield group
            group, size = [], 0
        group.append(part)
        size += length
    if group:
        yield group
