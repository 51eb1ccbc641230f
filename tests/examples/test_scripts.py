"""The ported scripts give what is written down by hand: in the plain engine, and through Spark."""

import json
from typing import Any

import pytest

from telemetry_lake import columns
from telemetry_lake.convert import Converter, restore_document
from telemetry_lake.convert.histograms import SUM_FIELDS, dense_counts
from telemetry_lake.mapreduce.script import load_script
from telemetry_lake.settings import PROJECT_ROOT
from tests.convert.ping_builders import Row, convert, rows_of, settings
from tests.examples.script_cases import CASES, Case, submission_date
from tests.mapreduce import reference

SCRIPTS = PROJECT_ROOT / "jobs" / "examples"
FILTERS = SCRIPTS / "filters"
NUMBERED = [pytest.param(day, case, id=case.script) for day, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter(settings())


def converted(converter: Converter, day: int, case: Case, *, kept_out: bool = False) -> list[Row]:
    """The rows of a case's pings, in the order they were sent; every one of them has to become a row."""
    sent = [*case.sent, *(case.kept_out if kept_out else ())]
    live, rejected = rows_of(convert([one.raw(day) for one in sent], converter))
    assert [row["error_message"] for row in rejected] == []
    assert len(live) == len(sent)
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
    assert reference.run(script, rows) == expected(day, case)


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
