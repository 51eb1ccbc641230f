"""Which schema takes a document, asked on a command line without a stack."""

import json

import pytest
from typer.testing import CliRunner

from telemetry_lake.__main__ import app


def run(*arguments):
    result = CliRunner().invoke(app, ["schemas", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def others(tmp_path, monkeypatch):
    """A folder of schemas of others, which knows one type."""
    file = tmp_path / "shop" / "receipt" / "receipt.1.schema.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"required": ["paid"]}))
    monkeypatch.setenv("TELEMETRY_LAKE_CONVERSION__FURTHER_SCHEMAS_DIRECTORIES", json.dumps([str(tmp_path)]))
    return file


def test_every_type_is_listed_with_the_file_that_decides(others):
    lines = run("list").stdout.splitlines()
    assert any(line.startswith("telemetry/main ") and "main.4.schema.json" in line for line in lines)
    assert any(line.split() == ["shop/receipt", "1", str(others)] for line in lines)
    assert run("list", "receipt").stdout.splitlines() == [line for line in lines if "receipt" in line]


def test_a_type_shows_which_fields_fill_its_columns(others):
    main = run("show", "telemetry/main").stdout
    assert "client_id            from /clientId" in main
    assert "histograms           from /payload" in main
    receipt = run("show", "shop/receipt").stdout
    assert str(others) in receipt
    assert "documents with ping_info or client_info:" in receipt
    assert "other documents:" in receipt


def test_an_unknown_type_is_an_error_that_says_where_to_look():
    result = run("show", "shop/order")
    assert result.exit_code == 2
    assert "schemas list" in result.stderr


def test_documents_are_tried_as_the_drain_would(others, tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"paid": 1, "client_id": "5BF8DD85-7F2E-4CF9-8BB7-6CDFB3A6C8DA"}')
    bad.write_text("{}")
    result = run("check", "--type", "shop/receipt/1", str(good), str(bad))
    assert result.exit_code == 1
    assert f"{good}: a row, " in result.stdout
    assert "client_id=5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da" in result.stdout
    assert f"{bad}: schema_violation, " in result.stdout
    assert "(/required of the schema)" in result.stdout
    assert "1 of 2 documents were rejected" in result.stderr
    assert run("check", "--type", "shop/receipt/1", str(good)).exit_code == 0


@pytest.mark.parametrize("name", ["telemetry", "telemetry/main/4", "shop/order", "a b/c/1", "x/y/z"])
def test_a_type_that_no_path_can_name_is_refused(name, others):
    result = run("check", "--type", name, str(others))
    assert result.exit_code == 2
    assert result.stdout == ""
