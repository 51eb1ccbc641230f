"""Every setting of the lake, in one frozen typed object, read from the environment in one place.

A setting is given as `TELEMETRY_LAKE_<GROUP>__<NAME>`, for example
`TELEMETRY_LAKE_S3__ENDPOINT_URL=http://127.0.0.1:8333`. The same class serves the local stack and AWS:
only endpoints and credentials differ, and on AWS both are left out, so that boto3 finds its own.

`load_settings` is called at entry points only; everything else receives the object.
"""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.units import KIB, MIB

PREFIX: Final = "TELEMETRY_LAKE_"
"""How the names of all variables begin that give settings."""
ENV_FILE_VARIABLE: Final = f"{PREFIX}ENV_FILE"
LOCAL_ENV_FILE: Final = PROJECT_ROOT / ".local" / "telemetry_lake.env"
"""Where the local stack leaves its endpoints and credentials, so that every command finds them."""

Port = Annotated[int, Field(ge=1, le=65_535)]
Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[a-z0-9.:_\[\]-]+)$")]
"""An origin as browsers send it, without capitals and without a path, or `*` for every one."""
MailAddress = Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$")]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Role(StrEnum):
    """As what a process acts. What each role may do is in `telemetry_lake.deploy.roles`."""

    NODE = "node"
    """An ingest node, which strangers can reach."""
    DRAIN = "drain"
    """The drain, the reconciler, and operators who replay."""
    DOORBELL = "doorbell"
    """Airflow's triggerer, which asks the queue for its length."""
    JOBS = "jobs"
    """Spark jobs that make tables of other tables, and the backfill."""
    ANALYST = "analyst"
    """SQL of analysts, the scripts that they start by hand, and what prepares the runs of the forms."""
    SCRIPT = "script"
    """The code of an analyst that is run by the lake: what it may read. See docs/sandbox.md."""
    WEB = "web"
    """The pages that Airflow's api-server shows."""
    ANALYSES = "analyses"
    """The analysis service: its pages and command, and the tasks that prepare and settle its runs."""
    ANOMALIES = "anomalies"
    """What looks for anomalies: reads tables and cubes, and writes down what it found."""
    MAINTENANCE = "maintenance"
    """What creates, compacts and cleans tables."""
    MONITOR = "monitor"
    """The exporter of metrics, which looks and changes nothing."""


class AccessKey(_Group):
    """A key of S3."""

    access_key_id: Annotated[str, Field(min_length=1)]
    secret_access_key: SecretStr


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
    """The object store, and the two buckets that belong to us (the catalog knows where tables are)."""

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
    takes_s3_key: bool = False
    """Whether the catalog takes the access key of S3 as OAuth's client credential, as SeaweedFS does."""


class IngestSettings(_Group):
    """One ingest node: its HTTP edge, its spool and its shipper. See docs/ingest_spec.md."""

    host: str = "127.0.0.1"
    port: Port = 8000
    private_host: str = "127.0.0.1"
    private_port: Port = 8010
    """Where `/metrics` and `/__heartbeat__` are: for operators only, so not to be reached from outside."""
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
    connections_max: PositiveInt = 10_000
    """Of one worker; one more is answered 503."""
    connections_per_address_max: PositiveInt = 1_000
    """Of one worker, from one IPv4 address or IPv6 /64. Behind proxies of our own, these have to ask."""
    memory_max_bytes: PositiveInt = 256 * MIB
    """What requests may hold of a worker's memory: announced bodies, heads, pings that wait to be durable."""
    memory_per_address_max_bytes: PositiveInt = 32 * MIB
    """What those of one client may hold of it; behind proxies of our own, by X-Forwarded-For."""
    commit_max_seconds: PositiveFloat = 10
    """A ping that is not durable after this long is answered 503."""
    stop_answer_seconds: PositiveFloat = 5
    """How long a stopping node waits for requests that have begun."""
    stop_ship_seconds: PositiveFloat = 10
    """How long a stopping node goes on shipping; what is left waits for its next start."""
    answer_too_large_with_202: bool = False
    """For fleets that retry on 4xx: drop a ping that is too large, and let the client forget it."""
    cors_allowed_origins: tuple[Origin, ...] = ("*",)
    """The web pages that may read what their pings are answered: origins such as `https://example.org`, or
    `*` for all. With none, no page of another origin can send more than a beacon."""
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

    @model_validator(mode="after")
    def _holds_the_largest_ping(self) -> Self:
        if not self.max_body_bytes < self.memory_per_address_max_bytes <= self.memory_max_bytes:
            raise ValueError(
                "MAX_BODY_BYTES must be below MEMORY_PER_ADDRESS_MAX_BYTES, and that at most "
                "MEMORY_MAX_BYTES: otherwise the largest ping could never be taken"
            )
        return self


