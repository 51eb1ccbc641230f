"""What travels to a job on another machine, and what never may: secrets, whatever their names are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.deploy.job_variables import secret_in, variables_for_jobs
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import load_settings


@pytest.fixture
def no_file(tmp_path: Path) -> Path:
    """An empty settings file: a stack that was started in this clone must not be found."""
    file = tmp_path / "empty.env"
    file.touch()
    return file


def test_jobs_elsewhere_get_the_same_settings_as_variables(no_file, monkeypatch):
    given = {
        "TELEMETRY_LAKE_S3__LAKE_BUCKET": "our-lake",
        "TELEMETRY_LAKE_CATALOG__PROPERTIES": '{"type": "glue"}',
        "TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES": '{"type": "glue", "client.credentials-provider": "x.Y"}',
        "TELEMETRY_LAKE_DRAIN__BATCH_MAX_BYTES": "1000",
        "TELEMETRY_LAKE_SPARK__WORKERS": "7",
        "TELEMETRY_LAKE_INGEST__PORT": "8001",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    variables = variables_for_jobs(load_settings(no_file))
    assert variables == {
        name: given[name] for name in given if "SPARK__" not in name and "INGEST" not in name
    }
    settings = load_settings(no_file)
    for name in given:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    there = load_settings(no_file)
    assert (there.s3, there.catalog, there.drain) == (settings.s3, settings.catalog, settings.drain)


AWS_KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYhu"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2ln"


@pytest.mark.parametrize(
    "variable, value",
    [
        ("TELEMETRY_LAKE_S3__SECRET_ACCESS_KEY", "hush"),
        ("TELEMETRY_LAKE_S3__ACCESS_KEY_ID", "hush"),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"credential": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"s3.secret-access-key": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"uri": "postgresql+psycopg2://lake:hush@db/catalog"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"uri": "https://hush@catalog.example/"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"uri": "jdbc:postgresql://db/c?user=a&password=hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"uri": "https://catalog.example/?api_key=hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"header.Authorization": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"header.X-Custom": "Bearer hush"}'),
        ("TELEMETRY_LAKE_CATALOG__PROPERTIES", '{"header.X-Api-Key": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"jdbc.passwd": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"s3.session-token": "hush"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"client.id": "' + AWS_KEY_ID + '"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"client.id": "' + AWS_SECRET + '"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"client.id": "' + JWT + '"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"x": "-----BEGIN RSA PRIVATE KEY-----"}'),
        ("TELEMETRY_LAKE_CATALOG__SPARK_PROPERTIES", '{"options": "user=a;secret=hush"}'),
        (
            "TELEMETRY_LAKE_CONVERSION__HISTOGRAM_DEFINITIONS_UPSTREAM_URL",
            "https://lake:hush@hg.example/{repository}/{revision}",
        ),
        ("TELEMETRY_LAKE_BACKFILL__SOURCE", '{"s3": {"secret_access_key": "hush"}}'),
    ],
)
def test_no_secret_goes_into_the_parameters_of_a_job(no_file, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as refused:
        variables_for_jobs(load_settings(no_file))
    for secret in ("hush", AWS_KEY_ID, AWS_SECRET, JWT):
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "name, value",
    [
        ("client.credentials-provider", "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"),
        ("oauth2-server-uri", "https://catalog.example/v1/oauth/tokens"),
        ("token-refresh-enabled", "true"),
        ("warehouse", "s3://warehouse/live@2026/"),
        ("uri", "https://glue.us-east-1.amazonaws.com/iceberg"),
        ("captured_headers", ["User-Agent", "X-Debug-ID"]),
        ("keyspace", "lake"),
        ("secret_access_key", ""),
        ("revision", "0123456789abcdef0123456789abcdef01234567"),
    ],
)
def test_what_merely_sounds_like_a_secret_is_sent(name, value):
    assert secret_in(name, value) is None


@given(
    user=st.text("abcXYZ019._~-%", min_size=1, max_size=20),
    password=st.text("abcXYZ019._~-%!$&'()*+,;=:@", max_size=20),
    scheme=st.sampled_from(["https", "postgresql+psycopg2", "s3", "jdbc:mysql"]),
    before=st.sampled_from(["", "see ", '{"uri": "', "a,b|"]),
)
def test_a_name_in_a_url_is_found_wherever_it_stands(user, password, scheme, before):
    assert secret_in("anything", f"{before}{scheme}://{user}:{password}@host.example/path")


def test_keys_of_roles_never_travel(no_file, monkeypatch):
    monkeypatch.setenv(
        "TELEMETRY_LAKE_ROLE_KEYS", '{"jobs": {"access_key_id": "a", "secret_access_key": "hush"}}'
    )
    monkeypatch.setenv("TELEMETRY_LAKE_S3__RAW_BUCKET", "r")
    assert variables_for_jobs(load_settings(no_file)) == {"TELEMETRY_LAKE_S3__RAW_BUCKET": "r"}
