"""The country of a ping, from a real database file in MaxMind's format."""

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from telemetry_lake.convert import Converter
from telemetry_lake.convert.country import CountryLookup
from telemetry_lake.convert.normalize import normalized_channel, normalized_os, sample_id
from telemetry_lake.failures import ConfigurationError
from tests.convert.ping_builders import convert, generic_path, ping, rows_of, settings


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
        (0, ["9.9.9.9"], "8.8.8.8", "CH"),
        (0, ["9.9.9.9:4711"], "8.8.8.8", "CH"),
        (0, ["[2001:4860:4860::8888]:80"], "9.9.9.9", "US"),
        (0, ["::ffff:9.9.9.9"], "8.8.8.8", "CH"),
        (0, ["10.0.0.7, unknown, 9.9.9.9, 8.8.8.8"], "10.0.0.1", "CH"),
        (0, ["10.0.0.7", "9.9.9.9"], "10.0.0.1", "CH"),
        (1, ["9.9.9.9, 8.8.8.8"], "10.0.0.1", "CH"),
        (1, ["8.8.8.8"], "10.0.0.1", "??"),
        (2, ["10.0.0.7, 8.8.8.8, 9.9.9.9"], "10.0.0.1", "??"),
        (10, ["8.8.8.8"], "9.9.9.9", "CH"),
        (0, ["10.0.0.1," * 32 + "8.8.8.8"], "9.9.9.9", "CH"),
        (0, ["10.0.0.1," * 31 + "8.8.8.8"], "9.9.9.9", "US"),
        (0, ["8" * 1_000], "9.9.9.9", "CH"),
    ],
)
def test_country(database, proxies, forwarded, remote, country):
    assert CountryLookup(database, proxies).country_of(forwarded, remote) == country


def test_without_a_database_nobody_is_looked_up():
    assert CountryLookup(None, 0).country_of(["8.8.8.8"], "9.9.9.9") == "??"


def test_country_of_a_row(database):
    converter = Converter(settings(country_database=database, trusted_proxies=1))
    sent = ping(
        generic_path("lake-demo", "greeting"),
        {"text": ""},
        headers=[("x-forwarded-for", b"9.9.9.9, 10.1.2.3")],
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


@pytest.mark.parametrize(
    "channel,normalized",
    [
        ("release", "release"),
        ("ESR", "esr"),
        ("beta-cck-partner", "beta"),
        ("nightly", "nightly"),
        ("aurora", "aurora"),
        ("default", "Other"),
        ("nightly-try", "Other"),
        ("", "Other"),
        (None, "Other"),
    ],
)
def test_normalized_channel(channel, normalized):
    assert normalized_channel(channel) == normalized


@pytest.mark.parametrize(
    "name,normalized",
    [
        ("WINNT", "Windows"),
        ("Windows_NT", "Windows"),
        ("Darwin", "Mac"),
        ("macOS", "Mac"),
        ("Linux", "Linux"),
        ("GNU/Linux", "Linux"),
        ("Android", "Android"),
        ("iOS", "iOS"),
        ("FreeBSD", "Other"),
        (None, "Other"),
    ],
)
def test_normalized_os(name, normalized):
    assert normalized_os(name) == normalized


def test_sample_id_is_the_crc_of_the_lower_case_id():
    # crc32 of "123456789" is 0xCBF43926, the check value of the algorithm.
    assert sample_id("123456789") == 0xCBF43926 % 100
    assert sample_id("C0FFEE") == sample_id("c0ffee")