class ConversionSettings(_Group):
    """How a ping becomes a row."""

    document_max_bytes: PositiveInt = 8 * MIB
    """The largest document, decompressed; anything larger is rejected before it fills the memory."""
    document_max_expansion: Annotated[int, Field(ge=1)] = 64
    """How many times as large as its body a document of more than 1 MiB may be: of honest ones, about ten."""
    document_max_values: PositiveInt = 250_000
    """The most values in a document, by the commas and opening brackets in its text; ordinary histograms do
    not count."""
    isolated_memory_max_bytes: Annotated[int, Field(ge=16 * MIB)] = 1_024 * MIB
    """How much memory a record batch of pings, or one of them, may take where it is converted in a process of
    its own, because it may have ended another."""
    isolated_cpu_max_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """How much CPU time it may take there."""
    schemas_directory: Path = PROJECT_ROOT / "schemas"
    further_schemas_directories: tuple[Path, ...] = ()
    """Folders with schemas of others, such as `schemas/` of a checkout of mozilla-pipeline-schemas. A type
    that one of them knows is validated by it; of two, the first one counts."""
    dimensions_file: Path = PROJECT_ROOT / "schemas" / "dimensions.json"
    broken_client_ids_file: Path = PROJECT_ROOT / "schemas" / "broken_client_ids.txt"
    """Client ids that many installations share, one a line: pings that have one have no client."""
    accept_unknown_types_of: frozenset[str] = frozenset()
    """Namespaces whose document types need no schema."""
    glean_namespaces: frozenset[str] = frozenset()
    """Namespaces of applications that use Glean: each of their pings is validated as one, whatever its name,
    also where `schemas/any/any/any.1.schema.json` has been deleted."""
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
    """How many proxies of our own a ping passes, one after the other. Each appends the address that it sees
    to X-Forwarded-For. What stands before those addresses, and without a proxy the whole header, is what a
    client says of itself, and is not believed. Ingest nodes share their memory out by the same address."""


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
    complete_within_hours: PositiveFloat = 24
    """A raw object that has not come to its end this long after it was shipped needs a person."""


class HousekeepingSettings(_Group):
    """How many days is kept what nothing but people look at. See docs/housekeeping.md."""

    airflow_history_days: Annotated[int, Field(ge=2, le=3_650)] = 14
    """Airflow's runs, their XComs and events, and its log files; the longest task of a DAG takes hours."""
    audits_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    """The entries of the page Audits. What a batch's gates found stays with the batch."""
    replays_days: Annotated[int, Field(ge=1, le=3_650)] = 90
    """What is kept below `replays/` of a replay that is finished."""


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
    """The user name that is sent to WebHDFS."""
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
    local_niceness: Annotated[int, Field(ge=0, le=19)] = 0
    """How far jobs on the worker's machine give way to its other programs, as `nice` counts: the drain
    promises how fresh the tables are, and the jobs do not."""
    release_label: str = "emr-spark-8.1.0"
    """The release of new EMR clusters; an EMR Serverless application has its own."""
    execution_role_arn: str | None = None
    """EMR Serverless: the role that a job has."""
    application_id: Annotated[str, Field(pattern=r"^[0-9a-z]{1,64}$")] | None = None
    """EMR Serverless: the application."""
    scripts_execution_role_arn: str | None = None
    """EMR Serverless: the role of a job with the code of an analyst, narrowed to the files of its run."""
    scripts_application_id: Annotated[str, Field(pattern=r"^[0-9a-z]{1,64}$")] | None = None
    """EMR Serverless: the application of such jobs, with its own limits."""
    service_role: str = "EMR_DefaultRole"
    """EMR clusters: what EMR itself may do."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """EMR clusters: what their machines, and so the jobs, may do."""
    scripts_instance_profile: str | None = None
    """EMR clusters: what those may do that run the code of an analyst."""
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
            RunOn.EMR_SERVERLESS: (
                *("application_id", "execution_role_arn", "log_uri"),
                *("scripts_application_id", "scripts_execution_role_arn"),
            ),
            RunOn.EMR_CLUSTER: ("log_uri", "scripts_instance_profile"),
        }[self.run_on]
        if missing := [name.upper() for name in needed if getattr(self, name) is None]:
            raise ValueError(
                f"RUN_ON={self.run_on} needs "
                + ", ".join(f"TELEMETRY_LAKE_SPARK__{name}" for name in missing)
            )
        return self


class OpenIdSettings(_Group):
    """The provider of OpenID Connect that logs people in. See docs/analyses.md."""

    issuer: Annotated[str, Field(pattern=r"^https?://[^?#\s]+$")]
    """The provider's issuer, to the letter; its configuration is at `/.well-known/openid-configuration`."""
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: SecretStr
    scope: str = "openid email profile"
    name_claim: str = "email"
    """The claim that holds the person's name; it must be one that the provider has verified and never gives
    to another person."""
    groups_claim: str = "groups"
    """The claim that holds the person's groups, a list of strings."""
    admin_group: str | None = None
    """Members of this group see and change everything."""


