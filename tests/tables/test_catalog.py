"""Tables are made from their definitions, in any catalog, by anybody, at any time."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyarrow.fs import FileSelector
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.catalog import (
    OF_EVERY_TABLE,
    create_or_update_table,
    create_tables,
    iceberg_schema,
    load_lake_catalog,
    staging_area,
)
from telemetry_lake.tables.definitions import LIVE_PINGS, Column, table_definition, table_names


def test_every_table_is_created_as_it_is_defined(either_catalog):
    catalog = load_lake_catalog(either_catalog)
    assert create_tables(catalog) == table_names()
    for name in table_names():
        table, definition = catalog.load_table(name), table_definition(name)
        assert _shape(table.schema()) == _shape(iceberg_schema(definition))
        assert [field.name for field in table.spec().fields] == [
            part.column for part in definition.metadata.partitioned_by
        ]
        assert [table.schema().find_column_name(f.source_id) for f in table.sort_order().fields] == list(
            definition.metadata.sorted_by
        )
        assert definition.metadata.properties.items() <= table.properties.items()


def test_creating_again_changes_nothing(either_catalog):
    catalog = load_lake_catalog(either_catalog)
    create_tables(catalog)
    before = [catalog.load_table(name).metadata_location for name in table_names()]
    create_tables(catalog)
    assert [catalog.load_table(name).metadata_location for name in table_names()] == before


def test_many_may_create_at_once(either_catalog):
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(lambda: create_tables(load_lake_catalog(either_catalog))) for _ in range(6)]
        assert [future.result() for future in futures] == [table_names()] * 6
    assert set(load_lake_catalog(either_catalog).list_tables("live")) >= {("live", "pings")}


def test_a_new_column_is_added_and_a_changed_description_is_taken_over(either_catalog):
    catalog, definition = load_lake_catalog(either_catalog), table_definition(LIVE_PINGS)
    create_or_update_table(catalog, definition)
    first = definition.columns[0]
    added = Column(name="added_later", type="string", description="A column of next year.")
    changed = (first.model_copy(update={"description": "Other words."}), *definition.columns[1:], added)
    with ThreadPoolExecutor(4) as pool:
        futures = [
            pool.submit(
                lambda: create_or_update_table(
                    load_lake_catalog(either_catalog), replace(definition, columns=changed)
                )
            )
            for _ in range(4)
        ]
        assert [future.result() for future in futures] == [None] * 4
    schema = catalog.load_table(LIVE_PINGS).schema()
    assert schema.find_field("added_later").doc == "A column of next year."
    assert schema.find_field(first.name).doc == "Other words."
    assert len(schema.fields) == len(definition.columns) + 1


def test_a_table_of_an_earlier_version_no_longer_leaves_its_old_descriptions_behind(either_catalog):
    catalog, definition = load_lake_catalog(either_catalog), table_definition(LIVE_PINGS)
    create_or_update_table(catalog, definition)
    with catalog.load_table(LIVE_PINGS).transaction() as transaction:
        transaction.remove_properties(*OF_EVERY_TABLE)
    create_or_update_table(catalog, definition)
    table = catalog.load_table(LIVE_PINGS)
    assert OF_EVERY_TABLE.items() <= table.properties.items()
    most = int(OF_EVERY_TABLE["write.metadata.previous-versions-max"])
    for number in range(most + 5):
        with table.transaction() as transaction:
            transaction.set_properties({"number": str(number)})
    folder = table.location() + "/metadata"
    scheme, _, path = folder.partition("://")
    assert isinstance(table.io, PyArrowFileIO)
    files = table.io.fs_by_scheme(scheme, path.partition("/")[0]).get_file_info(FileSelector(path))
    assert len([file for file in files if file.path.endswith(".metadata.json")]) == most + 1


@pytest.mark.parametrize(
    "column",
    [
        Column(name="added_later", type="string", required=True, description="A column of next year."),
        Column(name="histograms", type="string", description="Was a list."),
    ],
    ids=["required", "another type"],
)
def test_what_a_table_with_rows_cannot_become_is_refused_with_advice(either_catalog, column):
    catalog, definition = load_lake_catalog(either_catalog), table_definition(LIVE_PINGS)
    create_or_update_table(catalog, definition)
    others = [known for known in definition.columns if known.name != column.name]
    with pytest.raises(ConfigurationError, match=r"sql/live/pings/schema\.yaml.*a type may only widen"):
        create_or_update_table(catalog, replace(definition, columns=(*others, column)))


def test_files_are_staged_inside_their_table(either_catalog_with_tables):
    table = load_lake_catalog(either_catalog_with_tables).load_table(LIVE_PINGS)
    area = staging_area(table, "b" * 32)
    with area.filesystem.open_output_stream(f"{area.path}/x.parquet") as stream:
        stream.write(b"anything")
    assert area.uri.startswith(table.location())
    with table.io.new_input(f"{area.uri}/x.parquet").open() as found:
        assert found.read() == b"anything"


def test_no_catalog_at_all_is_said_in_words():
    with pytest.raises(ConfigurationError, match="make run"):
        load_lake_catalog(Settings())


def _shape(schema: Schema) -> list[tuple[str, str, bool, str | None]]:
    """Everything about the top-level fields but their ids, which the catalog gives."""
    return [
        (field.name, type(field.field_type).__name__, field.required, field.doc) for field in schema.fields
    ]
