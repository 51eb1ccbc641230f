"""How far a backfill has come, and how long the rest will take."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import Manifest
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.verify import Verification
from telemetry_lake.units import MIB

RATE_WINDOW: Final = timedelta(minutes=15)
"""Rates are those of the last units: nights and throttles change them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Units and bytes of the source, records that were read, and rates; without units there are no rates."""

    units: int
    units_done: int
    bytes: int
    bytes_done: int
    records: int
    bytes_per_second: float | None
    records_per_second: float | None

    @property
    def left(self) -> timedelta | None:
        """How long the rest takes at this rate."""
        if not self.bytes_per_second:
            return None
        return timedelta(seconds=round((self.bytes - self.bytes_done) / self.bytes_per_second))

    def __str__(self) -> str:
        line = (
            f"{self.units_done:,} of {self.units:,} units, {self.bytes_done / MIB:,.1f} of "
            f"{self.bytes / MIB:,.1f} MiB, {self.records:,} records"
        )
        if self.bytes_per_second is None or self.records_per_second is None:
            return line
        line += f"; {self.bytes_per_second / MIB:,.1f} MiB/s, {self.records_per_second:,.0f} records/s"
        return line if self.units == self.units_done else f"{line}, {self.left} left"


def progress(manifest: Manifest, tallies: Iterable[Tally]) -> Progress:
    """Return the progress that these tallies of a backfill show."""
    done = list(tallies)
    recent = _recent(done)
    seconds = _seconds(recent)
    return Progress(
        units=sum(reference.units for reference in manifest.dates),
        units_done=len(done),
        bytes=sum(reference.bytes for reference in manifest.dates),
        bytes_done=sum(tally.source_bytes for tally in done),
        records=sum(tally.records for tally in done),
        bytes_per_second=sum(tally.source_bytes for tally in recent) / seconds if seconds else None,
        records_per_second=sum(tally.records for tally in recent) / seconds if seconds else None,
    )


def date_states(
    journal: Journal, manifest: Manifest, days: Sequence[date], tallies: Mapping[str, Tally]
) -> Iterator[str]:
    """Yield a line for each date: how many units are copied, and how far it is on its way to the tables."""
    units = {reference.date: reference.units for reference in manifest.dates}
    for day in days:
        done = [tally for tally in tallies.values() if tally.unit.startswith(day.isoformat())]
        records = sum(tally.dates[day].records for tally in tallies.values() if day in tally.dates)
        copied = f"{len(done):,} of {units[day]:,} units" if day in units else "of files without a date"
        yield f"{day}  {copied}, {records:,} records, {_state(journal, manifest, day)}"


def _state(journal: Journal, manifest: Manifest, day: date) -> str:
    backfill, source = manifest.backfill_id, manifest.selection.source_id
    number = journal.publication_number(source, day)
    decision = journal.decision(source, day, number)
    if decision is not None and decision.backfill_id != backfill:
        return f"published by the backfill {decision.backfill_id}"
    if decision is not None:
        done = journal.committed(source, day, number)
        rows = sum(decision.rows.values())
        return f"published, {rows:,} rows" if done else "publication decided and not finished: run publish"
    undone = "undone; " if number else ""
    report = journal.report(backfill, day, Verification)
    if report is None:
        return f"{undone}not verified"
    if report.unexplained:
        return f"{undone}stopped: {len(report.unexplained)} differences without an explanation"
    if missing := sorted(set(report.losses) - set(journal.accepted(backfill, day))):
        return f"{undone}stopped: losses to accept: {', '.join(missing)}"
    return f"{undone}verified"


def _recent(tallies: list[Tally]) -> list[Tally]:
    last = max((tally.finished_at for tally in tallies), default=None)
    return [] if last is None else [tally for tally in tallies if tally.finished_at > last - RATE_WINDOW]


def _seconds(tallies: list[Tally]) -> float:
    """Return for how many seconds at least one of the units was worked on."""
    total = timedelta()
    covered: datetime | None = None
    for start, end in sorted((tally.started_at, tally.finished_at) for tally in tallies):
        total += max(end - max(start, covered or start), timedelta())
        covered = max(end, covered or end)
    return total.total_seconds()
