"""The checks of a batch, read from the files beside the tables in `sql/`, and run by Great Expectations.

`sql/live/<table>/checks.yaml` is about the rows of a table, `sql/live/batch_checks.yaml` about a batch as
a whole. A check is one of Great Expectations' expectations with its arguments, a severity, why it is there
and what to do when it fails. Names: https://greatexpectations.io/expectations/
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.tables import SQL_DIRECTORY

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.datasource.fluent.pandas_datasource import DataFrameAsset

EXAMPLES_MAX: Final = 5
"""So many of the rows that do not fit are named, by their identity and nothing else."""


class Severity(StrEnum):
    """What a failed check does."""

    WARN = "warn"
    FAIL = "fail"


class Check(BaseModel):
    """One check; `columns` gives one expectation for each of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expectation: Annotated[str, Field(pattern=r"^Expect[A-Za-z]+$")]
    columns: tuple[str, ...] = ()
    arguments: dict[str, Any] = {}
    severity: Severity
    why: Annotated[str, Field(min_length=1)]
    remedy: Annotated[str, Field(min_length=1)]


class CheckResult(BaseModel):
    """What one expectation found. `examples` are identities of rows that do not fit, never values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        examples = f" (for example {', '.join(self.examples)})" if self.examples else ""
        return f"{self.subject}, {self.column}: {self.expectation} found {self.found}{examples}"


def checks_of_table(table: str) -> tuple[Check, ...]:
    """The checks of the rows of `table`, such as `live.pings`; raises ConfigurationError."""
    return _read(SQL_DIRECTORY.joinpath(*table.split("."), "checks.yaml"))


def checks_of_batch(subject: str) -> tuple[Check, ...]:
    """The checks of `raw_objects` or `document_types`; raises ConfigurationError."""
    return _read(SQL_DIRECTORY / "live" / "batch_checks.yaml", subject)


class Subject(NamedTuple):
    """A frame to be looked at, by its name; the columns `identity` name its rows."""

    name: str
    checks: tuple[Check, ...]
    frame: "pd.DataFrame"
    identity: tuple[str, ...]


def run_checks(subjects: Iterable[Subject]) -> list[CheckResult]:
    """What the checks of each subject find in its frame; an empty frame is not looked at.

    Raises ConfigurationError when an expectation or one of its columns is unknown.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("batch")
    return [
        result
        for subject in subjects
        if not subject.frame.empty
        for result in _run(source.add_dataframe_asset(subject.name), subject)
    ]


def _run(asset: "DataFrameAsset", subject: Subject) -> list[CheckResult]:
    import great_expectations as gx
    from great_expectations import expectations

    asked = []
    by_number: dict[int, tuple[Check, str]] = {}
    for check in subject.checks:
        expectation = getattr(expectations, check.expectation, None)
        if expectation is None:
            raise ConfigurationError(f"{subject.name}: Great Expectations knows no {check.expectation}")
        for column in check.columns or ("",):
            arguments = {**check.arguments, **({"column": column} if column else {})}
            asked.append(expectation(**arguments, meta={"number": len(by_number)}))
            by_number[len(by_number)] = (check, column or "+".join(check.arguments.get("column_list", [])))
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": subject.frame})
    answer = batch.validate(
        gx.ExpectationSuite(name=subject.name, expectations=asked),
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": list(subject.identity),
            "partial_unexpected_count": 0,
            "exclude_unexpected_values": True,
        },
    )
    results = []
    for result in sorted(answer.results, key=_number):
        check, column = by_number[_number(result)]
        if (error := _error(result.exception_info)) is not None:
            raise ConfigurationError(
                f"{subject.name}: {check.expectation} of {column} cannot be asked: {error}"
            )
        results.append(
            CheckResult(
                subject=subject.name,
                expectation=check.expectation,
                column=column,
                severity=check.severity,
                passed=bool(result.success),
                found=_found(result.result),
                examples=() if result.success else _examples(result.result, subject.identity),
                why=check.why,
                remedy=check.remedy,
            )
        )
    return results


def _number(result: "ExpectationValidationResult") -> int:
    configuration = result.expectation_config
    if configuration is None or configuration.meta is None:
        raise AssertionError("every expectation is given a number before it is asked")
    return int(configuration.meta["number"])


def _error(exception_info: Mapping[str, Any]) -> str | None:
    """Why an expectation could not be evaluated; the information is there once, or once for each metric."""
    infos = [exception_info] if "raised_exception" in exception_info else exception_info.values()
    return next((str(info["exception_message"]) for info in infos if info["raised_exception"]), None)


def _found(result: Mapping[str, Any]) -> str:
    if "unexpected_count" in result:
        return f"{result['unexpected_count']} of {result['element_count']} rows do not fit"
    return str(result.get("observed_value"))


def _examples(result: Mapping[str, Any], identity: Sequence[str]) -> tuple[str, ...]:
    # Without the unexpected values, the identities of all rows come as one record of lists.
    identities = [
        "#".join(map(str, values))
        for record in result.get("unexpected_index_list") or []
        for values in zip(*(record[name] for name in identity), strict=True)
    ]
    return tuple(identities[:EXAMPLES_MAX])


@cache
def _read(file: Path, subject: str | None = None) -> tuple[Check, ...]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(tuple[Check, ...]).validate_python(content[subject] if subject else content)
    except (OSError, yaml.YAMLError, KeyError, ValidationError) as error:
        raise ConfigurationError(f"the checks in {file} cannot be read: {error}") from error
