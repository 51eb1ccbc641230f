"""What a lake costs a month on AWS, by part: `python -m provisioning cost`. See docs/cost.md.

It is computed from three things: what was measured (benchmarks/results/), what the environment consists of
(cloudformation/parameters/), and a list of prices with dates and sources (provisioning/prices.yaml).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field

from telemetry_lake.deploy.scaling import BUSY_SHARE_MAX_AFTER_REMOVAL, WORKERS_MIN
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import IngestSettings
from telemetry_lake.units import MIB

PRICES_FILE: Final = PROJECT_ROOT / "provisioning" / "prices.yaml"
PARAMETERS_FOLDER: Final = PROJECT_ROOT / "cloudformation" / "parameters"
RESULTS_FOLDER: Final = PROJECT_ROOT / "benchmarks" / "results"
HOURS_A_MONTH: Final = 730
SECONDS_A_MONTH: Final = HOURS_A_MONTH * 3_600
GIB: Final = 1024 * MIB
GIGABYTE: Final = 10**9
BILLION: Final = 10**9
PINGS_PER_SECOND_MAX: Final = 1_000_000
RETENTION_DAYS_MAX: Final = 3_650

LIVE_DAYS: Final = 30
AIRFLOW_VCPUS: Final = 3.0
"""Of api-server, scheduler, dag-processor and triggerer, in cloudformation/orchestration.yaml."""
AIRFLOW_MEMORY_GB: Final = 8.0
DATABASE_GIB: Final = 20
WORKER_MEMORY_GB: Final = 4.0
"""Of a worker, and for each core of Spark."""
ALARMS: Final = 12
SECRETS: Final = 6
NEW_CONNECTIONS_OF_UNIT: Final = {"alb": 25, "nlb": 50}
"""A second, with TLS; the other bound of a unit is 1 GB an hour for both."""
SQS_REQUESTS_OF_SEGMENT: Final = 3
"""Sent, received, deleted, if each came alone; in tens it is less."""
DOORBELL_SECONDS: Final = 1
REQUESTS_OF_SEGMENT: Final = 4
"""Writes of the drain for each raw object: its claim, begin and end of its conversion, and one more."""
REQUESTS_OF_BATCH: Final = 30
"""Writes for each batch: records, staged files, and the metadata of two commits."""
BATCH_SECONDS: Final = 20
"""From one batch to the next, at any rate that keeps the drain busy."""


class Price(BaseModel):
    """One price in US dollars; `checked` is false where no source was found for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price: Annotated[float, Field(gt=0)]
    as_of: date
    source: str
    checked: bool = True


class Prices:
    """The list of prices; remembers which of those that it was asked for are not checked."""

    def __init__(self, file: Path = PRICES_FILE) -> None:
        self._file = file
        self._values: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        self.unchecked: dict[str, Price] = {}

    def of(self, name: str, kind: str | None = None) -> float:
        """Return a price, of one `kind` where there are several; raises ConfigurationError without one."""
        value = self._values.get(name, {})
        value = value.get(kind) if kind is not None else value
        if not value:
            raise ConfigurationError(
                f"{self._file.name} has no {name}{f' of {kind}' if kind else ''}: add it there, with "
                "date and source, or choose another"
            )
        price = Price.model_validate(value)
        if not price.checked:
            self.unchecked[kind or name] = price
        return price.price


