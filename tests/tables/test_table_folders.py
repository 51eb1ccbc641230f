"""Every folder in sql/ tells all that there is to know of its table."""

from collections.abc import Iterator

import pytest
import yaml

from jobs.spark.table_checks import questions_of
from telemetry_lake import columns
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.tables.checks import checks_of_table
from telemetry_lake.tables.definitions import SQL_DIRECTORY, Column, ColumnType, table_definition, table_names

DESCRIPTION_MIN_CHARACTERS = 10
CONSTANTS = {
    name: value for name, value in vars(columns).items() if name.isupper() and isinstance(value, str)
}


def test_the_tables_are_found():
    assert {"live.pings", "live.rejected_pings", "stable.pings", "derived.ping_counts"} <= set(table_names())
    assert len(CONSTANTS) > 20


@pytest.mark.parametrize("name", table_names())
def test_a_table_says_what_it_is_for_and_every_column_what_it_means(name: str):
    definition = table_definition(name)
    assert len(definition.metadata.description.split()) > 5
    assert definition.metadata.grain
    assert definition.metadata.partitioned_by, "every table grows, and a query should not read all of it"
    short = [
        where
        for where, column in named_columns(name, definition.columns)
        if len(column.description) < DESCRIPTION_MIN_CHARACTERS or not column.description.endswith(".")
    ]
    assert not short, "these descriptions are no sentences"


@pytest.mark.parametrize("name", table_names())
def test_a_table_has_what_fills_it_and_what_checks_it(name: str):
    folder = SQL_DIRECTORY.joinpath(*name.split("."))
    namespace = name.partition(".")[0]
    assert namespace in {"live", "stable", "derived"}, "say in sql/README.md what it holds, and here"
    assert (PROJECT_ROOT / table_definition(name).metadata.filled_by).is_file()
    checks = checks_of_table(name)
    assert checks
    if namespace == "live":
        assert all(check.expectation for check in checks), "Great Expectations asks no conditions"
    else:
        assert questions_of(name, checks)
        golden = yaml.safe_load((folder / "golden.yaml").read_text())
        assert set(golden) == {"description", "arguments", "input", "expected"}


def test_no_folder_is_half_a_table():
    for folder in SQL_DIRECTORY.glob("*/*/"):
        if folder.is_dir():
            found = {file.name for file in folder.iterdir()}
            assert "metadata.yaml" in found, folder.relative_to(PROJECT_ROOT)


def test_a_table_with_the_columns_of_another_one_has_no_list_of_its_own():
    assert table_definition("stable.pings").columns is table_definition("live.pings").columns
    assert not (SQL_DIRECTORY / "stable" / "pings" / "schema.yaml").exists()


@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_column_that_code_names_is_a_column_of_a_table(constant: str):
    assert CONSTANTS[constant] in {
        column.name for name in table_names() for column in table_definition(name).columns
    }


def test_dimensions_are_columns_of_live_pings():
    names = [column.name for column in table_definition("live.pings").columns]
    assert set(columns.DIMENSIONS) <= set(names)


def named_columns(where: str, inside: tuple[Column, ...]) -> Iterator[tuple[str, Column]]:
    """All named columns, those of structs in lists and maps too, with their paths."""
    for column in inside:
        yield f"{where}.{column.name}", column
        yield from named_columns(f"{where}.{column.name}", fields_of(column))


def fields_of(column: ColumnType) -> tuple[Column, ...]:
    inner = column.element or column.value
    return column.fields if inner is None else fields_of(inner)
