"""The form is stated once: what the DAG's form and the command's options let through, the request reads."""

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError
from typer.testing import CliRunner

from jobs.mapreduce import main
from jobs.spark.command_line import program
from telemetry_lake.failures import FatalError
from telemetry_lake.mapreduce.form import AnalysisRequest, form_fields, read_request

SCRIPT = "def map(key, dimensions, value, context): pass"
VALUES: dict[str, tuple[list[object], list[object]]] = {
    "script": (["/a.py", "s3://b/c.py"], ["a.py", "/a.txt", "s3://a.py"]),
    "script_text": ([SCRIPT, "x" * 1024**2], ["x" * (1024**2 + 1)]),
    "filter": (["{}", "s3://b/c"], ["x" * (1024**2 + 1)]),
    "table": (["stable", "live"], ["derived"]),
    "dates": (["2026-11-01", "today", "2026-11-01..yesterday"], ["2026-11", "..today", "tomorrow"]),
    "sample": ([1, 100], [0, 101]),
    "format": (["text", "csv", "parquet"], ["json"]),
    "output": (["s3://b/c"], ["/a", "a", "s3://b"]),
    "num_reducers": ([1, 1_000], [0, 1_001]),
    "workers": ([1, 100], [0, 101]),
    "time_limit_minutes": ([1, 1_440], [0, 1_441]),
    "schedule": (["once", "daily", "weekly", "monthly"], ["hourly"]),
    "name": (["a", "0-_" + "a" * 61], ["A", "_a", "a" * 65]),
}
"""For each field, what it takes and what it does not."""


def request_with(field: str, value: object) -> AnalysisRequest:
    """The request of a form that is complete but for one field."""
    form = {"script_text": SCRIPT, "name": "some", field: value}
    if field == "script":
        del form["script_text"]
    return read_request(form)


def test_every_field_is_in_the_form_with_a_title_a_description_and_a_default() -> None:
    fields = form_fields()
    assert list(fields) == list(AnalysisRequest.model_fields) == list(VALUES)
    for field, schema in fields.items():
        assert schema["title"], field
        assert schema["description"], field
        # The form has to be sendable as it opens.
        Param(**schema).resolve()
    assert fields["dates"]["default"] == "yesterday", "an empty field would mean all dates"


@pytest.mark.parametrize("field", VALUES)
def test_form_and_request_take_and_refuse_the_same(field: str) -> None:
    param = Param(**form_fields()[field])
    taken, refused = VALUES[field]
    for value in taken:
        assert param.resolve(value) == getattr(request_with(field, value), field) == value
    for value in refused:
        with pytest.raises(ParamValidationError):
            param.resolve(value)
        with pytest.raises(FatalError, match=f"{field}: "):
            request_with(field, value)


@pytest.mark.parametrize("field", ["table", "dates", "sample", "format", "num_reducers"])
def test_the_command_takes_and_refuses_the_same_as_the_form(field: str) -> None:
    option = f"--{field.replace('_', '-')}"
    taken, refused = VALUES[field]
    for value in [*taken, *refused]:
        # A script that is not there: nothing is started.
        arguments = ["--script", "/nowhere/a.py", "--output", "/nowhere/out", option, str(value)]
        result = CliRunner().invoke(program(main), arguments)
        if value in taken:
            assert (result.exit_code, "/nowhere/a.py" in result.output) == (1, True), result.output
        else:
            assert (result.exit_code, option in result.output) == (2, True), result.output


def test_the_command_explains_its_options_as_the_form_does() -> None:
    shown = " ".join(CliRunner().invoke(program(main), ["--help"]).output.split())
    for field in ("table", "sample", "format", "num_reducers"):
        assert form_fields()[field]["description"] in shown
