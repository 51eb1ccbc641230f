"""A document type is a file."""

import json
import shutil

import jsonschema_rs
import pytest

from telemetry_lake import columns
from telemetry_lake.convert import Converter, restore_document
from telemetry_lake.convert.document_schemas import EXTRACTED_COLUMNS, load_document_schemas
from telemetry_lake.convert.rows import PING_VALUES, PINGS_SCHEMA, REJECTED_SCHEMA, REJECTED_VALUES
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ConversionSettings
from tests.convert.ping_builders import generic_path, live_row, rejected_row, settings

OURS = ConversionSettings().schemas_directory
UUID = "0b7f1f6c-0000-4000-8000-000000000000"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(OURS, tmp_path / "schemas")
    return tmp_path / "schemas"


def add(folder, name, schema):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(schema if isinstance(schema, str) else json.dumps(schema))


def test_adding_a_type_is_adding_a_file(folder):
    path = generic_path("shop", "order", "3")
    assert rejected_row(path, {"total": 3})["error_type"] == "unknown_document_type"
    add(
        folder,
        "shop/order/order.3.schema.json",
        {
            "type": "object",
            "required": ["total"],
            "properties": {"total": {"type": "integer"}},
            "x-telemetry-lake": {
                "columns": {
                    "client_id": ["/customer/id"],
                    "reason": ["/missing", "/why"],
                    "document_id": ["/id"],
                },
                "constants": {"app_name": "Shop"},
            },
        },
    )
    converter = Converter(settings(schemas_directory=folder))
    document = {"total": 3, "customer": {"id": "ann", "name": "Ann"}, "why": "bought", "id": UUID}
    row = live_row(path, document, converter)
    assert (row["client_id"], row["reason"], row["app_name"]) == ("ann", "bought", "Shop")
    assert json.loads(row["document"]) == {"total": 3, "customer": {"name": "Ann"}, "id": UUID}
    assert restore_document(row) == document
    assert rejected_row(path, {"total": "3"}, converter)["error_type"] == "schema_violation"


def test_file_for_a_type_comes_before_the_file_for_any(folder):
    add(folder, "org-mozilla-fenix/baseline/baseline.1.schema.json", {"required": ["special"]})
    converter = Converter(settings(schemas_directory=folder))
    assert (
        rejected_row(generic_path("org-mozilla-fenix", "baseline"), {}, converter)["schema_path"]
        == "/required"
    )


def test_any_glean_application_is_known_by_the_form_of_its_pings():
    assert rejected_row(generic_path("a-b", "c"), {"ping_info": {}})["error_type"] == "unknown_document_type"
    both: dict[str, object] = {"ping_info": {}, "client_info": {}}
    assert rejected_row(generic_path("a-b", "c"), both)["error_type"] == "schema_violation"


@pytest.mark.parametrize("file", sorted(OURS.rglob("*.json")), ids=lambda file: str(file.relative_to(OURS)))
def test_our_schemas_are_schemas(file):
    if file.name != "dimensions.json":
        schema = json.loads(file.read_text())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["title"]
        jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize(
    "name,schema,message",
    [
        ("a/b/c.1.schema.json", {}, r"c\.1\.schema\.json is not named b\."),
        ("a/b/b.one.schema.json", {}, r"b\.one\.schema\.json is not named"),
        ("a/b/b.1.schema.json", "{", r"b\.1\.schema\.json cannot be read"),
        ("a/b/b.1.schema.json", [], "is not an object"),
        ("a/b/b.1.schema.json", {"type": "strange"}, "cannot be used"),
        ("a/b/b.1.schema.json", {"$ref": "telemetry-lake:nobody"}, "cannot be used"),
        ("a/b/b.1.schema.json", {"x-telemetry-lake": {"columns": {"country": ["/c"]}}}, "country"),
        ("a/b/b.1.schema.json", {"x-telemetry-lake": {"columns": {"os": ["c"]}}}, "cannot be used"),
        ("a/b/b.1.schema.json", {"x-telemetry-lake": {"colums": {}}}, "colums"),
    ],
)
def test_schema_that_is_wrong(folder, name, schema, message):
    add(folder, name, schema)
    with pytest.raises(ConfigurationError, match=message):
        load_document_schemas(folder, frozenset())


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="not there"):
        load_document_schemas(tmp_path / "nobody", frozenset())


def test_every_column_is_filled():
    captured = {
        columns.SUBMISSION_TIMESTAMP,
        columns.SUBMISSION_DATE,
        columns.REQUEST,
        columns.HEADERS,
        columns.RAW_OBJECT,
        columns.RAW_OBJECT_POSITION,
    }
    assert set(PINGS_SCHEMA.names) == {*PING_VALUES, *captured, columns.HISTOGRAMS}
    assert set(REJECTED_SCHEMA.names) == {*REJECTED_VALUES, *captured, columns.ORIGIN}
    assert set(PING_VALUES) > EXTRACTED_COLUMNS
