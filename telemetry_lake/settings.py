"""Every setting of the lake, in one frozen typed object, read from the environment in one place.

A setting is given as `TELEMETRY_LAKE_<GROUP>__<NAME>`, for example
`TELEMETRY_LAKE_S3__ENDPOINT_URL=http://127.0.0.1:8333`. The same class serves the local stack and AWS:
only endpoints and credentials differ, and on AWS both are left out, so that boto3 finds its own.

`load_settings` is called at entry points only; everything else receives the object.
"""

import json
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import project_root

PROJECT_ROOT: Final = project_root()
_PREFIX: Final = "TELEMETRY_LAKE_"
_SECRET_ENDINGS: Final = ("access-key", "access-key-id", "credential", "password", "secret", "token")
"""How the names of settings and of catalog properties end that nobody else may see."""
ENV_FILE_VARIABLE: Final = f"{_PREFIX}ENV_FILE"
LOCAL_ENV_FILE: Final = PROJECT_ROOT / ".local" / "telemetry_lake.env"
"""Where the local stack leaves its endpoints and credentials, so that every command finds them."""

KIB: Final = 1024
MIB: Final = 1024 * KIB

Port = Annotated[int, Field(ge=1, le=65_535)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AwsEndpoint(_Group):
    """How one AWS service is reached. Without values, boto3's own chain decides."""

    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    connect_timeout_seconds: PositiveFloat = 5
    read_timeout_seconds: PositiveFloat = 60
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 5


class S3Settings(AwsEndpoint):
    """The object store, and the two buckets that belong to us (tables are the catalog's affair)."""

    raw_bucket: str = "raw"
    lake_bucket: str = "lake"


class SqsSettings(AwsEndpoint):
    """The queue of index messages and its dead letters."""

    index_queue_name: str = "raw-index"
    dead_letter_queue_name: str = "raw-index-dlq"
    visibility_timeout_seconds: Annotated[int, Field(ge=5, le=43_200)] = 300
    max_receive_count: PositiveInt = 10
    """A message received more often than this is moved to the dead-letter queue, with its reason."""


class CatalogSettings(_Group):
    """The Iceberg catalog: any that pyiceberg and Spark both know, by their properties."""

    name: str = "lake"
    properties: dict[str, str] = {}
    """Properties of pyiceberg's `load_catalog`, as JSON: `type`, `uri`, `warehouse`, `credential`, …"""
    spark_properties: dict[str, str] = {}
    """Properties of Spark's catalog of the same name, without `spark.sql.catalog.<name>.`, as JSON."""


class IngestSettings(_Group):
    """One ingest node: its HTTP edge, its spool and its shipper. See docs/ingest_spec.md."""

    host: str = "127.0.0.1"
    port: Port = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "node-1"
    """The node's name in object keys; unique among the nodes, and the same after a restart."""
    spool_directory: Path = PROJECT_ROOT / ".local" / "spool"
    spool_max_bytes: PositiveInt = 2_048 * MIB
    """Above this much waiting in the spool a ping is answered 507."""
    spool_min_free_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Below this much free space on the spool's disk a ping is answered 507."""
    segment_max_bytes: Annotated[int, Field(ge=KIB, le=256 * MIB)] = 64 * MIB
    segment_max_age_seconds: PositiveFloat = 60
    max_body_bytes: Annotated[int, Field(gt=0, le=10 * MIB)] = 1 * MIB
    max_path_bytes: PositiveInt = 4 * KIB
    max_captured_field_bytes: PositiveInt = 1 * KIB
    """The longest captured header, path or query string."""
    head_timeout_seconds: PositiveFloat = 10
    body_timeout_seconds: PositiveFloat = 30
    keep_alive_seconds: PositiveFloat = 75
    """How long an idle connection stays open; longer than a balancer keeps one, which never meets a close."""
    commit_max_seconds: PositiveFloat = 10
    """A ping that is not durable after this long is answered 503."""
    stop_answer_seconds: PositiveFloat = 5
    """How long a stopping node waits for requests that have begun."""
    stop_ship_seconds: PositiveFloat = 10
    """How long a stopping node goes on shipping; what is left waits for its next start."""
    answer_too_large_with_202: bool = False
    """For fleets that retry on 4xx: drop a ping that is too large, and let the client forget it."""
    captured_headers: tuple[str, ...] = (
        "Content-Length",
        "Content-Encoding",
        "Content-Type",
        "Date",
        "DNT",
        "User-Agent",
        "X-Forwarded-For",
        "X-Pingsender-Version",
        "X-Debug-ID",
        "X-Source-Tags",
        "X-Telemetry-Agent",
        "X-Foxsec-IP-Reputation",
        "X-LB-Tags",
    )


class ConversionSettings(_Group):
    """How a ping becomes a row."""

    document_max_bytes: PositiveInt = 8 * MIB
    """The largest document, decompressed; anything larger is rejected before it fills the memory."""
    schemas_directory: Path = PROJECT_ROOT / "schemas"
    dimensions_file: Path = PROJECT_ROOT / "schemas" / "dimensions.json"
    accept_unknown_types_of: frozenset[str] = frozenset()
    """Namespaces whose document types need no schema."""
    invented_types_max_count: PositiveInt = 300
    """How many document types that no schema names the pings of one raw object may have: each is a partition,
    and a file of its own."""
    histogram_definitions_directory: Path = PROJECT_ROOT / ".local" / "histogram_definitions"
    """`<repository>/<revision>/Histograms.json`; what is fetched from elsewhere is kept here."""
    histogram_definitions_s3_prefix: Annotated[str, Field(pattern=r"^s3://[^/]+/")] | None = None
    """A prefix with the same layout, `s3://<bucket>/<prefix>/`, asked when the directory has no such file."""
    histogram_definitions_upstream_url: str | None = None
    """Asked last: a URL with `{repository}` and `{revision}`, for Mozilla
    `https://hg.mozilla.org/{repository}/raw-file/{revision}/toolkit/components/telemetry/Histograms.json`."""
    histogram_definitions_timeout_seconds: PositiveFloat = 10
    histogram_definitions_retry_seconds: PositiveFloat = 300
    """How long a revision that was not found, or an upstream that did not answer, is not asked again."""
    country_database: Path | None = None
    """A MaxMind-format database; without one, every country is `??`."""
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """How many addresses at the end of X-Forwarded-For are our own proxies'."""


class DrainSettings(_Group):
    """How the queue is cut into batches, and what stops a batch."""

    batch_max_bytes: PositiveInt = 512 * MIB
    batch_max_raw_objects: Annotated[int, Field(ge=1, le=1_000)] = 64
    part_max_bytes: PositiveInt = 128 * MIB
    """How much of a batch one task converts, in bytes of raw objects; one raw object may be larger."""
    receive_wait_seconds: Annotated[int, Field(ge=0, le=20)] = 2
    commit_max_attempts: PositiveInt = 20
    conversion_max_attempts: PositiveInt = 5
    """A raw object whose conversion was begun this often without an end is set aside."""
    reconcile_grace_seconds: PositiveFloat = 900
    """A raw object younger than this is not missed yet: its index message may be on its way."""
    reconcile_max_age_days: PositiveInt = 14
    """How far back the reconciler looks; as long as SQS can keep a message."""


class SourceFormat(StrEnum):
    """What the files of the historic archive are."""

    SEQUENCE_FILE = "sequence_file"
    TEXT_LINES = "text_lines"


def _finds_a_date(pattern: str) -> str:
    try:
        missing = {"year", "month", "day"} - re.compile(pattern).groupindex.keys()
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if missing:
        raise ValueError(f"the pattern has no group named {' and none named '.join(sorted(missing))}")
    return pattern


class SourceSettings(_Group):
    """The historic archive that the backfill reads. See docs/backfill_source.md."""

    root_url: Annotated[str, Field(pattern=r"^(webhdfs://[^/]+:\d+|s3://[^/]+|file://)(/|$)")] | None = None
    """`webhdfs://<name node>:<its HTTP port>/<path>`, `s3://<bucket>/<prefix>` or `file:///<path>`."""
    directories: Annotated[tuple[str, ...], Field(min_length=1)] = ("",)
    """What is copied of it: directories relative to the root; all of it by default."""
    format: SourceFormat = SourceFormat.SEQUENCE_FILE
    date_pattern: Annotated[str, AfterValidator(_finds_a_date)] = (
        r"(?:^|/)(?P<year>\d{4})[-/]?(?P<month>\d\d)[-/]?(?P<day>\d\d)(?=/)"
    )
    """A regular expression with the groups year, month and day, searched in a file's path below the root."""
    record_max_bytes: PositiveInt = 16 * MIB
    """The largest id and document, decompressed: above `document_max_bytes`, which makes rejected rows."""
    block_max_bytes: PositiveInt = 256 * MIB
    """The largest block of a block-compressed SequenceFile, decompressed: one is held in memory."""
    file_checksums: bool = True
    """Whether HDFS is asked for each file's checksum, when it is listed and before and after it is read."""
    hdfs_user: str | None = None
    """The user name that WebHDFS is told."""
    connect_timeout_seconds: PositiveFloat = 10
    read_timeout_seconds: PositiveFloat = 90
    """A data node tries every replica, with pauses, before it gives up and says so."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """How often in a row a read may fail without one byte of progress."""
    retry_wait_seconds: PositiveFloat = 0.5
    """The pause after a first failed attempt; it doubles with each one that follows."""
    s3: AwsEndpoint = AwsEndpoint()
    """The S3 that an `s3://` root is in; it may be another one than the lake's."""


class BackfillSettings(_Group):
    """The one-time copy of the historic archive into the lake."""

    source: SourceSettings = SourceSettings()


class RunOn(StrEnum):
    """Where a Spark job runs."""

    LOCAL = "local"
    """On the Airflow worker's machine, as a process."""
    EMR_SERVERLESS = "emr-serverless"
    """In an EMR Serverless application that is there already."""
    EMR_CLUSTER = "emr-cluster"
    """On an EMR cluster that is made for the job and ends with it."""


class SparkSettings(_Group):
    """Where the Spark jobs of the DAGs run, and on how much. See docs/emr.md."""

    run_on: RunOn = RunOn.LOCAL
    release_label: str = "emr-spark-8.1.0"
    """The release of new EMR clusters; an EMR Serverless application has its own."""
    execution_role_arn: str | None = None
    """EMR Serverless: the role that a job has."""
    application_id: Annotated[str, Field(pattern=r"^[0-9a-z]{1,64}$")] | None = None
    """EMR Serverless: the application."""
    service_role: str = "EMR_DefaultRole"
    """EMR clusters: what EMR itself may do."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """EMR clusters: what their machines, and so the jobs, may do."""
    subnet_id: str | None = None
    """EMR clusters: where their machines are; without one, EMR chooses in the default VPC."""
    log_uri: Annotated[str, Field(pattern=r"^s3://[^/]+/")] | None = None
    """Where EMR leaves the logs of jobs, `s3://<bucket>/<prefix>/`."""
    primary_instance_type: str = "m6i.xlarge"
    worker_instance_type: str = "m6i.2xlarge"
    """Types of x86-64 machines: the packaged dependencies are compiled for these."""
    workers: PositiveInt = 2
    """The machines of a cluster besides the primary, or the most executors of a job on EMR Serverless."""
    driver_cores: PositiveInt = 2
    driver_memory_gib: PositiveInt = 6
    executor_cores: PositiveInt = 4
    executor_memory_gib: PositiveInt = 14
    """EMR Serverless only: a cluster's executors are as large as its machines allow."""
    python: str = "/usr/bin/python3.11"
    """The interpreter on EMR's machines that the packaged dependencies are for."""
    start_max_seconds: PositiveInt = 1_800
    """How long EMR may take to make a cluster or start an application, besides the job's own time limit."""
    end_max_seconds: PositiveInt = 900
    """How much longer than its limit a job is waited for: EMR has to end it, and to take a cluster down."""
    poll_seconds: PositiveInt = 30
    """How often EMR is asked whether a job has ended."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needed = {
            RunOn.LOCAL: (),
            RunOn.EMR_SERVERLESS: ("application_id", "execution_role_arn", "log_uri"),
            RunOn.EMR_CLUSTER: ("log_uri",),
        }[self.run_on]
        if missing := [name.upper() for name in needed if getattr(self, name) is None]:
            raise ValueError(
                f"RUN_ON={self.run_on} needs "
                + ", ".join(f"TELEMETRY_LAKE_SPARK__{name}" for name in missing)
            )
        return self


class Settings(BaseSettings):
    """Everything that differs between two places where the lake runs."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    s3: S3Settings = S3Settings()
    sqs: SqsSettings = SqsSettings()
    catalog: CatalogSettings = CatalogSettings()
    ingest: IngestSettings = IngestSettings()
    conversion: ConversionSettings = ConversionSettings()
    drain: DrainSettings = DrainSettings()
    spark: SparkSettings = SparkSettings()
    backfill: BackfillSettings = BackfillSettings()


def load_settings(env_file: Path | None = None) -> Settings:
    """The settings of this process.

    Variables of the environment win over those of `env_file`; without `env_file`, the file named by
    `TELEMETRY_LAKE_ENV_FILE` is read, else the one that the local stack left, if there is one.

    Raises ConfigurationError, which names the variable that is wrong.
    """
    named = env_file or (Path(value) if (value := os.environ.get(ENV_FILE_VARIABLE)) else None)
    if named is not None and not named.is_file():
        raise ConfigurationError(
            f"the settings file {named} is not there: start the stack, or unset {ENV_FILE_VARIABLE}"
        )
    try:
        return Settings(_env_file=named or LOCAL_ENV_FILE)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = _PREFIX + "__".join(str(part).upper() for part in first["loc"])
        raise ConfigurationError(f"{variable}: {first['msg']}") from error


def variables_for_jobs(settings: Settings) -> dict[str, str]:
    """What a job on another machine needs to have the same settings, as variables of its environment.

    Only what differs from the defaults, and nothing that concerns ingest, the queue or where jobs run.
    Raises ConfigurationError when there is a key or a password among it: the parameters of an EMR job can be
    read by whoever may look at it, and its role gives it access.
    """
    changed = settings.model_dump(mode="json", exclude_defaults=True, exclude={"ingest", "sqs", "spark"})
    variables = {}
    for group, values in changed.items():
        for name, value in values.items():
            variable = f"{_PREFIX}{group}__{name}".upper()
            if secret := _secret_in(name, value):
                raise ConfigurationError(
                    f"{variable} holds a secret ({secret}), which would be shown in the parameters of an EMR "
                    "job: leave it out, and give the job's role access instead"
                )
            variables[variable] = value if isinstance(value, str) else json.dumps(value)
    return variables


def _secret_in(name: str, value: object) -> str | None:
    """The name of the first thing in `value` that has the name of a secret and is not empty."""
    if isinstance(value, Mapping):
        return next((found for key, item in value.items() if (found := _secret_in(str(key), item))), None)
    return name if value and name.lower().replace("_", "-").endswith(_SECRET_ENDINGS) else None