class WebSettings(_Group):
    """The web pages and their API. See docs/dashboard.md, docs/analyses.md and docs/operations.md."""

    host: str = "127.0.0.1"
    port: Port = 8050
    dashboard: bool = True
    """Whether the section with distributions and evolutions is served."""
    cubes_directory: Path = PROJECT_ROOT / ".local" / "dashboard"
    """Where the copy of the cubes is kept; each server needs its own."""
    cubes_poll_seconds: PositiveFloat = 15
    """How often the server looks for a new version of the cubes."""
    queries_at_once: Annotated[int, Field(ge=1, le=64)] = 4
    query_wait_seconds: PositiveFloat = 5
    """How long a request waits for one of these places before it is answered 503."""
    query_timeout_seconds: PositiveFloat = 10
    query_memory_max_bytes: Annotated[int, Field(ge=64 * MIB)] = 1_024 * MIB
    """What the queries of all readers together may use."""
    minimum_clients: dict[str, Annotated[int, Field(ge=0)]] = {}
    """The fewest client-days that are shown, by channel, as JSON: `{"nightly": 50, "release": 450000}`."""
    minimum_clients_elsewhere: Annotated[int, Field(ge=0)] = 0
    """The same for channels that `minimum_clients` does not name."""
    stale_after_hours: PositiveFloat = 36
    """Data older than this is said in colour."""
    url_max_bytes: Annotated[int, Field(ge=KIB, le=64 * KIB)] = 8 * KIB
    embedding_origins: tuple[str, ...] = ("*",)
    """Which sites may show charts in a frame: origins, or `*` for all."""
    analyses: bool = False
    """Whether the section where analysts submit, schedule and watch map-reduce jobs is served."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")] | None = None
    """Where browsers reach the pages. Needed behind a proxy that ends TLS, and for OpenID Connect: forms are
    taken only from this origin, and cookies are sent over TLS only when it is `https`."""
    users_file: Path = PROJECT_ROOT / ".local" / "analyses" / "users.json"
    """The users who may log in, with hashed passwords; created at the first start. Without effect when
    `openid` is set."""
    openid: OpenIdSettings | None = None
    session_hours: Annotated[int, Field(ge=1, le=24 * 30)] = 12
    """After this time a person has to log in again."""
    token_days: Annotated[int, Field(ge=1, le=366)] = 90
    """How long a token for the API is valid."""
    upload_max_bytes: Annotated[int, Field(ge=KIB, le=256 * MIB)] = 16 * MIB
    """The largest request with the code of a job."""
    operations: bool = False
    """Whether the operations page is served, for who is logged in to the analysis service."""
    operations_poll_seconds: PositiveFloat = 15
    """How often the server reads the exporter and Prometheus, and the page asks the server."""
    exporter_url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")] = "http://127.0.0.1:9108"
    """Where `export-metrics` answers."""
    node_urls: tuple[Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")], ...] = ()
    """Where ingest nodes show their own figures, `http://<private host>:<private port>`, as JSON. Without
    them, the operations page has no figures of edge and spools."""
    prometheus_url: Annotated[str, Field(pattern=r"^https?://[^?#\s]+$")] | None = None
    """Where the server asks Prometheus for alarms and for what was before. Without it, the operations page
    has the figures of the exporter and no alarms."""
    prometheus_public_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Where people find Prometheus' pages; by default `prometheus_url`."""
    alertmanager_public_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Where people find Alertmanager's pages."""


