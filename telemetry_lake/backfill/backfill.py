"""One backfill: what it copies, where its records are, and its plan. Spark spreads the rest (`jobs/`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from telemetry_lake.backfill.archive.source import SourceFile, list_source
from telemetry_lake.backfill.journal import Journal
from telemetry_lake.backfill.plan import (
    UNIT_MAX_BYTES,
    DatePlan,
    Manifest,
    PlannedFile,
    Selection,
    Unit,
    directories_of,
    plan_dates,
)
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.failures import FatalError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import historic_raw_object
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.units import DateRange

if TYPE_CHECKING:
    from telemetry_lake.backfill.publish_date import DatePublisher


@dataclass(slots=True)
class Backfill:
    """One backfill: what it copies, and where its records are."""

    settings: Settings
    selection: Selection
    journal: Journal
    tallies: dict[str, Tally] = field(default_factory=dict)
    """The tallies that were read so far; a tally never changes."""

    @property
    def id(self) -> str:
        """The backfill's id."""
        return self.selection.backfill_id

    def manifest(self) -> Manifest:
        """Return the manifest; raises FatalError when nothing is planned."""
        manifest = self.journal.manifest(self.id)
        if manifest is None:
            raise FatalError(
                f"no backfill of {self.selection} is planned for this archive and label: run `plan` first"
            )
        return manifest

    def read_tallies(self, units: Iterable[str] | None = None) -> dict[str, Tally]:
        """Return, by unit, the tallies of those of `units` that are finished, by default of all."""
        names = self.journal.finished_units(self.id) if units is None else set(units)
        for tally in self.journal.tallies(self.id, names - set(self.tallies)):
            self.tallies[tally.unit] = tally
        return {name: self.tallies[name] for name in sorted(names) if name in self.tallies}

    def units(self) -> Iterator[Unit]:
        """Yield all units of the plan, date by date."""
        for reference in self.manifest().dates:
            yield from self.journal.plan(reference).units

    def days(self, tallies: Mapping[str, Tally], dates: DateRange | None) -> list[date]:
        """Return the dates of the backfill within `dates`, by default all.

        They are those of its directories, or those that `tallies` found in files without a date.
        """
        found = {reference.date for reference in self.manifest().dates} - {None}
        for tally in tallies.values():
            found |= tally.dates.keys() | tally.problem_counts.keys()
        days = sorted(day for day in found if day is not None)
        return [day for day in days if dates is None or dates.first <= day <= dates.last]

    def raw_objects(self, tallies: Sequence[Tally]) -> tuple[str, ...]:
        """Return what the column `raw_object` can hold in the rows of the units of these tallies."""
        copied = {tally.unit for tally in tallies}
        return tuple(
            historic_raw_object(self.id, part.file.path, part.start)
            for unit in self.units()
            if unit.name in copied
            for part in unit.slices
        )

    def list_again(self, plans: Iterable[DatePlan]) -> dict[date | None, list[PlannedFile]]:
        """List, by date, the files that are now in the directories that had files when they were planned."""
        directories = directories_of(file for plan in plans for file in plan.files)
        source = self.selection.archive.settings(self.settings.backfill.source)
        listed: dict[date | None, list[PlannedFile]] = {}
        if directories:
            for found in list_source(source.model_copy(update={"directories": directories})):
                if isinstance(found, SourceFile):
                    listed.setdefault(found.date, []).append(PlannedFile.of(found))
        return listed


def plan_backfill(backfill: Backfill, unit_max_bytes: int = UNIT_MAX_BYTES) -> Manifest:
    """List the archive and keep the plan, unless there is a plan.

    Returns the manifest of the plan that is kept. Raises ConfigurationError, RetriableError, and FatalError
    when another backfill copies the same files.
    """
    if (planned := backfill.journal.manifest(backfill.id)) is not None:
        return planned
    for other in backfill.journal.manifests():
        if backfill.selection.overlaps(other.selection):
            raise FatalError(
                f"the backfill {other.backfill_id} of {other.selection} copies files of the same dates from "
                f"{', '.join(other.selection.archive.directories)}; what is copied twice would be published "
                "twice. Give the same directories, or ones that have nothing in common"
            )
    dates = [
        backfill.journal.put_plan(backfill.id, date_plan)
        for date_plan in plan_dates(
            backfill.selection, backfill.settings.backfill.source, unit_max_bytes=unit_max_bytes
        )
    ]
    return backfill.journal.begin(
        Manifest(
            backfill_id=backfill.id,
            created_at=datetime.now(UTC),
            selection=backfill.selection,
            dates=tuple(dates),
        )
    )


def units_of_day(plan: DatePlan | None, tallies: Mapping[str, Tally], day: date) -> list[Unit]:
    """Return the units of a date: all of its plan; of files without a date, those with records of it."""
    if plan is None:
        return []

    def may_have_some(unit: Unit) -> bool:
        tally = tallies.get(unit.name)
        return tally is None or day in tally.dates or day in tally.problem_counts

    return [unit for unit in plan.units if plan.date is not None or may_have_some(unit)]


def publisher_of(backfill: Backfill) -> "DatePublisher":
    """Return what publishes and undoes dates of a backfill."""
    from telemetry_lake.backfill.publish_date import DatePublisher
    from telemetry_lake.tables.catalog import load_lake_catalog

    return DatePublisher(
        backfill.settings.drain,
        load_lake_catalog(backfill.settings),
        backfill.journal,
        backfill.selection.source_id,
        backfill.id,
    )


def journal_of(settings: Settings) -> Journal:
    """Return the journal of all backfills of a lake."""
    return Journal(ObjectStore(settings.s3), settings.s3.lake_bucket)
