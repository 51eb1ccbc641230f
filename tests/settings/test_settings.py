"""Settings come from the environment or a file, and a wrong one is named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings, load_settings


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    file = tmp_path / "telemetry_lake.env"
    file.write_text(
        "TELEMETRY_LAKE_S3__ENDPOINT_URL=http://127.0.0.1:9\n"
        'TELEMETRY_LAKE_CATALOG__PROPERTIES={"type": "rest", "uri": "http://127.0.0.1:1"}\n'
        'TELEMETRY_LAKE_INGEST__CAPTURED_HEADERS=["Date"]\n'
    )
    return file


def test_a_file_gives_the_settings(env_file):
    settings = load_settings(env_file)
    assert settings.s3.endpoint_url == "http://127.0.0.1:9"
    assert settings.catalog.properties["type"] == "rest"
    assert settings.ingest.captured_headers == ("Date",)


def test_the_environment_names_the_file_and_wins_over_it(env_file, monkeypatch):
    monkeypatch.setenv("TELEMETRY_LAKE_ENV_FILE", str(env_file))
    monkeypatch.setenv("TELEMETRY_LAKE_S3__REGION", "eu-central-1")
    monkeypatch.setenv("TELEMETRY_LAKE_S3__ENDPOINT_URL", "http://127.0.0.1:10")
    settings = load_settings()
    assert (settings.s3.region, settings.s3.endpoint_url) == ("eu-central-1", "http://127.0.0.1:10")


@pytest.mark.parametrize(
    "variable, value",
    [
        ("TELEMETRY_LAKE_INGEST__PORT", "65536"),
        ("TELEMETRY_LAKE_INGEST__MAX_BODY_BYTES", str(10 * 1024 * 1024 + 1)),
        ("TELEMETRY_LAKE_INGEST__NODE", "a/b"),
        ("TELEMETRY_LAKE_S3__ENDPOINT", "http://127.0.0.1:9"),
    ],
)
def test_a_wrong_variable_is_named(env_file, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        load_settings(env_file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.env is not there"):
        load_settings(tmp_path / "nowhere.env")


def test_settings_are_frozen_and_keep_secrets_out_of_their_text(env_file):
    settings = Settings(_env_file=env_file, s3={"secret_access_key": "hush"})
    assert "hush" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.s3.region = "elsewhere"  # type: ignore[misc]
