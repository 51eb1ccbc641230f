"""Fields of a form and the filter documents that they stand for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.analysis_jobs.filter_fields import (
    FILTER_COLUMNS,
    document_of_fields,
    fields_of_document,
    with_value,
)

VALUES = st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), min_size=1).map(str.strip)
VALUE = VALUES.filter(lambda value: value and ".." not in value and value != "*")


def document(*dimensions: dict[str, object]) -> str:
    return json.dumps({"version": 1, "dimensions": dimensions})


@given(st.dictionaries(st.sampled_from(sorted(FILTER_COLUMNS)), st.lists(VALUE, min_size=1, max_size=4)))
def test_a_form_opens_as_it_was_saved(values):
    fields = {column: ", ".join(of_column) for column, of_column in values.items()}
    assert fields_of_document(document_of_fields(fields)) == fields


@pytest.mark.parametrize(
    "text, allowed",
    [
        ("release, beta", ["release", "beta"]),
        (" release ,, ", ["release"]),
        ("20260101..", {"min": "20260101"}),
        ("..20260131", {"max": "20260131"}),
        ("20260101 .. 20260131", {"min": "20260101", "max": "20260131"}),
    ],
)
def test_a_field_is_a_rule(text, allowed):
    of_fields = document_of_fields({"app_build_id": text})
    assert json.loads(of_fields)["dimensions"] == [{"field_name": "app_build_id", "allowed_values": allowed}]


@pytest.mark.parametrize("text", ["", " , ", "*", ".."])
def test_a_field_that_rules_nothing_out_is_no_rule(text):
    assert document_of_fields({"app_name": text}) == ""


@pytest.mark.parametrize(
    "dimensions, fields",
    [
        ([{"field_name": "appName", "allowed_values": "Firefox"}], {"app_name": "Firefox"}),
        ([{"field_name": "appVersion", "allowed_values": "*"}], {}),
        ([{"field_name": "appBuildID", "allowed_values": {"min": "2013"}}], {"app_build_id": "2013.."}),
        ([{"field_name": "architecture", "allowed_values": ["x86"]}], None),
        ([{"field_name": "appName", "allowed_values": ["a, b"]}], None),
        ([{"field_name": "appName", "allowed_values": ["a..b"]}], None),
        ([{"field_name": "appName", "allowed_values": []}], None),
        ([{"field_name": "appVersion", "allowed_values": {"min": 20}}], None),
        (
            [
                {"field_name": "appName", "allowed_values": "a"},
                {"field_name": "app_name", "allowed_values": "b"},
            ],
            None,
        ),
    ],
)
def test_a_document_that_fields_cannot_say_stays_a_document(dimensions, fields):
    assert fields_of_document(document(*dimensions)) == fields


def test_what_is_no_filter_document_stays_as_it_is():
    assert fields_of_document("{") is None
    assert fields_of_document(" ") == {}


def test_a_value_is_added_and_taken_out():
    assert with_value("release", "beta") == "release, beta"
    assert with_value("release, beta", "release") == "beta"
    assert with_value("40..", "41.0") == "41.0"
