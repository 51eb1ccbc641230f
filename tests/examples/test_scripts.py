"""The ported scripts give what is written down by hand: in the plain engine, and through Spark."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs.mapreduce import Run, run_script
from lake_testing import mapreduce_reference
from lake_testing.mapreduce_phases import local_table, run
from lake_testing.ping_builders import Row, convert, rows_of
from lake_testing.ping_builders import settings as conversion_settings
from lake_testing.stack import Lake
from telemetry_lake import columns
from telemetry_lake.convert.converter import Converter
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.histograms.stored import SUM_FIELDS, dense_counts
from telemetry_lake.mapreduce.form import Table
from telemetry_lake.mapreduce.reading.filter_rules import load_filter
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.records import OutputFormat
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog
from telemetry_lake.tables.definitions import SQL_DIRECTORY, table_definition
from tests.examples.script_cases import CASES, Case, submission_date

SCRIPTS = PROJECT_ROOT / "jobs" / "examples"
FILTERS = SCRIPTS / "filters"
NUMBERED = [pytest.param(day, case, id=case.script) for day, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter(conversion_settings())


def converted(converter: Converter, day: int, case: Case) -> list[Row]:
    """The rows of a case's pings, in the order they were sent; every one of them has to become a row."""
    live, rejected = rows_of(convert([one.raw(day) for one in case.sent], converter))
    assert [row["error_message"] for row in rejected] == []
    assert len(live) == len(case.sent)
    return live


def compact_text(row: Row) -> str:
    """The document of a row as a script gets it."""
    document = restore_document(row)
    holder: Any = document.get("payload", document)
    for histogram in row[columns.HISTOGRAMS]:
        sums = [histogram[field] for field in SUM_FIELDS]
        holder["histograms"][histogram["name"]] = [*dense_counts(histogram), *sums]
    return json.dumps(document)


def dimensions(row: Row) -> list[str]:
    values = [row[name] for name in columns.DIMENSIONS]
    return [*values[:-1], values[-1].strftime("%Y%m%d")]


def expected(day: int, case: Case) -> str:
    return case.expected.replace("DAY", submission_date(day).strftime("%Y%m%d"))


@pytest.mark.parametrize("day, case", NUMBERED)
def test_a_script_gives_what_is_written_down(day: int, case: Case, converter: Converter):
    script = load_script(SCRIPTS / f"{case.script}.py")
    rows = [
        (
            row[columns.DOCUMENT_ID],
            dimensions(row),
            compact_text(row) if script.fields is None else {name: row[name] for name in script.fields},
        )
        for row in converted(converter, day, case)
    ]
    assert mapreduce_reference.run(script, rows) == expected(day, case)


@pytest.fixture(scope="module")
def filled(new_lake: Callable[[], Lake], converter: Converter) -> Settings:
    """A lake with the pings of all cases, and those that the filters keep out."""
    settings = new_lake().settings
    catalog = load_lake_catalog(settings)
    create_tables(catalog)
    for name in ("stable", "live"):
        raw = [
            one.raw(day)
            for day, case in enumerate(CASES)
            if case.table == name
            for one in (*case.sent, *case.kept_out)
        ]
        rows = pa.concat_tables(conversion.pings for conversion in convert(raw, converter))
        assert rows.num_rows == len(raw)
        catalog.load_table(f"{name}.pings").append(rows)
    return settings


@pytest.mark.parametrize("day, case", NUMBERED)
def test_spark_gives_the_same_and_filters_keep_other_pings_out(
    day: int, case: Case, filled: Settings, spark: SparkSession, tmp_path: Path
):
    table = Table(case.table)
    rules = (
        load_filter(FILTERS / f"{case.script}.json", table_definition(table.table_name), has_dates=True)
        if case.kept_out
        else ()
    )
    request = Run(
        script=load_script(SCRIPTS / f"{case.script}.py"),
        table=table,
        row_filter=RowFilter(rules, submission_date(day), submission_date(day)),
        output=str(tmp_path / "output"),
        output_format=OutputFormat.TEXT,
        num_reducers=None,
        max_failures=0,
    )
    summary = run_script(spark, filled, request)
    assert (tmp_path / "output").read_text() == expected(day, case)
    assert summary.records == len(case.sent)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("day, case", NUMBERED)
def test_both_sides_give_the_same_with_lazy_values_on_and_off(
    day: int, case: Case, lazy: bool, converter: Converter, tmp_path: Path
):
    rows = pa.concat_tables(
        conversion.pings for conversion in convert([one.raw(day) for one in case.sent], converter)
    )
    output, summary = run(local_table(tmp_path, rows), SCRIPTS / f"{case.script}.py", lazy=lazy)
    assert output == expected(day, case)
    assert summary.records == len(case.sent)


def test_every_script_has_a_case_and_every_filter_a_script():
    scripts = {file.stem for file in SCRIPTS.glob("*.py")} - {"from_clients", "startup_by_build"}
    assert {case.script for case in CASES} == scripts
    assert {file.stem for file in FILTERS.glob("*.json")} == {case.script for case in CASES if case.kept_out}


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.py")), ids=lambda file: file.stem)
def test_a_script_says_what_it_answers_and_what_it_gives(file: Any):
    source = file.read_text()
    assert source.startswith('"""')
    if file.stem not in ("from_clients", "startup_by_build"):
        docstring = source.split('"""')[1]
        assert docstring.splitlines()[0].endswith("?")
        assert "Reads " in docstring or "question" in docstring
        assert "Output" in docstring


def test_the_documentation_lists_every_example_with_its_question():
    text = (PROJECT_ROOT / "docs" / "analysis.md").read_text()
    for case in CASES:
        question = str(load_script(SCRIPTS / f"{case.script}.py").module.__doc__).splitlines()[0]
        assert f"| `{case.script}.py` | {question} |" in text
    for file in SQL_DIRECTORY.glob("examples/*.sql"):
        question = file.read_text().splitlines()[0].removeprefix("-- ")
        assert f"| `{file.name}` | {question} |" in text
