"""The checks of tables: the one form of `sql/**/checks.yaml`, and the record of what a check found.

Two engines ask them. Great Expectations asks them of each batch of the `live` tables before it becomes
visible (`batch_checks`), Spark SQL of each date of the other tables once a job has made it
(`jobs/spark/table_checks.py`). `sql/README.md` describes the form.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

import yaml
from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.storage.records import Record
from telemetry_lake.tables.definitions import SQL_DIRECTORY

CHECKS_FILE: Final = "checks.yaml"
BATCH_CHECKS_FILE: Final = SQL_DIRECTORY / "live" / "batch_checks.yaml"


class Severity(StrEnum):
    """What a failed check does, the worst first; an `alarm` is of batches only."""

    FAIL = "fail"
    """It stops the batch, or fails the job's run. Only for what no client can cause."""
    ALARM = "alarm"
    """The batch is published, and the run is red."""
    WARN = "warn"
    """It is reported."""


class Expectation(NamedTuple):
    """One question to an engine: an expectation of Great Expectations with all its arguments.

    `column` names the columns that it is about, joined by `+`.
    """

    name: str
    column: str
    arguments: Mapping[str, JsonValue]


class Check(Record):
    """One check: an expectation, of each of `columns` where there are some, or a condition of every row."""

    expectation: Annotated[str, Field(pattern=r"^Expect[A-Za-z]+$")] | None = None
    columns: tuple[str, ...] = ()
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    every_row: Annotated[str, Field(min_length=1)] | None = None
    severity: Severity
    why: Annotated[str, Field(min_length=1)]
    remedy: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.expectation is None) == (self.every_row is None):
            raise ValueError("a check has either `expectation` or `every_row`")
        if self.every_row is not None and (self.columns or self.arguments):
            raise ValueError("`columns` and `arguments` belong to an `expectation`, not to `every_row`")
        return self

    def expectations(self) -> Iterator[Expectation]:
        """Yield the questions that the check consists of; none when it is a condition."""
        if self.expectation is None:
            return
        for column in self.columns:
            yield Expectation(self.expectation, column, {**self.arguments, "column": column})
        if not self.columns:
            yield Expectation(self.expectation, "+".join(self.column_list), self.arguments)

    @property
    def column_list(self) -> tuple[str, ...]:
        """The columns that the argument `column_list` names together."""
        names = self.arguments.get("column_list")
        return tuple(map(str, names)) if isinstance(names, list) else ()


class CheckResult(Record):
    """What a check found, in a batch or in a date.

    `subject` is what was checked, such as `live.pings`, `expectation` an expectation's name or a condition.
    `examples` are identities of rows that do not fit, never values; there are none where a date was checked.
    """

    subject: str
    expectation: str
    column: str
    severity: Severity
    passed: bool
    found: str
    examples: tuple[str, ...]
    why: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.subject}, {self.column}" if self.column else self.subject
        examples = f" (for example {', '.join(self.examples)})" if self.examples else ""
        return f"{where}: {self.expectation} found {self.found}{examples}"


class CheckResults(Record):
    """What all checks of a batch or of a date found."""

    results: tuple[CheckResult, ...]

    def failures(self, severity: Severity) -> list[CheckResult]:
        """Return the results of this severity that did not pass."""
        return [result for result in self.results if not result.passed and result.severity is severity]


def failures_first(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Return results in the order in which a person reads them: what did not pass first, the worst on top."""
    order = list(Severity)
    return sorted(results, key=lambda result: (result.passed, order.index(result.severity)))


def checks_of_table(table: str) -> tuple[Check, ...]:
    """Return the checks of the rows of `table`, such as `live.pings`; raises ConfigurationError."""
    return _read(SQL_DIRECTORY.joinpath(*table.split("."), CHECKS_FILE))


def checks_of_batch(subject: str) -> tuple[Check, ...]:
    """Return the checks of `raw_objects` or `document_types`; raises ConfigurationError."""
    return _read(BATCH_CHECKS_FILE, subject)


@cache
def _read(file: Path, subject: str | None = None) -> tuple[Check, ...]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(tuple[Check, ...]).validate_python(content[subject] if subject else content)
    except (OSError, yaml.YAMLError, KeyError, ValidationError) as error:
        raise ConfigurationError(f"the checks in {file} cannot be read: {error}") from error