class AnalysisQuotas(_Group):
    """What one person may use of the analysis service."""

    jobs_max: PositiveInt = 50
    open_runs_max: PositiveInt = 4
    """Runs that have not ended."""
    machines_max: PositiveInt = 20
    """The machines of all of these runs together."""
    machine_hours_max: PositiveInt = 500
    """Of all runs that ended in this calendar month, in UTC."""


class AnalysisSettings(_Group):
    """What analysts may give to the form of map-reduce and to the analysis service."""

    scripts_prefix: Annotated[str, Field(pattern=r"^s3://[^/]+/.+/$")] | None = None
    """The one prefix, `s3://<bucket>/<prefix>/`, below which scripts and filters in S3 are; by default
    `analyses/scripts/` in the lake bucket. The worker reads them with its own rights."""
    quotas: AnalysisQuotas = AnalysisQuotas()
    machine_hour_price: Annotated[float, Field(ge=0)] = 0
    """What a machine costs in an hour, in dollars, for the estimate of a run's cost; 0 shows none."""
    service_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")] | None = None
    """Where people find the analysis service: Airflow's page of a run links to its page there."""
    late_after_minutes: PositiveInt = 30
    """A run that was due, or asked for, and has not begun after this long is reported."""
    sandbox_memory_max_bytes: Annotated[int, Field(ge=1_024 * MIB)] = 6_144 * MIB
    """What the processes of one map-reduce job on this machine may use together; Spark's own take 3 GiB."""
    sandbox_disk_max_bytes: Annotated[int, Field(ge=64 * MIB)] = 10_240 * MIB
    """What the files of one such job may take: what Spark sorts on disk, and the output."""


class MailSecurity(StrEnum):
    """How the connection to the mail server is kept private."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"
    """For a relay on the same machine."""


class MailSettings(_Group):
    """The mail server by which people are told what came of their runs. Without `host`, no mail is sent."""

    host: str | None = None
    port: Port = 587
    security: MailSecurity = MailSecurity.STARTTLS
    certificates_file: Path | None = None
    """Certificates that are trusted besides those of the system, for a server with its own authority."""
    user: str | None = None
    password: SecretStr | None = None
    sender: Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")] = "telemetry-lake@localhost"
    timeout_seconds: PositiveFloat = 10
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    retry_wait_seconds: Annotated[float, Field(ge=0)] = 1
    """The pause after a first failed attempt; it doubles with each one that follows."""


class WebhookSettings(_Group):
    """The web hooks that are called when a run has ended."""

    allow_private_addresses: bool = False
    """Whether hooks may be on this machine or in a private network: then analysts can make it call what is
    there."""
    timeout_seconds: PositiveFloat = 10
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    retry_wait_seconds: Annotated[float, Field(ge=0)] = 1


class AlertSettings(_Group):
    """Whom Alertmanager tells of alarms; mails go by the server of `MailSettings`. See docs/monitoring.md."""

    page_mails: tuple[MailAddress, ...] = ()
    """Who is told of what cannot wait until the next working day."""
    ticket_mails: tuple[MailAddress, ...] = ()
    page_webhooks: tuple[SecretStr, ...] = ()
    """Addresses, as JSON; an address may be the secret that opens it."""
    ticket_webhooks: tuple[SecretStr, ...] = ()
    watchdog_webhooks: tuple[SecretStr, ...] = ()
    """Where an outer watcher expects to hear from Alertmanager every minute."""


class AnomalySettings(_Group):
    """What looks for anomalies, and whom it tells. See docs/anomalies.md."""

    mails: tuple[Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")], ...] = ()
    """Who gets a mail when anomalies are opened or closed, as JSON."""
    webhooks: tuple[Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")], ...] = ()
    """The web hooks that are called then, as JSON. They may be in a private network."""
    silenced: tuple[str, ...] = ()
    """Patterns of `<kind> <series>` with `*` and `?`, as JSON: `["volume_* telemetry/crash/*"]`. What fits
    one when it is opened is written down, and nobody is told."""
    lag_seconds: Annotated[int, Field(ge=0, le=900)] = 120
    """How old pings are when they are in the tables for sure; younger ones are not looked at yet."""
    tell_within_hours: PositiveInt = 24
    """How long telling is tried again while the mail server or the hook does not answer."""


class AirflowSettings(_Group):
    """The REST API of Airflow, through which the analysis service starts and cancels runs."""

    url: Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")] | None = None
    user: str | None = None
    password: SecretStr | None = None
    """A user who may trigger the DAG `mapreduce`, change the state of its runs and read its tasks."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")] | None = None
    """Where people find Airflow's pages; by default `url`."""
    timeout_seconds: PositiveFloat = 10
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    retry_wait_seconds: Annotated[float, Field(ge=0)] = 0.3
    """The pause after a first failed attempt; it doubles with each one that follows."""


