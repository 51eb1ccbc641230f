"""The fields of trigger forms that take dates, as `telemetry_lake.units` reads them."""

from typing import Final

from airflow.sdk import Param

from telemetry_lake.units import DATES_PATTERN, ISO_DATE_PATTERN, dates_pattern

UNDATED: Final = "undated"
"""What the archive's form takes for files in whose path there is no date."""


def dates_param(default: str, *, description: str = "") -> Param:
    """Return a field for a range of submission dates that holds `default` when the form opens."""
    return Param(
        default,
        type="string",
        pattern=DATES_PATTERN,
        title="Submission dates (UTC)",
        description="FIRST..LAST, both included, or one date: YYYY-MM-DD, today or yesterday. " + description,
    )


def late_dates_param(default: int) -> Param:
    """Return a field for the number of late dates that holds `default` when the form opens."""
    return Param(
        default,
        type="integer",
        minimum=0,
        maximum=366,
        title="Late dates",
        description="At most this many of the dates before them that are out of date, oldest first.",
    )


def archive_dates_param(default: str) -> Param:
    """Return a field for a range of dates of the historic archive."""
    return Param(
        default,
        type="string",
        pattern=f"^({dates_pattern(ISO_DATE_PATTERN)}|{UNDATED})$",
        title="Dates of the archive",
        description=f"FIRST..LAST, both included, one date, or `{UNDATED}`: files without a date.",
    )
