"""The country of a ping, from a real database file in MaxMind's format."""

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from lake_testing.ping_builders import convert, generic_path, ping, rows_of, settings
from telemetry_lake.convert.converter import Converter
from telemetry_lake.convert.derivation.country import CountryLookup
from telemetry_lake.failures import ConfigurationError


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    writer = MMDBWriter(6, "Test-Country", ipv4_compatible=True)
    writer.insert_network(IPSet(["8.8.8.0/24", "2001:4860::/32"]), {"country": {"iso_code": "US"}})
    writer.insert_network(IPSet(["9.9.9.0/24"]), {"country": {"iso_code": "CH"}})
    writer.insert_network(IPSet(["7.7.7.0/24"]), {"continent": {"code": "EU"}})
    file = tmp_path_factory.mktemp("country") / "country.mmdb"
    writer.to_db_file(str(file))
    return file


@pytest.mark.parametrize(
    "proxies,forwarded,remote,country",
    [
        (0, [], "8.8.8.8", "US"),
        (0, [], "2001:4860:4860::8888", "US"),
        (0, [], "10.0.0.1", "??"),
        (0, [], "1.2.3.4", "??"),
        (0, [], "7.7.7.7", "??"),
        (0, [], "not an address", "??"),
        # What a client says of itself is not believed.
        (0, ["9.9.9.9"], "8.8.8.8", "US"),
        (0, ["9.9.9.9"], "10.0.0.1", "??"),
        (1, ["9.9.9.9, 8.8.8.8"], "10.0.0.1", "US"),
        (1, ["9.9.9.9", "8.8.8.8"], "10.0.0.1", "US"),
        (1, ["9.9.9.9, 10.0.0.7"], "10.0.0.1", "??"),
        (1, ["9.9.9.9, unknown"], "10.0.0.1", "??"),
        (1, ["9.9.9.9, "], "10.0.0.1", "??"),
        (2, ["9.9.9.9, 8.8.8.8, 10.0.0.2"], "10.0.0.1", "US"),
        (2, ["9.9.9.9, 8.8.8.8", "10.0.0.2"], "10.0.0.1", "US"),
        # One that passed fewer proxies.
        (1, [], "8.8.8.8", "US"),
        (2, ["8.8.8.8"], "10.0.0.1", "US"),
        # Forms of addresses.
        (1, [" 9.9.9.9:4711 "], "10.0.0.1", "CH"),
        (1, ["[2001:4860:4860::8888]:80"], "10.0.0.1", "US"),
        (1, ["::ffff:9.9.9.9"], "10.0.0.1", "CH"),
        (1, ["8" * 1_000], "9.9.9.9", "??"),
        (1, ["10.0.0.1," * 10_000 + "8.8.8.8"], "9.9.9.9", "US"),
    ],
)
def test_country(database, proxies, forwarded, remote, country):
    assert CountryLookup(database, proxies).country_of(forwarded, remote) == country


def test_without_a_database_no_country_is_known():
    assert CountryLookup(None, 0).country_of(["8.8.8.8"], "9.9.9.9") == "??"


def test_country_of_a_row(database):
    converter = Converter(settings(country_database=database, trusted_proxies=1))
    sent = ping(
        generic_path("lake-demo", "greeting"),
        {"text": ""},
        headers=[("x-forwarded-for", b"8.8.8.8, 9.9.9.9")],
        remote_address="10.9.9.9",
    )
    (row,), _ = rows_of(convert([sent], converter))
    assert row["country"] == "CH"


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_database_that_cannot_be_read(tmp_path, content):
    file = tmp_path / "country.mmdb"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="country database"):
        CountryLookup(file, 0)