class PriceSettings(_Group):
    """What things cost, in dollars, for the estimate of a day's cost; by default, list prices of 2026."""

    machines_day: Annotated[float, Field(ge=0)] = 0
    """All machines together, for a day: nodes, balancer, drain, Airflow and its database."""
    storage_gib_month: Annotated[float, Field(ge=0)] = 0.023
    storage_writes_thousand: Annotated[float, Field(ge=0)] = 0.005
    storage_reads_thousand: Annotated[float, Field(ge=0)] = 0.0004
    queue_requests_million: Annotated[float, Field(ge=0)] = 0.40
    traffic_gib: Annotated[float, Field(ge=0)] = 0.008
    """What the balancer asks for each GiB that arrives."""


class MonitoringSettings(_Group):
    """The exporter of metrics. See docs/metrics.md."""

    host: str = "127.0.0.1"
    port: Port = 9108
    state_directory: Path = PROJECT_ROOT / ".local" / "monitoring"
    """Where the exporter keeps its counters, so that they go on after it was started again."""
    raw_kept_days: PositiveInt = 30
    """How long raw objects are kept, for the estimate of what storing them costs."""
    prices: PriceSettings = PriceSettings()
    web_url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")] | None = None
    """Where the web pages are, to see whether they answer; they are not looked at without it."""


class Settings(BaseSettings):
    """Everything that differs between two places where the lake runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    role_keys: dict[Role, AccessKey] = {}
    """An access key for each role in which this process may act, as JSON. Where there are none, as on AWS, a
    process has the rights of the keys or of the role of IAM that it was started with."""
    s3: S3Settings = S3Settings()
    sqs: SqsSettings = SqsSettings()
    catalog: CatalogSettings = CatalogSettings()
    ingest: IngestSettings = IngestSettings()
    conversion: ConversionSettings = ConversionSettings()
    drain: DrainSettings = DrainSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    spark: SparkSettings = SparkSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    airflow: AirflowSettings = AirflowSettings()
    mail: MailSettings = MailSettings()
    webhooks: WebhookSettings = WebhookSettings()
    alerts: AlertSettings = AlertSettings()
    anomalies: AnomalySettings = AnomalySettings()
    backfill: BackfillSettings = BackfillSettings()
    web: WebSettings = WebSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    def acting_as(self, role: Role) -> Self:
        """Return the settings of a process that acts as `role`, without the keys of other roles.

        Raises ConfigurationError when there are keys of roles, and none of this one.
        """
        if not self.role_keys:
            return self
        if (key := self.role_keys.get(role)) is None:
            raise ConfigurationError(
                f"this process may not act as {role}: {PREFIX}ROLE_KEYS has keys of "
                f"{', '.join(sorted(self.role_keys))} only"
            )
        keys = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
        return self.model_copy(
            update={
                "role_keys": {},
                "s3": self.s3.model_copy(update=keys),
                "sqs": self.sqs.model_copy(update=keys),
            }
        )


def load_settings(env_file: Path | None = None, *, role: Role | None = None) -> Settings:
    """Return the settings of this process, which acts as `role`.

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
        settings = Settings(_env_file=named or LOCAL_ENV_FILE)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = PREFIX + "__".join(str(part).upper() for part in first["loc"])
        raise ConfigurationError(f"{variable}: {first['msg']}") from error
    return settings if role is None else settings.acting_as(role)
