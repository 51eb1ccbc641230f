"""Where the historic archive is, and how a wrong answer is named."""

import pytest

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import SourceFormat, load_settings

PREFIX = "TELEMETRY_LAKE_BACKFILL__SOURCE__"


def test_the_environment_says_where_the_archive_is(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}ROOT_URL", "webhdfs://namenode.example:9870/data/telemetry")
    monkeypatch.setenv(f"{PREFIX}FORMAT", "text_lines")
    monkeypatch.setenv(f"{PREFIX}DIRECTORIES", '["2013/08", "2013/09"]')
    source = load_settings().backfill.source
    assert source.root_url == "webhdfs://namenode.example:9870/data/telemetry"
    assert source.format is SourceFormat.TEXT_LINES
    assert source.directories == ("2013/08", "2013/09")


@pytest.mark.parametrize(
    "name, value",
    [
        ("ROOT_URL", "hdfs://namenode.example:8020/data"),
        ("ROOT_URL", "webhdfs://namenode.example/data"),
        ("ROOT_URL", "/data"),
        ("DATE_PATTERN", r"(?P<year>\d{4})-(?P<month>\d\d)"),
        ("DATE_PATTERN", "("),
        ("DIRECTORIES", "[]"),
        ("FORMAT", "avro"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError, match=PREFIX + name):
        load_settings()
