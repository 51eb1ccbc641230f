"""The parts of the way of a ping: what each is, and which of the closed list of metrics are about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from telemetry_lake.monitoring.metric import Origin, Unit
from telemetry_lake.monitoring.metrics import BY_NAME


class How(StrEnum):
    """How one figure is made of the time series of a metric."""

    SUM = "sum"
    GREATEST = "greatest"
    LEAST = "least"
    RATE = "rate"
    """By how much counters rise in a second, between the last two readings."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure; `labels` choose the time series, of which all have one of the alternatives."""

    title: str
    metric: str
    how: How = How.SUM
    alternatives: tuple[Mapping[str, str], ...] = ({},)
    since_start: bool = False
    """Whether it counts from the start of the program that shows it."""

    @property
    def base(self) -> str:
        """The name of the metric in the closed list, without the suffix of a histogram's time series."""
        return self.metric if self.metric in BY_NAME else self.metric.rpartition("_")[0]

    @property
    def unit(self) -> Unit:
        """In what it is measured."""
        # The number of what a histogram has seen is a number, whatever it measures.
        return Unit.COUNT if self.base != self.metric else BY_NAME[self.metric].unit

    @property
    def meaning(self) -> str:
        """What it means, as the list says it."""
        return BY_NAME[self.base].meaning

    @property
    def is_of_nodes(self) -> bool:
        """Whether ingest nodes show it; the exporter shows all others."""
        return BY_NAME[self.base].origin is Origin.NODE

    @property
    def source(self) -> str:
        """What the exporter reads it from; empty for what programs say of themselves."""
        return BY_NAME[self.base].source


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the way; the first two figures are in the picture."""

    name: str
    title: str
    about: str
    figures: tuple[Figure, ...]
    history: str = ""
    """What is drawn of the last day: an expression of Prometheus with one time series."""
    history_title: str = ""
    history_unit: Unit = Unit.COUNT
    tables: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    """What the labels `table` and `work` of its metrics are."""
    metrics: tuple[str, ...] = field(default=())
    """The beginnings of the names of metrics that alarms about this part are made of."""


NODE: Final = "telemetry_lake_ingest_"
LAKE: Final = "telemetry_lake_"
_SERVER_ERRORS: Final = tuple({"status": status} for status in ("500", "503", "507"))
_UNSHIPPED: Final = tuple({"state": state} for state in ("open", "sealed", "unannounced"))


def _work(title: str, work: str) -> tuple[Figure, Figure]:
    labels = ({"work": work},)
    return (
        Figure(title, f"{LAKE}work_age_seconds", How.GREATEST, labels),
        Figure("late by", f"{LAKE}work_late_seconds", How.GREATEST, labels),
    )


def _table(table: str) -> tuple[Figure, Figure]:
    labels = ({"table": table},)
    return (
        Figure("rows", f"{LAKE}table_rows", How.SUM, labels),
        Figure("last changed ago", f"{LAKE}table_commit_age_seconds", How.GREATEST, labels),
    )


PARTS: Final = (
    Part(
        "edge",
        "Edge",
        "Ingest nodes take pings and answer 200 once a ping is on stable storage.",
        (
            Figure("pings a second", f"{NODE}request_seconds_count", How.RATE),
            Figure("answers 5xx", f"{NODE}requests_total", How.SUM, _SERVER_ERRORS, since_start=True),
            Figure("pings acknowledged", f"{NODE}request_seconds_count", since_start=True),
            Figure("bytes a second", f"{NODE}body_bytes_total", How.RATE),
            Figure("connections", f"{NODE}connections"),
            Figure("failed writes to the spool", f"{NODE}commit_failures_total", since_start=True),
            Figure("restarts of processes", f"{NODE}child_restarts_total", since_start=True),
        ),
        f"sum(rate({NODE}request_seconds_count[5m]))",
        "pings a second",
        metrics=(NODE,),
    ),
    Part(
        "spool",
        "Spool",
        "Segments on the nodes' disks, which the shipper makes raw objects of.",
        (
            Figure("segments wait", f"{NODE}spool_segments", How.SUM, _UNSHIPPED),
            Figure("oldest segment", f"{NODE}oldest_segment_age_seconds", How.GREATEST),
            Figure("least free space", f"{NODE}spool_free_bytes", How.LEAST),
            Figure("damaged segments", f"{NODE}spool_segments", How.SUM, ({"state": "damaged"},)),
            Figure("S3 reachable", f"{NODE}s3_reachable", How.LEAST),
            Figure("SQS reachable", f"{NODE}sqs_reachable", How.LEAST),
        ),
        f"max({NODE}oldest_segment_age_seconds)",
        "age of the oldest segment",
        Unit.SECONDS,
        metrics=tuple(
            NODE + name
            for name in (
                *("spool_", "oldest_segment_", "damaged_", "salvaged_", "shipped_", "upload_", "queue_"),
                *("s3_", "sqs_"),
            )
        ),
    ),
    Part(
        "raw",
        "Raw bucket",
        "Raw objects in S3: pings as they were received. Each comes to its end in a table, or is set aside.",
        (
            Figure("not finished", f"{LAKE}unfinished_raw_objects"),
            Figure("overdue", f"{LAKE}overdue_raw_objects"),
            Figure("oldest not finished", f"{LAKE}unfinished_oldest_age_seconds", How.GREATEST),
            Figure("set aside", f"{LAKE}set_aside_raw_objects"),
            Figure("open days", f"{LAKE}days", How.SUM, ({"state": "open"},)),
            Figure("days opened again", f"{LAKE}days_reopened"),
        ),
        f"sum({LAKE}unfinished_raw_objects)",
        "raw objects not finished",
        works=("completeness", "reconcile"),
        metrics=tuple(
            LAKE + name
            for name in ("unfinished_", "overdue_", "set_aside_", "days", "foreign_keys", "queue_problems")
        ),
    ),
    Part(
        "queue",
        "Queue",
        "Index messages, each of which names a raw object, and the dead letters.",
        (
            Figure("wait", f"{LAKE}raw_objects_waiting"),
            Figure("dead letters", f"{LAKE}queue_messages", How.SUM, ({"queue": "dead_letters"},)),
            Figure("oldest waits since", f"{LAKE}queue_oldest_age_seconds", How.GREATEST),
            Figure("messages", f"{LAKE}queue_messages", How.SUM, ({"queue": "index", "state": "waiting"},)),
            Figure(
                "in flight", f"{LAKE}queue_messages", How.SUM, ({"queue": "index", "state": "in_flight"},)
            ),
        ),
        f"max({LAKE}queue_oldest_age_seconds)",
        "age of the oldest raw object that waits",
        Unit.SECONDS,
        metrics=tuple(LAKE + name for name in ("queue_messages", "queue_oldest_", "raw_objects_waiting")),
    ),
    Part(
        "drain",
        "Drain",
        "Claims raw objects in batches, converts, validates, and publishes each batch in one commit a table.",
        (
            Figure("batches open", f"{LAKE}batches_open"),
            Figure("oldest open", f"{LAKE}batches_open_oldest_age_seconds", How.GREATEST),
            Figure("rows a second", f"{LAKE}rows_total", How.RATE),
            Figure("rejected a second", f"{LAKE}rejected_rows_total", How.RATE),
            Figure("committed", f"{LAKE}batches_total", How.SUM, ({"stage": "committed"},), since_start=True),
            Figure("held back", f"{LAKE}batches_total", How.SUM, ({"stage": "held_back"},), since_start=True),
        ),
        f"sum(rate({LAKE}rows_total[15m]))",
        "rows a second",
        works=("backfill",),
        metrics=tuple(LAKE + name for name in ("batches_", "rejected_rows_", "rows_total", "backfill_")),
    ),
    Part(
        "live",
        "Live tables",
        "live.pings and live.rejected_pings: every acknowledged ping is a row of one of the two.",
        (
            Figure("newest ping", f"{LAKE}live_newest_row_age_seconds", How.GREATEST),
            _table("live.pings")[0],
            Figure("rejected rows", f"{LAKE}table_rows", How.SUM, ({"table": "live.rejected_pings"},)),
            _table("live.pings")[1],
        ),
        f"max({LAKE}live_newest_row_age_seconds)",
        "age of the newest ping",
        Unit.SECONDS,
        tables=("live.pings", "live.rejected_pings"),
        works=("maintenance",),
        metrics=(f"{LAKE}live_", f"{LAKE}table_"),
    ),
    Part(
        "stable",
        "Stable tables",
        "stable.pings: one row for each document id.",
        (*_work("made ago", "stable_pings"), *_table("stable.pings")),
        f'max({LAKE}work_age_seconds{{work="stable_pings"}})',
        "since it was made",
        Unit.SECONDS,
        tables=("stable.pings",),
        works=("stable_pings",),
    ),
    Part(
        "aggregates",
        "Aggregates",
        "derived.histogram_aggregates, and the counts of pings by hour and by type.",
        (*_work("made ago", "histogram_aggregates"), *_table("derived.histogram_aggregates")),
        f'max({LAKE}work_age_seconds{{work="histogram_aggregates"}})',
        "since they were made",
        Unit.SECONDS,
        tables=(
            *("derived.histogram_aggregates", "derived.ping_volumes", "derived.ping_counts"),
            *("derived.anomalies", "derived.made_dates", "derived.maintenance_runs"),
        ),
        works=("histogram_aggregates", "ping_volumes", "ping_counts"),
        metrics=(f"{LAKE}anomalies",),
    ),
    Part(
        "cubes",
        "Dashboard cubes",
        "What the dashboard shows, made of the aggregates.",
        _work("made ago", "dashboard_cubes"),
        f'max({LAKE}work_age_seconds{{work="dashboard_cubes"}})',
        "since they were made",
        Unit.SECONDS,
        works=("dashboard_cubes",),
    ),
    Part(
        "analyses",
        "Analyses",
        "Map-reduce jobs of analysts over the stable and derived tables.",
        (
            Figure("runs open", f"{LAKE}analysis_runs_open"),
            Figure("runs late", f"{LAKE}analysis_runs_late"),
            Figure("jobs whose last run failed", f"{LAKE}analysis_jobs", How.SUM, ({"outcome": "failed"},)),
            Figure("saved jobs", f"{LAKE}analysis_jobs"),
        ),
        f"sum({LAKE}analysis_runs_open)",
        "runs open",
        metrics=(f"{LAKE}analysis_",),
    ),
)
"""In the order in which a ping passes them."""

AROUND: Final = (
    Part(
        "airflow",
        "Airflow",
        "What starts the drain and everything after it.",
        (
            Figure(
                "scheduler seen ago",
                f"{LAKE}airflow_heartbeat_age_seconds",
                How.GREATEST,
                ({"component": "scheduler"},),
            ),
            Figure("failed runs", f"{LAKE}airflow_runs_total", How.SUM, ({"state": "failed"},), True),
            Figure("failed tasks", f"{LAKE}airflow_failed_tasks_total", since_start=True),
            Figure("runs open", f"{LAKE}airflow_runs_open"),
            Figure("latest DAG is late by", f"{LAKE}airflow_dag_late_seconds", How.GREATEST),
            Figure("files that cannot be read", f"{LAKE}airflow_import_errors"),
        ),
        metrics=(f"{LAKE}airflow_",),
    ),
    Part(
        "web",
        "Web pages",
        "What people see: this page, the dashboard and the analyses.",
        (Figure("answer", f"{LAKE}web_up"), Figure("home page takes", f"{LAKE}web_answer_seconds")),
        f"max({LAKE}web_answer_seconds)",
        "time of the home page",
        Unit.SECONDS,
        metrics=(f"{LAKE}web_",),
    ),
    Part(
        "cost",
        "Cost",
        "What a day like the last hour costs, an estimate.",
        (Figure("dollars a day", f"{LAKE}cost_dollars_per_day"),),
        f"sum({LAKE}cost_dollars_per_day)",
        "dollars a day",
        Unit.DOLLARS,
        metrics=(f"{LAKE}cost_",),
    ),
    Part(
        "watchers",
        "Monitoring itself",
        "The exporter that reads the facts, and what evaluates them.",
        (
            Figure("sources that answer", f"{LAKE}exporter_source_up"),
            Figure("oldest reading", f"{LAKE}exporter_source_age_seconds", How.GREATEST),
            Figure("failed readings", f"{LAKE}exporter_source_errors_total", since_start=True),
        ),
        metrics=(f"{LAKE}exporter_",),
    ),
)
"""What is not on the way of a ping, and can be red as well."""

ALL_PARTS: Final = (*PARTS, *AROUND)
EDGE: Final = "edge"
WATCHERS: Final = "watchers"
NODES_JOB: Final = "ingest"
"""What ingest nodes are called in Prometheus' settings."""


def part_of(labels: Mapping[str, str], metrics: tuple[str, ...]) -> str:
    """Return the name of the part that an alarm with these labels, made of these metrics, is about."""
    for part in ALL_PARTS:
        if labels.get("table") in part.tables or labels.get("work") in part.works:
            return part.name
    for metric in metrics:
        found = [
            (len(beginning), part.name)
            for part in ALL_PARTS
            for beginning in part.metrics
            if metric.startswith(beginning)
        ]
        if found:
            # The first metric of a rule is what it is about, and others are its conditions. The longest
            # beginning says most: that of the edge begins all metrics of nodes.
            return max(found)[1]
    # What is made of `up` says by its job which program does not answer.
    return EDGE if labels.get("job") == NODES_JOB else WATCHERS
