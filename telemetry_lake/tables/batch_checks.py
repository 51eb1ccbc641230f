"""The engine of the gates: Great Expectations asks the checks of frames that hold the columns of a batch.

Names of expectations and their arguments: https://greatexpectations.io/expectations/
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.tables.checks import Check, CheckResult, Expectation

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.datasource.fluent.pandas_datasource import DataFrameAsset
    from great_expectations.expectations.expectation import Expectation as GreatExpectation

EXAMPLES_MAX: Final = 5
"""How many of the rows that do not fit are named, by their identity and nothing else."""

Question = tuple[Check, Expectation]


class Subject(NamedTuple):
    """A frame to check, and its name; the columns `identity` name its rows."""

    name: str
    checks: tuple[Check, ...]
    frame: "pd.DataFrame"
    identity: tuple[str, ...]


def run_checks(subjects: Iterable[Subject]) -> list[CheckResult]:
    """Return what the checks of each subject find in its frame; an empty frame is not checked.

    Raises ConfigurationError when an expectation or one of its columns is unknown, and for a condition, which
    only Spark SQL can ask.
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

    questions = list(_questions(subject))
    suite = gx.ExpectationSuite(
        name=subject.name,
        expectations=[
            _great_expectation(expectation, subject.name, number)
            for number, (_, expectation) in enumerate(questions)
        ],
    )
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": subject.frame})
    answer = batch.validate(
        suite,
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": list(subject.identity),
            "partial_unexpected_count": 0,
            "exclude_unexpected_values": True,
        },
    )
    return [
        _check_result(result, *questions[_number(result)], subject)
        for result in sorted(answer.results, key=_number)
    ]


def _questions(subject: Subject) -> Iterable[Question]:
    for check in subject.checks:
        if check.every_row is not None:
            raise ConfigurationError(
                f"{subject.name}: every_row ({check.every_row}) can only be asked of a date, by Spark SQL; "
                "for a batch, write an expectation"
            )
        for expectation in check.expectations():
            yield check, expectation


def _great_expectation(expectation: Expectation, subject: str, number: int) -> "GreatExpectation":
    """Return Great Expectations' own object, which carries `number` into its result."""
    from great_expectations import expectations

    kind: Callable[..., GreatExpectation] | None = getattr(expectations, expectation.name, None)
    if kind is None:
        raise ConfigurationError(f"{subject}: Great Expectations has no expectation {expectation.name}")
    return kind(**expectation.arguments, meta={"number": number})


def _check_result(
    result: "ExpectationValidationResult", check: Check, expectation: Expectation, subject: Subject
) -> CheckResult:
    if (error := _error(result.exception_info)) is not None:
        raise ConfigurationError(
            f"{subject.name}: {expectation.name} of {expectation.column} cannot be asked: {error}"
        )
    return CheckResult(
        subject=subject.name,
        expectation=expectation.name,
        column=expectation.column,
        severity=check.severity,
        passed=bool(result.success),
        found=_found(result.result),
        examples=() if result.success else _examples(result.result, subject.identity),
        why=check.why,
        remedy=check.remedy,
    )


def _number(result: "ExpectationValidationResult") -> int:
    configuration = result.expectation_config
    if configuration is None or configuration.meta is None:
        raise AssertionError("every expectation is given a number before it is asked")
    return int(configuration.meta["number"])


def _error(exception_info: Mapping[str, Any]) -> str | None:
    """Return why an expectation could not be evaluated; it is said once, or once for each metric."""
    infos = [exception_info] if "raised_exception" in exception_info else exception_info.values()
    return next((str(info["exception_message"]) for info in infos if info["raised_exception"]), None)


def _found(result: Mapping[str, object]) -> str:
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
