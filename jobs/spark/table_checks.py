"""The engine of the checks of dates: Spark SQL asks `checks.yaml` of each date that a job has made.

All checks of a table are asked in one pass over the columns that they name. An expectation means what it
means to Great Expectations, which asks the same form of batches: nulls fit, unless it is about nulls.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import typer
from pydantic import JsonValue

from telemetry_lake.columns import SUBMISSION_DATE
from telemetry_lake.failures import ConfigurationError, GateFailed
from telemetry_lake.tables.checks import Check, CheckResult, Expectation, Severity, checks_of_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from telemetry_lake.audits.dates import DateAudits
    from telemetry_lake.settings import Settings

Arguments = Mapping[str, JsonValue]

_ALL_ROWS: Final = "count(*)"
_MOSTLY: Final = "mostly"


class Question(NamedTuple):
    """One question in Spark SQL: aggregates that count the rows that it is about, and those that do not fit.

    At least the share `mostly` of the former has to fit.
    """

    check: Check
    rule: str
    column: str
    asked: str
    broken: str
    mostly: float = 1.0


def date_audits(settings: "Settings") -> "DateAudits":
    """Return where what the checks of dates found is kept."""
    from telemetry_lake.audits.dates import DateAudits
    from telemetry_lake.storage.object_store import ObjectStore

    return DateAudits(ObjectStore(settings.s3), settings.s3.lake_bucket)


def check_date(session: "SparkSession", table: str, day: date, audits: "DateAudits | None" = None) -> None:
    """Ask a table's checks of its rows of one date, as `check_rows` does."""
    from pyspark.sql.functions import col

    check_rows(session.table(table).where(col(SUBMISSION_DATE) == day), table, day, audits)


def check_rows(rows: "DataFrame", table: str, day: date, audits: "DateAudits | None" = None) -> None:
    """Ask a table's checks of rows that a job wrote for `day`, and print what those of severity `warn` found.

    What all checks found is kept in `audits`, where it is given. Raises GateFailed when a check of severity
    `fail` does not pass. The rows are visible by then; they are replaced when their date is made again.
    """
    from telemetry_lake.audits.dates import DateAudit

    results = results_of(rows, table, checks_of_table(table))
    audit = DateAudit(table=table, day=day, at=datetime.now(UTC), results=tuple(results))
    if audits is not None:
        audits.keep(audit)
    for warning in audit.failures(Severity.WARN):
        typer.echo(f"warning: {audit.sentence(warning)}", err=True)
    if failures := audit.failures(Severity.FAIL):
        raise GateFailed(" ".join(map(audit.sentence, failures)))


def results_of(rows: "DataFrame", table: str, checks: tuple[Check, ...]) -> list[CheckResult]:
    """Return what `checks` find in `rows` of `table`; raises ConfigurationError as `questions_of` does."""
    from pyspark.sql.functions import expr

    questions = questions_of(table, checks)
    counts = [
        expr(sql).cast("long").alias(f"{name}_{number}")
        for number, question in enumerate(questions)
        for name, sql in (("asked", question.asked), ("broken", question.broken))
    ]
    (found,) = rows.agg(expr(_ALL_ROWS).alias("rows"), *counts).collect()
    return [
        CheckResult(
            subject=table,
            expectation=question.rule,
            column=question.column,
            severity=question.check.severity,
            passed=not broken or (asked - broken) / asked >= question.mostly,
            found=f"{broken} of {found.rows} rows do not fit",
            examples=(),
            why=question.check.why,
            remedy=question.check.remedy,
        )
        for number, question in enumerate(questions)
        for asked, broken in [(found[f"asked_{number}"], found[f"broken_{number}"])]
    ]


def questions_of(table: str, checks: tuple[Check, ...]) -> list[Question]:
    """Return the checks of `table` in Spark SQL.

    Raises ConfigurationError for an expectation or an argument that Spark SQL is not taught here, and for an
    alarm, which only batches have.
    """
    questions = []
    for check in checks:
        if check.severity is Severity.ALARM:
            raise ConfigurationError(
                f"{table}: a check of a date has the severity `warn` or `fail`; `alarm` is for batches only"
            )
        if check.every_row is not None:
            broken = f"count_if(NOT coalesce({check.every_row}, false))"
            questions.append(Question(check, check.every_row, "", _ALL_ROWS, broken))
        for expectation in check.expectations():
            try:
                questions.append(_question(check, expectation))
            except (KeyError, TypeError) as error:
                raise ConfigurationError(
                    f"{table}: {expectation.name} of {expectation.column} cannot be asked of a date "
                    f"({error}); sql/README.md lists what can, and every_row takes any condition"
                ) from error
    return questions


def _question(check: Check, expectation: Expectation) -> Question:
    arguments = dict(expectation.arguments)
    if expectation.name == "ExpectCompoundColumnsToBeUnique":
        arguments.pop("column_list")
        _refuse(arguments)
        columns = f"struct({', '.join(map(_column, check.column_list))})"
        broken = f"{_ALL_ROWS} - count(DISTINCT {columns})"
        return Question(check, expectation.name, expectation.column, _ALL_ROWS, broken)
    column = _column(str(arguments.pop("column")))
    if expectation.name == "ExpectColumnValuesToBeUnique":
        _refuse(arguments)
        asked, broken = f"count({column})", f"count({column}) - count(DISTINCT {column})"
        return Question(check, expectation.name, expectation.column, asked, broken)
    mostly = arguments.pop(_MOSTLY, 1)
    if not isinstance(mostly, int | float):
        raise TypeError(f"mostly is not a number: {mostly!r}")
    if expectation.name == "ExpectColumnValuesToNotBeNull":
        _refuse(arguments)
        asked, broken = _ALL_ROWS, f"count_if({column} IS NULL)"
    else:
        asked, broken = (
            f"count({column})",
            f"count_if(NOT ({_CONDITIONS[expectation.name](column, arguments)}))",
        )
    return Question(check, expectation.name, expectation.column, asked, broken, mostly)


def _between(column: str, arguments: Arguments) -> str:
    bounds = {"min_value": ">=", "max_value": "<="}
    return " AND ".join(
        f"{column} {bounds[name]} {_literal(value)}" for name, value in arguments.items() if value is not None
    )


def _in_set(column: str, arguments: Arguments) -> str:
    values = arguments["value_set"]
    _refuse({name: value for name, value in arguments.items() if name != "value_set"})
    if not isinstance(values, list):
        raise TypeError(f"value_set is not a list: {values!r}")
    return f"{column} IN ({', '.join(map(_literal, values))})"


_CONDITIONS: Final[Mapping[str, Callable[[str, Arguments], str]]] = {
    "ExpectColumnValuesToBeBetween": _between,
    "ExpectColumnValuesToBeInSet": _in_set,
    "ExpectColumnValuesToNotBeInSet": lambda column, arguments: f"NOT {_in_set(column, arguments)}",
}
"""The conditions of expectations of single values, which are null, and so not counted, for null."""


def _refuse(arguments: Arguments) -> None:
    if arguments:
        raise TypeError(f"with {', '.join(arguments)}")


def _column(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _literal(value: JsonValue) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(f"not a string or a number: {value!r}")
