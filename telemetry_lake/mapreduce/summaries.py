"""What the parts of a run report at their end: a record for a unit of rows, one for a reducer's keys."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from telemetry_lake.mapreduce.records import NO_LAYOUT, Layout, joined_layouts

FAILURES_SHOWN_MAX: Final = 5
"""The most failures that are described; all are counted."""


@dataclass(slots=True)
class CallSummary:
    """What came of the calls of a script: the summary of a reducer's keys, and part of that of a unit."""

    written: int = 0
    """Records of output."""
    layout: Layout = NO_LAYOUT
    failures: int = 0
    described: list[str] = field(default_factory=list)
    """The first failures."""
    fatal: str | None = None
    """Why the run cannot go on."""

    def add(self, other: Self) -> None:
        """Count another part of the run, too."""
        self.written += other.written
        self.layout = joined_layouts(self.layout, other.layout)
        self.failures += other.failures
        self.described = (self.described + other.described)[:FAILURES_SHOWN_MAX]
        self.fatal = self.fatal or other.fatal

    def add_failure(self, describe: Callable[[], str]) -> None:
        """Count a failed call of the script; it is described only if it is among the first."""
        self.failures += 1
        if len(self.described) < FAILURES_SHOWN_MAX:
            self.described.append(describe())


@dataclass(slots=True)
class UnitSummary(CallSummary):
    """What came of the rows of a unit."""

    records: int = 0
    """Rows that were mapped."""
    filtered: int = 0
    """Rows that were read and left out by the filter."""
    bytes: int = 0
    """The size of the unit's files."""
    sent_bytes: int = 0
    """The size of what goes to the reduce side."""

    def add(self, other: Self) -> None:
        """Count another unit, too."""
        # slots=True makes a new class, which super() without arguments does not know.
        CallSummary.add(self, other)
        self.records += other.records
        self.filtered += other.filtered
        self.bytes += other.bytes
        self.sent_bytes += other.sent_bytes
