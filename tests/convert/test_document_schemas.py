"""A document type is a file."""

import json
import shutil

import jsonschema_rs
import pytest

from lake_testing.ping_builders import (
    generic_path,
    glean_document,
    linear,
    live_row,
    rejected_row,
    settings,
    telemetry_path,
    unified_document,
)
from telemetry_lake import columns
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.document_schemas import load_document_schemas
from telemetry_lake.convert.extraction import EXTRACTED_COLUMNS
from telemetry_lake.convert.rows import PING_VALUES, PINGS_SCHEMA, REJECTED_SCHEMA, REJECTED_VALUES
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ConversionSettings

OURS = ConversionSettings().schemas_directory
CLIENT = "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da"
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
    document = {"total": 3, "customer": {"id": CLIENT, "name": "Ann"}, "why": "bought", "id": UUID}
    row = live_row(path, document, converter)
    assert (row["client_id"], row["reason"], row["app_name"]) == (CLIENT, "bought", "Shop")
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
        load_document_schemas(folder, frozenset(), {})


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_document_schemas(tmp_path / "nobody", frozenset(), {})


def test_every_column_is_filled():
    captured = {
        columns.SUBMISSION_TIMESTAMP,
        columns.SUBMISSION_DATE,
        columns.REQUEST,
        columns.HEADERS,
        columns.RAW_OBJECT,
        columns.RAW_OBJECT_POSITION,
    }
    derived = {
        columns.NORMALIZED_CHANNEL,
        columns.NORMALIZED_OS,
        columns.SAMPLE_ID,
    }
    assert set(PINGS_SCHEMA.names) == {
        *PING_VALUES,
        *captured,
        *derived,
        columns.COUNTRY,
        columns.HISTOGRAMS,
    }
    assert set(REJECTED_SCHEMA.names) == {*REJECTED_VALUES, *captured, columns.ORIGIN}
    assert set(PING_VALUES) > set(EXTRACTED_COLUMNS)


MONEY = {"$schema": "http://json-schema.org/draft-04/schema#", "required": ["paid"]}
"""`exclusiveMinimum` is a boolean in draft 4, and a number in later ones."""
PAID = {"properties": {"paid": {"minimum": 0, "exclusiveMinimum": True}}}


def test_a_schema_of_others_decides_and_columns_are_those_of_the_family(tmp_path):
    folder = tmp_path / "others"
    add(folder, "shop/receipt/receipt.1.schema.json", MONEY | PAID)
    add(folder, "shop/receipt/receipt.1.bq", "not a schema")
    add(folder, "telemetry/voice/voice.4.schema.json", MONEY | PAID)
    converter = Converter(settings(further_schemas_directories=(folder,)))
    generic, glean = {"client_id": CLIENT, "paid": 1}, {**glean_document(), "paid": 1}
    unified = {**unified_document("voice"), "paid": 1}
    for path, document, client in (
        (generic_path("shop", "receipt"), generic, CLIENT),
        (generic_path("shop", "receipt"), glean, glean["client_info"]["client_id"]),
        (telemetry_path("voice"), unified, unified["clientId"]),
    ):
        row = live_row(path, document, converter)
        assert (row["client_id"], restore_document(row)) == (client, document)
        rejected = rejected_row(path, {**document, "paid": 0}, converter)
        assert (rejected["error_type"], rejected["schema_path"]) == (
            "schema_violation",
            "/properties/paid/exclusiveMinimum",
        )


def test_of_two_folders_of_others_the_first_one_counts(tmp_path):
    for name, required in (("first", "a"), ("second", "b")):
        add(tmp_path / name, "shop/receipt/receipt.1.schema.json", {"required": [required]})
    folders = (tmp_path / "first", tmp_path / "second")
    converter = Converter(settings(further_schemas_directories=folders))
    assert live_row(generic_path("shop", "receipt"), {"a": 1}, converter)
    assert rejected_row(generic_path("shop", "receipt"), {"b": 1}, converter)


def test_a_schema_of_others_fetches_nothing(tmp_path):
    add(tmp_path, "shop/receipt/receipt.1.schema.json", {"$ref": "http://192.0.2.1/other.json"})
    with pytest.raises(ConfigurationError, match=r"receipt\.1\.schema\.json cannot be used.*192\.0\.2\.1"):
        load_document_schemas(OURS, frozenset(), {}, (tmp_path,))


def test_a_folder_without_schemas_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="further_schemas_directories"):
        load_document_schemas(OURS, frozenset(), {}, (tmp_path,))


@pytest.mark.parametrize(
    "document, version",
    [
        ({"v": 7}, "7"),
        ({"version": "7"}, "7"),
        ({"version": "55.0", "v": 7}, "7"),
        ({"version": True, "ver": None, "v": "7"}, "7"),
        ({"version": 7, "ver": 1}, "7"),
    ],
)
def test_the_version_of_a_phone_s_ping_is_found_under_any_of_its_names(tmp_path, document, version):
    folder = tmp_path / "others"
    add(folder, "telemetry/mobile/mobile.7.schema.json", {})
    converter = Converter(settings(further_schemas_directories=(folder,)))
    assert live_row(telemetry_path("mobile"), document, converter)["document_version"] == version


def test_core_pings_of_phones_are_rows_in_every_version():
    core = {"v": 7, "clientId": CLIENT, "os": "Android", "osversion": "25", "arch": "arm", "seq": 14}
    for version in (1, 7, 10):
        row = live_row(telemetry_path("core"), {**core, "v": version})
        assert (row["document_version"], row["client_id"], row["os"]) == (str(version), CLIENT, "Android")
        assert restore_document(row) == {**core, "v": version}


def test_a_schema_of_others_sees_the_histograms_that_are_in_columns(tmp_path):
    histograms = {"additionalProperties": {"required": ["sum"]}}
    payload = {"properties": {"payload": {"properties": {"histograms": histograms}}}}
    add(tmp_path, "telemetry/main/main.4.schema.json", payload)
    converter = Converter(settings(further_schemas_directories=(tmp_path,)))
    document = unified_document(histograms={"A": linear({"1": 2}, sum=2)})
    assert len(live_row(telemetry_path("main"), document, converter)["histograms"]) == 1
    del document["payload"]["histograms"]["A"]["sum"]
    assert rejected_row(telemetry_path("main"), document, converter)["error_message"].startswith(
        "/payload/histograms/A: "
    )


def test_a_ping_without_a_version_is_of_the_newest_that_others_know(tmp_path):
    for version, required in (("2", "old"), ("10", "new")):
        add(tmp_path, f"telemetry/study/study.{version}.schema.json", {"required": [required]})
    converter = Converter(settings(further_schemas_directories=(tmp_path,)))
    row = live_row(telemetry_path("study"), {"new": 1}, converter)
    assert (row["document_version"], restore_document(row)) == (None, {"new": 1})
    assert rejected_row(telemetry_path("study"), {}, converter)["error_type"] == "schema_violation"
