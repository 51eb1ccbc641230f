"""Segments of days and months added up on a reader's own disk, so that its queries open few files.

A version has up to about 45 segments of single days in each view, and every one of them costs every query.
Here the days of a calendar month become one file, and so do the segments that are a month each, of a calendar
year. The newest dates, which are made again every half hour, stay files of their own: so a new version leaves
nothing to merge until a day is over, and then that day is added to the file of its month.

A merged file is named by the segments that are in it and by its own content. So it is found again after a
restart, is verified as other files are, and never stands for anything but what its name says. It can be made
again from the segments at any time, which stay beside it.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa

from telemetry_lake.dashboard.cubes import local_name
from telemetry_lake.dashboard.format import FORMAT, Manifest, Segment, View
from telemetry_lake.dashboard.segment_files import add_up_files
from telemetry_lake.failures import RetriableError

LOOSE_DATES: Final = 2
"""The newest submission dates, which *Dashboard* makes again every half hour, are not merged."""
MERGED_PREFIX: Final = "merged-"


@dataclass(frozen=True)
class MergeGroup:
    """Segments of a view of which one local file can be made."""

    view: View
    segments: tuple[Segment, ...]

    @cached_property
    def contents(self) -> frozenset[str]:
        """The SHA-256 of each segment."""
        return frozenset(segment.sha256 for segment in self.segments)

    @cached_property
    def digest(self) -> str:
        """What names these segments, and no others, merged in this form."""
        return hashlib.sha256("".join([str(FORMAT), *sorted(self.contents)]).encode()).hexdigest()

    @property
    def unfinished_name(self) -> str:
        """The name of its file while it is written."""
        return f"{MERGED_PREFIX}{self.digest}.tmp"


@dataclass(frozen=True, slots=True)
class MergedFile:
    """A local file with the rows of a group."""

    group: MergeGroup
    name: str


def merge_groups(manifest: Manifest) -> list[MergeGroup]:
    """Return the groups of a version that are worth a file: of days, then of months, the newest first."""
    loose = sorted(manifest.dates)[-LOOSE_DATES:]
    groups: defaultdict[tuple[bool, date, View], list[Segment]] = defaultdict(list)
    for segment in manifest.segments:
        first, is_day = segment.first_date, segment.first_date == segment.last_date
        if segment.rows and not (is_day and first in loose):
            period = first.replace(day=1) if is_day else first.replace(month=1, day=1)
            groups[is_day, period, segment.view].append(segment)
    return [
        MergeGroup(view, tuple(segments))
        for (_, _, view), segments in sorted(groups.items(), reverse=True)
        if len(segments) > 1
    ]


def layout(groups: Sequence[MergeGroup], merged: Collection[MergedFile]) -> list[MergedFile]:
    """Return the file of each group, or the one with most of its segments; groups without one are left
    out."""
    return [file for group in groups if (file := largest_part(group, merged)) is not None]


def largest_part(group: MergeGroup, merged: Collection[MergedFile]) -> MergedFile | None:
    """Return the file that has most of the segments of a group and no others."""
    parts = [file for file in merged if file.group.contents <= group.contents]
    return max(parts, key=lambda file: len(file.group.contents), default=None)


def find_merged(directory: Path, group: MergeGroup) -> MergedFile | None:
    """Return the file of a group that an earlier process left; one that is damaged is removed."""
    found = None
    for path in directory.glob(f"{MERGED_PREFIX}{group.digest}-*"):
        if path.name == _name(group, _sha256(path)):
            found = MergedFile(group, path.name)
        else:
            path.unlink()
    return found


def merge(
    group: MergeGroup, base: MergedFile | None, directory: Path, before_each_part: Callable[[], None]
) -> MergedFile:
    """Write the file of a group, from `base`, which has some of its segments, and the other segments.

    The file is complete and synced, under the unfinished name of the group. `before_each_part` may raise, to
    give up. Raises RetriableError when a file cannot be read or written.
    """
    have = base.group.contents if base else frozenset()
    parts = [directory / local_name(each) for each in group.segments if each.sha256 not in have]
    if base:
        parts.append(directory / base.name)
    unfinished = directory / group.unfinished_name
    try:
        add_up_files(parts, unfinished, group.digest, before_each_part)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        return MergedFile(group, _name(group, _sha256(unfinished)))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        first, last = group.segments[0].first_date, group.segments[-1].last_date
        raise RetriableError(
            f"the segments from {first} to {last} cannot be merged in {directory}, and queries read them one "
            f"by one: {error}"
        ) from error


def _name(group: MergeGroup, sha256: str) -> str:
    return f"{MERGED_PREFIX}{group.digest}-{sha256}.parquet"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
