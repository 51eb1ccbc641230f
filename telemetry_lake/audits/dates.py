"""What the checks of a table found in the rows of a date, kept in the lake bucket for the page Audits.

A job that makes a date keeps one such record, of a few kilobytes, each time that it makes it. The records are
only for display.
"""

from datetime import date

from pydantic import AwareDatetime

from telemetry_lake.storage.object_keys import date_audit_key, date_audit_name, date_audit_prefix
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import END_OF_DAY, RecordStore
from telemetry_lake.tables.checks import CheckResult, CheckResults, Severity


class DateAudit(CheckResults):
    """What the checks of `table` found at the time `at` in the rows that a job had written for `day`."""

    table: str
    day: date
    at: AwareDatetime

    @property
    def name(self) -> str:
        """The name of the record, which follows from table, day and time."""
        return date_audit_name(self.table, self.day, self.at)

    @property
    def passed(self) -> bool:
        """Whether all checks of severity `fail` passed."""
        return not self.failures(Severity.FAIL)

    def sentence(self, result: CheckResult) -> str:
        """Return what is wrong, why it matters and what to do, for the log of the job."""
        return f"{self.day}: {result}. {result.why} {result.remedy}"


class DateAudits:
    """The records in `bucket`; threads may share it."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._records = RecordStore(store, bucket)

    def keep(self, audit: DateAudit) -> None:
        """Write the record; writing it again changes nothing."""
        self._records.put(date_audit_key(audit.name), audit)

    def of_day(self, day: date, *, at_most: int, before: str = END_OF_DAY) -> list[DateAudit]:
        """Return the last audits that were made on a UTC day, newest first.

        `before` is a `key_part_of_time` of the day: only earlier ones are returned.
        """
        newest = self._records.newest_keys(date_audit_prefix(day), at_most, before=before)
        return [audit for audit in self._records.read_all(newest, DateAudit) if audit is not None]

    def find(self, name: str) -> DateAudit | None:
        """Return the audit of this name; None when there is none. Raises ValueError when it is not a name."""
        return self._records.read(date_audit_key(name), DateAudit)
