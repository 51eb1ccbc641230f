"""The checks of the tables that jobs make: `checks.yaml` in the table's folder, asked of each date made.

A check is a condition in Spark SQL that every row has to meet, or a list of columns that no two rows may
share. All checks of a table are asked in one pass over the columns that they name.
"""

from datetime import date
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import ConfigurationError, GateFailed
from telemetry_lake.tables import SQL_DIRECTORY

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CHECKS_FILE: Final = "checks.yaml"


class Severity(StrEnum):
    """What a failed check does: it is said, or it also turns the run red."""

    WARN = "warn"
    FAIL = "fail"


class TableCheck(BaseModel):
    """One check of a table's rows: `every_row` is a condition, `unique` names columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_row: str | None = None
    unique: tuple[str, ...] = ()
    severity: Severity
    why: Annotated[str, Field(min_length=1)]
    remedy: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.every_row is None) == (not self.unique):
            raise ValueError("a check has either `every_row` or `unique`")
        return self

    @property
    def broken(self) -> str:
        """Spark SQL that counts what does not fit."""
        if self.every_row is not None:
            return f"count_if(NOT coalesce({self.every_row}, false))"
        return f"count(*) - count(DISTINCT struct({', '.join(self.unique)}))"

    @property
    def rule(self) -> str:
        """What was asked, for a person."""
        return self.every_row or f"no two rows have the same {', '.join(self.unique)}"


@cache
def table_checks(table: str) -> tuple[TableCheck, ...]:
    """The checks of `table`, such as `stable.pings`; raises ConfigurationError."""
    file = SQL_DIRECTORY.joinpath(*table.split("."), CHECKS_FILE)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(tuple[TableCheck, ...]).validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(f"the checks in {file} cannot be read: {error}") from error


def check_date(session: "SparkSession", table: str, day: date) -> list[str]:
    """`check_rows` of a table's rows of one date."""
    from pyspark.sql.functions import col

    return check_rows(session.table(table).where(col(SUBMISSION_DATE) == day), table, str(day))


def check_rows(rows: "DataFrame", table: str, which: str) -> list[str]:
    """Ask the checks of rows of a table, named `which` in messages; what those of severity `warn` found.

    Raises GateFailed with what the others found. The rows are visible by then; they are replaced when their
    date is made again.
    """
    from pyspark.sql.functions import expr

    checks = table_checks(table)
    asked = [expr(check.broken).alias(f"check_{number}") for number, check in enumerate(checks)]
    (found,) = rows.agg(*asked).collect()
    broken = [
        (check, f'{table} of {which}: {count} rows break "{check.rule}". {check.why} {check.remedy}')
        for check, count in zip(checks, found, strict=True)
        if count
    ]
    if failures := [text for check, text in broken if check.severity is Severity.FAIL]:
        raise GateFailed(" ".join(failures))
    return [text for _, text in broken]
