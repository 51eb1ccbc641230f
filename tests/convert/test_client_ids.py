"""A client is a UUID, however it is spelled; the document comes back as it was spelled."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.ping_builders import live_row, settings, telemetry_path, unified_document
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.derivation.client_ids import client_id_of, load_broken_client_ids
from telemetry_lake.documents.restore import restore_document
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import ConversionSettings

CLIENT = "5bf8dd85-7f2e-4cf9-8bb7-6cdfb3a6c8da"
BROKEN = "c0ffeec0-ffee-c0ff-eec0-ffeec0ffeec0"
PATH = telemetry_path("event")


@pytest.fixture(scope="module")
def converter():
    return Converter(settings())


@pytest.mark.parametrize("sent", [CLIENT, CLIENT.upper(), f"{{{CLIENT}}}", f"{{{CLIENT.upper()}}}"])
def test_one_client_has_one_id_however_it_is_sent(converter, sent):
    document = {**unified_document("event"), "clientId": sent}
    row = live_row(PATH, document, converter)
    assert (row["client_id"], row["sample_id"]) == (CLIENT, 48)
    assert restore_document(row) == document


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "unknown",
        CLIENT[:-1],
        CLIENT + "0",
        CLIENT.replace("-", ""),
        f"{{{CLIENT}",
        f"{CLIENT}}}",
        f" {CLIENT}",
        f"{CLIENT}\n",
        CLIENT.replace("5", "\u0665"),
        BROKEN,
        BROKEN.upper(),
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_anything_else_is_not_a_client(converter, sent):
    document = {**unified_document("event"), "clientId": sent}
    row = live_row(PATH, document, converter)
    assert (row["client_id"], row["sample_id"]) == (None, None)
    assert restore_document(row) == document


@given(st.uuids(), st.booleans(), st.booleans())
def test_any_uuid_is_found_in_any_spelling(number: uuid.UUID, upper, braces):
    sent = str(number).upper() if upper else str(number)
    assert client_id_of()(f"{{{sent}}}" if braces else sent) == str(number)


def test_the_list_may_have_comments_and_its_faults_are_named(tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text(f"# shared\n\n{BROKEN}  # by many\n")
    assert load_broken_client_ids(file) == {BROKEN}
    file.write_text(f"{BROKEN}\n{BROKEN.upper()}\n")
    with pytest.raises(ConfigurationError, match=r"ids\.txt:2: .* is not a UUID in lower case"):
        load_broken_client_ids(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_broken_client_ids(tmp_path / "none.txt")


def test_the_list_of_the_project_is_one():
    assert BROKEN in load_broken_client_ids(ConversionSettings().broken_client_ids_file)
