"""The package for EMR is the same on every machine, is uploaded once, and is enough to start a job."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import grimp
import pyspark
import pytest

from jobs.spark_session import JARS_DIRECTORY, SHORT_JOB_JAVA_OPTIONS
from lake_testing.distributions import distributions_by_module, owners_of, required_names
from lake_testing.sample_rows import sample_rows
from lake_testing.stack import Lake
from telemetry_lake.deploy.python_environment import environment_archive
from telemetry_lake.deploy.spark_package import core_archive, missing_artifacts, package_of
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import load_settings
from telemetry_lake.storage.object_keys import artifact_key
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

MONDAY = date(2026, 11, 23)
COMMAND_DEADLINE_SECONDS = 280
STABLE_PINGS = "stable.pings"
SCRIPT = """
fields = ("app_name",)

def map(key, dimensions, value, context):
    context.write(value["app_name"], 1)

def reduce(key, values, context):
    context.write(key, sum(values))
"""
# EMR brings them.
OF_SPARK = {"py4j", "pyspark"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the packaged folders, with files beside them that are not packaged."""
    copy = tmp_path / "clone"
    for folder in ("jobs", "schemas", "sql", "telemetry_lake", "java"):
        shutil.copytree(
            PROJECT_ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.jar")
        )
    shutil.copy(PROJECT_ROOT / "requirements-emr.txt", copy)
    (copy / "jobs" / "__pycache__").mkdir()
    (copy / "jobs" / "__pycache__" / "launch.cpython-311.pyc").write_bytes(b"compiled")
    (copy / "telemetry_lake" / "notes.txt").write_text("not code")
    return copy


def test_the_core_has_the_same_bytes_in_every_clone(clone):
    os.utime(clone / "jobs" / "launch.py", (0, 0))
    assert core_archive(clone) == core_archive()


def test_the_core_holds_code_and_data_files_and_nothing_else():
    with zipfile.ZipFile(io.BytesIO(core_archive())) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"jobs", "telemetry_lake", "sql", "schemas"}
    assert {"sql/live/pings/schema.yaml", "sql/derived/ping_counts/query.sql"} <= set(names)
    assert {"schemas/dimensions.json", "jobs/launch.py"} <= set(names)
    assert {Path(name).suffix for name in names} == {".py", ".sql", ".yaml", ".json"}


def test_other_code_has_other_names_and_other_requirements_another_environment(clone):
    before = package_of(load_settings(), clone)
    (clone / "sql" / "derived" / "ping_counts" / "query.sql").write_text("SELECT 1")
    other_core = package_of(load_settings(), clone)
    assert other_core.core.key != before.core.key
    assert other_core.environment == before.environment
    (clone / "requirements-emr.txt").write_text("pyarrow==1.0\n")
    assert package_of(load_settings(), clone).environment.key != before.environment.key


