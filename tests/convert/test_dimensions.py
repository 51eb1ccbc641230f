"""The dimension document: what it allows, and that nothing dangerous gets through."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.ping_builders import live_row, settings, telemetry_path, unified_document
from telemetry_lake.columns import DIMENSIONS
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.derivation.derived import dimension
from telemetry_lake.convert.derivation.dimensions import (
    DIMENSION_MAX_CHARACTERS,
    load_dimensions,
)
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ConversionSettings


def document_file(tmp_path, **allowed):
    file = tmp_path / "dimensions.json"
    rules = [{"field_name": name, "allowed_values": allowed.get(name, "*")} for name in DIMENSIONS]
    file.write_text(json.dumps({"version": 1, "dimensions": rules}))
    return file


def decide(tmp_path, allowed):
    """The function from what a ping sent as its reason, perhaps nothing, to the value of the column."""
    rule = load_dimensions(document_file(tmp_path, reason=allowed)).rule("reason")
    return lambda value: (
        pl.DataFrame({"reason": [value]}, schema={"reason": pl.String}).select(dimension(rule)).item()
    )


@pytest.mark.parametrize(
    "allowed,inside,outside",
    [
        ("*", ["anything", "23.0.1", "a b", "x" * DIMENSION_MAX_CHARACTERS], ["x" * 101]),
        (["a", "b"], ["a", "b"], ["c", "A", "a "]),
        ({"min": "20130101", "max": "20131231"}, ["20130101", "20131231"], ["20121231", "20140101"]),
        ({"min": "m"}, ["m", "z"], ["a"]),
        ({"min": 3, "max": 12.5}, ["3", "12.5", "4.0"], ["2.9", "13", "x", "nan"]),
        ({"max": 7}, ["7", "0"], ["8"]),
    ],
)
def test_allowed_values(tmp_path, allowed, inside, outside):
    decided = decide(tmp_path, allowed)
    assert [decided(value) for value in inside] == inside
    assert [decided(value) for value in outside] == ["OTHER"] * len(outside)


def test_absent_is_unknown_before_the_rule_is_asked(tmp_path):
    assert decide(tmp_path, "*")(None) == "UNKNOWN"
    assert decide(tmp_path, ["UNKNOWN"])(None) == "UNKNOWN"
    assert decide(tmp_path, ["a"])(None) == "OTHER"


@given(st.text(max_size=20))
def test_unsafe_characters_never_get_through(value):
    rule = load_dimensions(ConversionSettings().dimensions_file).rule("reason")
    column = pl.DataFrame({"reason": [value]}).select(dimension(rule))
    if column.item() == value:
        assert not set(value) & set("/\\%'\"\n\r\0\t?*<>|$`;&=#")
        assert not value.startswith((".", "-", " "))


@pytest.mark.parametrize("value", ["../../etc", ".", "a/b", "a\\b", "a\n", "", "a%2fb", "é", "a\0"])
def test_unsafe_values_become_other_and_are_not_lost(value):
    document = unified_document()
    document["application"]["version"] = value
    row = live_row(telemetry_path("main"), document)
    assert row["app_version"] == "OTHER"
    assert restore_document(row) == document


def test_value_that_is_not_allowed_stays_in_the_document(tmp_path):
    converter = Converter(settings(dimensions_file=document_file(tmp_path, app_update_channel=["release"])))
    document = unified_document()
    row = live_row(telemetry_path("main"), document, converter)
    assert (row["app_update_channel"], row["normalized_channel"]) == ("OTHER", "esr")
    assert json.loads(row["document"])["application"]["channel"] == "esr"
    assert restore_document(row) == document


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"version": 2, "dimensions": []}',
        '{"version": 1, "dimensions": [{"field_name": "reason", "allowed_values": "*"}]}',
    ],
)
def test_document_that_is_wrong(tmp_path, text):
    file = tmp_path / "dimensions.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"dimensions\.json"):
        load_dimensions(file)


@pytest.mark.parametrize(
    "allowed", ["all", {"min": 1, "max": "2"}, {}, {"min": 1, "most": 2}, [1], 3, {"min": True}]
)
def test_rule_that_is_wrong(tmp_path, allowed):
    with pytest.raises(ConfigurationError):
        load_dimensions(document_file(tmp_path, reason=allowed))


def test_submission_date_cannot_be_restricted(tmp_path):
    with pytest.raises(ConfigurationError, match="submission_date"):
        load_dimensions(document_file(tmp_path, submission_date=["20130101"]))
