"""The field of a trigger form that takes submission dates, as `jobs.date_range` reads them."""

from airflow.sdk import Param

_DATE = r"(\d{4}-\d{2}-\d{2}|today|yesterday)"


def dates_param(default: str, *, description: str = "") -> Param:
    """A range of submission dates, `default` unless somebody types another one."""
    return Param(
        default,
        type="string",
        pattern=rf"^{_DATE}(\.\.{_DATE})?$",
        title="Submission dates (UTC)",
        description="FIRST..LAST, both included, or one date: YYYY-MM-DD, today or yesterday. " + description,
    )