def test_a_clone_without_a_lock_is_told_so(clone):
    (clone / "requirements-emr.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"requirements-emr\.txt is not there"):
        package_of(load_settings(), clone)


@pytest.mark.parametrize("digest", ["", "../" * 22, "A" * 64, "0" * 63])
def test_an_artifact_has_a_hash_in_its_key(digest):
    with pytest.raises(ValueError, match="SHA-256"):
        artifact_key(digest, "core.zip")


def emr_package(lake: Lake, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "build_tools.emr_package", *options],
        cwd=PROJECT_ROOT,
        env={**os.environ, **lake.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_DEADLINE_SECONDS,
    )


def test_the_command_uploads_what_is_missing_once(lake):
    store, bucket = ObjectStore(lake.settings.s3), lake.settings.s3.lake_bucket
    package = package_of(lake.settings)
    # Making it takes minutes and the network: see test_jobs_start_in_the_packaged_environment.
    store.put_if_absent(bucket, package.environment.key, b"made by another clone")

    dry_run = emr_package(lake, "--dry-run")
    first, second = emr_package(lake), emr_package(lake)

    assert dry_run.returncode == first.returncode == second.returncode == 0, first.stderr
    uris = [f"s3://{bucket}/{artifact.key}" for artifact in package]
    assert first.stdout.splitlines() == second.stdout.splitlines() == uris
    missing = [line.removesuffix(" (missing)") for line in dry_run.stdout.splitlines() if "missing" in line]
    assert missing == [uri for uri in uris if "environment" not in uri]
    assert "4 of 5 artifacts were missing" in first.stderr
    assert "0 of 5 artifacts were missing" in second.stderr
    assert not missing_artifacts(store, bucket, package)
    assert store.get(bucket, package.core.key) == core_archive()
    assert [Path(jar.key).name.partition("-1.")[0] for jar in package.jars] == [
        "iceberg-aws-bundle",
        "iceberg-spark-runtime-4.1_2.13",
    ]


def test_every_package_that_a_job_reaches_is_in_the_environment():
    graph = grimp.build_graph(
        "telemetry_lake",
        "jobs",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    reached = graph.find_upstream_modules("jobs", as_package=True)
    assert "telemetry_lake.settings" in reached
    owners = distributions_by_module()
    needed = {
        min(owners_of(module, owners))
        for module in reached
        if graph.is_module_squashed(module) and module not in sys.stdlib_module_names
    }
    missing = needed - OF_SPARK - required_names(PROJECT_ROOT / "requirements-emr.txt")
    assert not missing, "add these to requirements-emr.in and run `make lock`"


def test_the_environment_has_the_versions_that_everything_was_tested_with():
    def versions(file: str) -> dict[str, str]:
        lines = (PROJECT_ROOT / file).read_text().splitlines()
        pins = (line.split(" ")[0].partition("==") for line in lines if "==" in line and line[0].isalnum())
        return {name: version for name, _, version in pins}

    tested = versions("requirements.txt")
    on_emr = versions("requirements-emr.txt")
    assert on_emr
    assert on_emr == {name: tested[name] for name in on_emr}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder outside of the clone with the artifacts of the core, as EMR's machines have them."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "core.zip").write_bytes(core_archive())
    shutil.copy(PROJECT_ROOT / "jobs" / "launch.py", tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path)


def run_script_on(elsewhere: Path, lake: Lake, *, python: Path) -> None:
    """Run a map-reduce script, whose `map` runs in Python workers of Spark, from the artifacts alone."""
    catalog = load_lake_catalog(lake.settings)
    create_tables(catalog)
    catalog.load_table(STABLE_PINGS).append(
        sample_rows(STABLE_PINGS, [{"submission_date": MONDAY, "app_name": name} for name in ("a", "b", "a")])
    )
    (elsewhere / "count.py").write_text(SCRIPT)
    # EMR jobs get these as variables; credentials come from their role.
    variables = {name: value for name, value in lake.environment.items() if name != "TELEMETRY_LAKE_ENV_FILE"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TELEMETRY_LAKE_") and name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [
            Path(sys.executable).with_name("spark-submit"),
            *("--driver-class-path", f"{JARS_DIRECTORY}/*"),
            *("--driver-java-options", " ".join(SHORT_JOB_JAVA_OPTIONS)),
            *("--py-files", "core.zip", "launch.py", "jobs.mapreduce"),
            *("--script", "count.py", "--output", "counts.csv", "--format", "csv"),
        ],
        cwd=elsewhere,
        env={
            **inherited,
            **variables,
            # Spark is EMR's own there; the environment has none.
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "PYSPARK_PYTHON": str(python),
            "TMPDIR": str(elsewhere / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere / "counts.csv").read_text().splitlines() == ["a,2", "b,1"]
    # Its data files came out of the zip, for this user alone.
    (private,) = (elsewhere / "tmp").glob("telemetry-lake-*")
    assert private.stat().st_mode & 0o777 == 0o700
    (root,) = private.iterdir()
    assert (root / "sql" / "stable" / "pings" / "metadata.yaml").is_file()
    assert not (root / "jobs").exists()


@pytest.mark.slow
def test_a_job_starts_from_the_core_alone(elsewhere, lake):
    run_script_on(elsewhere, lake, python=Path(sys.executable))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    "TELEMETRY_LAKE_TEST_EMR_ENVIRONMENT" not in os.environ,
    reason="fetches 50 packages: set TELEMETRY_LAKE_TEST_EMR_ENVIRONMENT=1 to run it",
)
def test_jobs_start_in_the_packaged_environment(elsewhere, lake):
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    archive = environment_archive(str(interpreter), PROJECT_ROOT / "requirements-emr.txt")
    (elsewhere / "environment.tar.gz").write_bytes(archive)
    shutil.unpack_archive(elsewhere / "environment.tar.gz", elsewhere / "environment", filter="tar")
    python = elsewhere / "environment" / "bin" / "python"
    everything = "import boto3, numba, numpy, orjson, pandas, pyarrow, pyiceberg, sys; print(sys.prefix)"
    shown = subprocess.run([python, "-c", everything], capture_output=True, text=True, check=True, env={})
    assert Path(shown.stdout.strip()) == elsewhere / "environment"
    run_script_on(elsewhere, lake, python=python)


@pytest.fixture
def no_file(tmp_path: Path) -> Path:
    """An empty settings file: a stack that was started in this clone must not be found."""
    file = tmp_path / "empty.env"
    file.touch()
    return file


@pytest.mark.parametrize(
    "run_on, missing",
    [
        ("emr-serverless", "APPLICATION_ID"),
        ("emr-serverless", "SCRIPTS_EXECUTION_ROLE_ARN"),
        ("emr-cluster", "LOG_URI"),
        ("emr-cluster", "SCRIPTS_INSTANCE_PROFILE"),
    ],
)
def test_settings_that_emr_needs_are_asked_for(no_file, monkeypatch, run_on, missing):
    monkeypatch.setenv("TELEMETRY_LAKE_SPARK__RUN_ON", run_on)
    with pytest.raises(ConfigurationError, match=rf"RUN_ON={run_on} needs .*TELEMETRY_LAKE_SPARK__{missing}"):
        load_settings(no_file)
