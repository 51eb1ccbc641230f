"""Publish a date, and undo it again.

The publication of a date is decided once: an object that lists its files, written only if absent, under the
archive and the date and not under the backfill, so that a second backfill of the same archive finds it.
Then one Iceberg commit a table, pings first, makes the files visible; each is the compare-and-swap of
`telemetry_lake.tables.commits`, which finds its own commit again after a failure or a lost answer. A record
closes it. Publishing the date again goes on where that stopped.

Undoing notes first that the publication is not to be there any more, then takes its rows out, and may be
repeated. The next publication of the date has the next number. A publication that is under way while it
is undone looks again after its commits, and takes its rows out itself.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression

from telemetry_lake.backfill.journal import Committed, Decision, Journal, Undone
from telemetry_lake.backfill.verify import Verification
from telemetry_lake.columns import RAW_OBJECT, SUBMISSION_DATE
from telemetry_lake.failures import FatalError, GateFailed, RetriableError
from telemetry_lake.settings import DrainSettings
from telemetry_lake.storage.object_keys import historic_rows_prefix
from telemetry_lake.tables.catalog_failures import explained
from telemetry_lake.tables.commits import (
    TABLES_IN_ORDER,
    UNDECIDED,
    commit_once,
    forbid_commit_retry,
    retrying,
)
from telemetry_lake.tables.expressions import all_of, equal_to, starts_with
from telemetry_lake.tables.late_files import with_young_files
from telemetry_lake.tables.staged import Publication

UNDONE_PROPERTY: Final = "telemetry-lake.undone"
"""The name of a publication in the summary of the snapshot that took its rows out."""

_log = logging.getLogger(__name__)


def raise_if_stopped(report: Verification | None, accepted: Mapping[str, object], day: date) -> None:
    """Raise GateFailed when a date may not be published, with what to do."""
    if report is None:
        raise GateFailed(f"{day} was not verified: run `verify` first")
    if report.unexplained:
        raise GateFailed(
            f"{day}: {len(report.unexplained)} differences without an explanation, the first: "
            f"{report.unexplained[0]}. `run` copies missing units; when that does not help, plan the date "
            "again with another --label, and see 'A date does not add up' in docs/backfill.md"
        )
    if missing := sorted(set(report.losses) - set(accepted)):
        counts = ", ".join(f"{loss} ({report.losses[loss]})" for loss in missing)
        raise GateFailed(
            f"{day}: losses that are not accepted: {counts}. Mend the archive and plan the date again "
            f'with another --label, or publish with --accept-losses {",".join(missing)} --because "…"'
        )


class DatePublisher:
    """Publishes and undoes dates of one archive for one backfill."""

    def __init__(
        self, settings: DrainSettings, catalog: Catalog, journal: Journal, source: str, backfill: str
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._journal = journal
        self._source = source
        self._backfill = backfill

    def decided(self, day: date) -> Decision | None:
        """Return what the date's publication consists of, or None while none is decided that holds.

        Raises FatalError when it is that of another backfill.
        """
        number = self._journal.publication_number(self._source, day)
        decision = self._journal.decision(self._source, day, number)
        if decision is not None and decision.backfill_id != self._backfill:
            raise FatalError(
                f"{day} was published by the backfill {decision.backfill_id} of the same archive. Nothing is "
                "doubled: undo it there first, or leave it"
            )
        return decision

    def next_number(self, day: date) -> int:
        """Return the number of the publication to decide next; removes what undone ones left."""
        number = self._journal.publication_number(self._source, day)
        if number:
            self._remove(day, f"before {number}")
        return number

    def decide(self, decision: Decision) -> Decision:
        """Decide what the publication consists of, unless that is decided; raises what `decided` raises."""
        self._journal.decide(self._source, decision)
        decided = self.decided(decision.date)
        if decided is None:
            raise RetriableError(f"the publication of {decision.date} was undone while it was decided")
        return decided

    def commit(self, decision: Decision) -> Committed:
        """Commit a decided publication to its tables unless that was done; returns where it is.

        Raises RetriableError when the catalog stays unavailable or too busy, and FatalError when the
        publication was undone meanwhile.
        """
        done = self._journal.committed(self._source, decision.date, decision.number)
        if done is None:
            publication = Publication(
                batch_id=decision.publication_id,
                raw_objects=decision.raw_objects,
                files=decision.files,
                rows=decision.rows,
                quarantined={},
            )
            # A unit may have been copied any number of days before.
            publication = with_young_files(
                self._settings, self._catalog, publication, decision.decided_at, now=datetime.now(UTC)
            )
            snapshots = {
                table: commit_once(self._settings, self._catalog, table, publication, decision.decided_at)
                for table in TABLES_IN_ORDER
                if publication.files.get(table)
            }
            self._count(decision)
            committed = Committed(committed_at=datetime.now(UTC), snapshots=snapshots)
            done = self._journal.put_committed(self._source, decision, committed)
        if self._journal.is_undone(self._source, decision.date, decision.number):
            self._remove(decision.date, decision.publication_id)
            raise FatalError(f"{decision.date} was undone while it was published; it is in no table")
        return done

    def undo(self, day: date) -> int:
        """Take what this backfill published of a date out of the tables; returns how many rows that were.

        Raises what `commit` raises, and FatalError when another backfill published the date.
        """
        decision = self.decided(day)
        if decision is not None:
            self._journal.undo(self._source, decision, Undone(undone_at=datetime.now(UTC)))
        return self._remove(day, decision.publication_id if decision else "again")

    def _count(self, decision: Decision) -> None:
        """Raise FatalError unless the tables have exactly the rows of a publication."""
        for name, expected in decision.rows.items():
            found = self._catalog.load_table(name).scan(row_filter=self._rows(decision.date)).count()
            undone = self._journal.is_undone(self._source, decision.date, decision.number)
            if found != expected and not undone:
                raise FatalError(
                    f"{name} has {found} rows of {decision.date} instead of {expected}. Undo the date, then "
                    "publish it again"
                )

    def _rows(self, day: date) -> BooleanExpression:
        """Return the filter for what this backfill has of a date in any table."""
        return all_of(
            [
                equal_to(SUBMISSION_DATE, day.isoformat()),
                starts_with(RAW_OBJECT, historic_rows_prefix(self._backfill)),
            ]
        )

    def _remove(self, day: date, publication: str) -> int:
        settings = self._settings
        return sum(
            retrying(settings)(self._remove_from, table, day, publication) for table in TABLES_IN_ORDER
        )

    def _remove_from(self, name: str, day: date, publication: str) -> int:
        """Delete what this backfill has of a date in the table `name`; returns how many rows that were."""
        rows = self._rows(day)
        try:
            table = self._catalog.load_table(name)
            count = table.scan(row_filter=rows).count()
            if count:
                forbid_commit_retry(table)
                with table.transaction() as transaction:
                    transaction.delete(rows, {UNDONE_PROPERTY: publication})
        except UNDECIDED as error:
            _log.warning("undoing %s in %s: looking again after: %s", day, name, error)
            raise explained(f"taking {day} out of {name}", error) from error
        return count