class Environment(BaseModel):
    """What an environment consists of: those of its parameters that cost something."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    nodes: int = Field(alias="NodeCount")
    node_type: str = Field(alias="NodeInstanceType")
    node_workers: int = Field(alias="NodeWorkers", default=2)
    spool_gib: int = Field(alias="SpoolGib")
    raw_days: int = Field(alias="RawDays")
    egress: str = Field(alias="Egress", default="nat")
    zones: int = Field(alias="ZoneCount")
    database: str = Field(alias="DatabaseClass", default="db.t4g.micro")
    database_in_two_zones: bool = Field(alias="DatabaseInTwoZones", default=False)
    broker: str = Field(alias="BrokerNodeType", default="cache.t4g.micro")
    brokers: int = Field(alias="BrokerNodes", default=1)
    workers_min: int = Field(alias="WorkersMin", default=WORKERS_MIN)
    workers_max: int = Field(alias="WorkersMax")
    web: int = Field(alias="WebCount", default=1)
    web_type: str = Field(alias="WebInstanceType", default="t3.medium")


@dataclass(frozen=True, slots=True)
class Measured:
    """What benchmarks found; `sources` says where each figure is from."""

    ping_bytes: float
    """With gzip, as clients send them."""
    stored_bytes: float
    drain_core_seconds: float
    stable_core_seconds: float
    aggregates_core_seconds: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """The pings that arrive, and for how long what of them is kept."""

    pings_per_second: float
    raw_days: int
    table_days: int
    compression: float = 1.0
    """Bytes of a ping, as a multiple of those that were measured."""

    @property
    def pings(self) -> float:
        """Pings a month."""
        return self.pings_per_second * SECONDS_A_MONTH


@dataclass(slots=True)
class Bill:
    """The parts in US dollars a month: their names, what they are made of, and what they cost."""

    parts: list[tuple[str, str, float]] = field(default_factory=list)

    def add(self, name: str, made_of: str, dollars: float) -> None:
        """Add a part."""
        self.parts.append((name, made_of, dollars))

    @property
    def total(self) -> float:
        """Of all parts, a month."""
        return sum(dollars for _, _, dollars in self.parts)


def measured(folder: Path = RESULTS_FOLDER) -> Measured:
    """Return what the last benchmarks found; raises ConfigurationError when a figure is not there."""
    stored = _figure(folder, "convert", "stored", "bytes/ping")
    drained = _figure(folder, "convert", "raw object to committed Parquet", "pings/s")
    pings = _pings_of_aggregates(folder)
    stable = _figure(folder, "aggregates", "stable_pings, fastest later run", "CPU seconds")
    aggregates = _figure(folder, "aggregates", "histogram_aggregates, fastest later run", "CPU seconds")
    return Measured(
        ping_bytes=_ping_bytes(folder),
        stored_bytes=stored,
        drain_core_seconds=1 / drained,
        stable_core_seconds=stable / pings,
        aggregates_core_seconds=aggregates / pings,
        sources=(
            f"convert.json: {_ping_bytes(folder):,.0f} bytes a ping with gzip, {stored:,.0f} stored",
            f"convert.json: {1e3 / drained:.2f} ms of a core from raw object to committed rows",
            f"aggregates.json: {1e3 * stable / pings:.2f} ms of a core for stable.pings",
            f"aggregates.json: {1e3 * aggregates / pings:.2f} ms of a core for the aggregates",
        ),
    )


def bill(environment: Environment, load: Load, found: Measured, prices: Prices, *, balancer: str) -> Bill:
    """Return what `environment` costs a month under `load`."""
    result = Bill()
    _edge(result, environment, load, found, prices, balancer)
    _storage(result, environment, load, found, prices)
    _drain(result, environment, load, found, prices)
    _spark(result, load, found, prices)
    _rest(result, environment, prices)
    return result


def segments(environment: Environment, load: Load, found: Measured) -> float:
    """Return the raw objects a month: full ones, or one for each writer in the time that it is kept open."""
    ingest = IngestSettings()
    full = load.pings * found.ping_bytes * load.compression / ingest.segment_max_bytes
    aged = environment.nodes * environment.node_workers * SECONDS_A_MONTH / ingest.segment_max_age_seconds
    return max(full, aged)


def _edge(
    result: Bill, environment: Environment, load: Load, found: Measured, prices: Prices, balancer: str
) -> None:
    gb_an_hour = load.pings_per_second * found.ping_bytes * load.compression * 3_600 / GIGABYTE
    units = max(gb_an_hour, load.pings_per_second / NEW_CONNECTIONS_OF_UNIT[balancer])
    dollars = HOURS_A_MONTH * (prices.of(f"{balancer}_hour") + units * prices.of(f"{balancer}_unit_hour"))
    result.add(f"balancer ({balancer.upper()})", f"{units:.1f} units of {gb_an_hour:.1f} GB/h", dollars)
    hour = prices.of("instance_hour", environment.node_type)
    nodes = environment.nodes
    result.add("ingest nodes", f"{nodes} x {environment.node_type}", nodes * hour * HOURS_A_MONTH)
    gib = nodes * environment.spool_gib
    result.add("spools", f"{gib} GiB of gp3", gib * prices.of("ebs_gp3_gib_month"))


def _storage(result: Bill, environment: Environment, load: Load, found: Measured, prices: Prices) -> None:
    month_days = HOURS_A_MONTH / 24
    raw_gib = load.pings * found.ping_bytes * load.compression / GIB * load.raw_days / month_days
    gib_month = prices.of("s3_storage_gib_month")
    result.add("S3: raw objects", f"{load.raw_days} days, {raw_gib:,.0f} GiB", raw_gib * gib_month)
    table_gib = load.pings * found.stored_bytes / GIB * load.table_days / month_days
    result.add("S3: live.pings", f"{load.table_days} days, {table_gib:,.0f} GiB", table_gib * gib_month)
    result.add("S3: stable.pings", f"{load.table_days} days, {table_gib:,.0f} GiB", table_gib * gib_month)
    raw = segments(environment, load, found)
    puts = raw * (1 + REQUESTS_OF_SEGMENT) + SECONDS_A_MONTH / BATCH_SECONDS * REQUESTS_OF_BATCH
    dollars = puts / 1e3 * prices.of("s3_put_thousand") + puts / 1e3 * prices.of("s3_get_thousand")
    result.add("S3: requests", f"{puts / 1e6:.1f} million writes, as many reads", dollars)
    sent = raw * SQS_REQUESTS_OF_SEGMENT + SECONDS_A_MONTH / DOORBELL_SECONDS
    result.add("SQS", f"{sent / 1e6:.1f} million requests", sent / 1e6 * prices.of("sqs_million"))


def _drain(result: Bill, environment: Environment, load: Load, found: Measured, prices: Prices) -> None:
    busy = load.pings_per_second * found.drain_core_seconds
    workers = max(environment.workers_min, math.ceil(busy / BUSY_SHARE_MAX_AFTER_REMOVAL))
    if workers > environment.workers_max:
        raise ConfigurationError(
            f"{load.pings_per_second:g} pings/s are work for {workers} workers, and WorkersMax is "
            f"{environment.workers_max}: raise it, or ask for fewer pings"
        )
    vcpu, memory = prices.of("fargate_vcpu_hour"), prices.of("fargate_gb_hour")
    result.add(
        "drain: workers",
        f"{workers} x 1 vCPU on Fargate, {busy:.2f} of them busy",
        workers * (vcpu + WORKER_MEMORY_GB * memory) * HOURS_A_MONTH,
    )
    result.add(
        "drain: Airflow",
        f"{AIRFLOW_VCPUS:g} vCPU on Fargate",
        (AIRFLOW_VCPUS * vcpu + AIRFLOW_MEMORY_GB * memory) * HOURS_A_MONTH,
    )
    twice = 2 if environment.database_in_two_zones else 1
    hour, gib = prices.of("database_hour", environment.database), prices.of("rds_storage_gib_month")
    result.add(
        "drain: PostgreSQL",
        f"{twice} x {environment.database}",
        twice * (hour * HOURS_A_MONTH + DATABASE_GIB * gib),
    )
    brokers, hour = environment.brokers, prices.of("broker_hour", environment.broker)
    result.add("drain: broker", f"{brokers} x {environment.broker}", brokers * hour * HOURS_A_MONTH)


def _spark(result: Bill, load: Load, found: Measured, prices: Prices) -> None:
    core_hour = prices.of("emr_vcpu_hour") + WORKER_MEMORY_GB * prices.of("emr_gb_hour")
    for name, core_seconds in (
        ("stable.pings", found.stable_core_seconds),
        ("aggregates", found.aggregates_core_seconds),
    ):
        hours = load.pings * core_seconds / 3_600
        result.add(f"Spark: {name}", f"{hours:,.0f} core-hours of EMR Serverless", hours * core_hour)


def _rest(result: Bill, environment: Environment, prices: Prices) -> None:
    hour = prices.of("instance_hour", environment.web_type)
    pages = environment.web * hour * HOURS_A_MONTH + prices.of("alb_hour") * HOURS_A_MONTH
    result.add("web pages", f"{environment.web} x {environment.web_type}, ALB", pages)
    if environment.egress == "nat":
        result.add(
            "network: NAT gateway",
            "1, without S3, which has an endpoint",
            prices.of("nat_hour") * HOURS_A_MONTH,
        )
    rest = ALARMS * prices.of("alarm_month") + SECRETS * prices.of("secret_month")
    result.add("alarms, secrets", f"{ALARMS} and {SECRETS}", rest)


def lines(name: str, load: Load, result: Bill, found: Measured, prices: Prices) -> list[str]:
    """Return what the command prints."""
    billions = load.pings / BILLION
    shown = [
        f"{name} at {load.pings_per_second:g} pings/s: {billions:.2f} billion pings a month, US dollars",
        "",
        f"{'part':24} {'made of':42} {'$/month':>10} {'$/billion':>10}",
    ]
    for part, made_of, dollars in (*result.parts, ("sum", "", result.total)):
        shown.append(f"{part:24} {made_of:42} {dollars:10,.2f} {dollars / billions:10,.2f}")
    shown += ["", "Measured:", *(f"  benchmarks/results/{source}" for source in found.sources)]
    if prices.unchecked:
        shown += ["Prices without a source that can be checked:"]
        shown += [
            f"  {key}: ${price.price:g} ({price.source})" for key, price in sorted(prices.unchecked.items())
        ]
    return shown


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def cost(
        environment: Annotated[str, typer.Option("--environment", "-e", help="Such as small or 2014.")],
        pings_per_second: Annotated[
            float, typer.Option(min=0.001, max=PINGS_PER_SECOND_MAX, help="On average over the month.")
        ],
        parameters: Annotated[
            Path | None, typer.Option(help="By default cloudformation/parameters/<environment>.json.")
        ] = None,
        raw_days: Annotated[
            int | None, typer.Option(min=1, max=RETENTION_DAYS_MAX, help="By default the parameter RawDays.")
        ] = None,
        table_days: Annotated[int, typer.Option(min=1, max=RETENTION_DAYS_MAX)] = LIVE_DAYS,
        compression: Annotated[
            float, typer.Option(min=0.01, max=10, help="Size of a ping, in multiples of the measured one.")
        ] = 1.0,
        balancer: Annotated[str, typer.Option(help="nlb or alb.")] = "nlb",
    ) -> None:
        """Show what a lake costs a month, by part, and for a billion pings."""
        if balancer not in NEW_CONNECTIONS_OF_UNIT:
            raise ConfigurationError(f"--balancer is nlb or alb, not {balancer!r}")
        sizes = read_environment(parameters or PARAMETERS_FOLDER / f"{environment}.json")
        load = Load(pings_per_second, raw_days or sizes.raw_days, table_days, compression)
        found, prices = measured(), Prices()
        result = bill(sizes, load, found, prices, balancer=balancer)
        typer.echo("\n".join(lines(environment, load, result, found, prices)))


def read_environment(file: Path) -> Environment:
    """Return the sizes of an environment; raises ConfigurationError when its file is not there or wrong."""
    try:
        return Environment.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{file} is not there: name an environment that has parameters, or give --parameters FILE"
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def _result(folder: Path, benchmark: str) -> dict[str, Any]:
    file = folder / f"{benchmark}.json"
    if not file.is_file():
        raise ConfigurationError(f"{file} is not there: run `make bench-{benchmark}`")
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def _figure(folder: Path, benchmark: str, name: str, unit: str) -> float:
    for figure in _result(folder, benchmark)["figures"]:
        if figure["name"] == name and figure["unit"] == unit:
            return float(figure["value"])
    raise ConfigurationError(
        f"{folder / benchmark}.json has no figure {name!r} in {unit}: run `make bench-{benchmark}`"
    )


def _ping_bytes(folder: Path) -> float:
    return 1e3 * _number_before(folder, "convert", " KB with gzip")


def _pings_of_aggregates(folder: Path) -> float:
    return _number_before(folder, "aggregates", " pings")


def _number_before(folder: Path, benchmark: str, words: str) -> float:
    """Return the number before `words` in the remarks of a result, which say what was measured."""
    for remark in _result(folder, benchmark).get("remarks", ()):
        before, found, _ = remark.partition(words)
        if found:
            return float(before.rsplit(" ", 1)[-1].replace(",", ""))
    raise ConfigurationError(
        f"the remarks of {folder / benchmark}.json do not name a number of {words.strip()!r}: "
        f"run `make bench-{benchmark}`"
    )
