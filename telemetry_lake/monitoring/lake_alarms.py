"""The alarms of what is behind the edge, by the facts that the exporter reads, and those of the watchers."""

from typing import Final

from telemetry_lake.monitoring.rules import FAST, LOW, SLOW, Alarm, Burn, CloudWatchForm, Severity

FRESH: Final = 0.99
"""The promise of the tables over 30 days: the time in which the newest row is at most FRESH_WITHIN old."""
FRESH_WITHIN: Final = "<5m:s|90s>"
"""A drill's small machine needs more than a few seconds from a ping to its row."""
REJECTED_MIN: Final = 100
"""Fewer rejected pings than this say little about a document type."""
BORING: Final = "bare_document_id|empty_body|invalid_path|invalid_document_id"
"""What is always rejected, from clients that are broken or are none."""
MADE_FROM_LIVE: Final = "stable_pings|histogram_aggregates|ping_volumes|ping_counts|dashboard_cubes"
PROOFS: Final = "completeness|reconcile"

IS_STALE: Final = "telemetry_lake:live_is_stale"
RECORDED: Final = {
    IS_STALE: f"(max(telemetry_lake_live_newest_row_age_seconds) > bool {FRESH_WITHIN}) "
    # Without the zero, one moment without a rate would be a NaN in each average of the next three days.
    "* scalar((sum(rate(telemetry_lake_ingest_request_seconds_count[<5m>])) or vector(0)) > bool 0)"
}
"""What Prometheus keeps besides, since it is asked about days: 1 while the newest row is too old although
pings arrive, else 0."""
_BUDGETS: Final = ("FreshnessBudgetFast", "FreshnessBudgetSlow", "FreshnessBudgetLow")
_WHAT_AIRFLOW_STOPS: Final = (
    *("QueueOld", "QueueDeep", "BatchStuck", *_BUDGETS[:2]),
    *("DagLate", "DerivedStale", "MaintenanceLate", "ProofLate"),
)
_TYPE: Final = "(namespace, document_type)"


def _stale(window: str) -> str:
    return f"avg_over_time({IS_STALE}[<{window}>])"


def _freshness_budget(name: str, severity: Severity, burn: Burn, mutes: tuple[str, ...]) -> Alarm:
    limit = f"{burn.times * (1 - FRESH):.6g}"
    return Alarm(
        name,
        severity,
        f"In {{{{ $value | humanizePercentage }}}} of the last <{burn.long}> the newest row of live.pings "
        f"was too old although pings arrived; {1 - FRESH:.0%} of the time is allowed.",
        f"{_stale(burn.long)} > {limit} and {_stale(burn.short)} > {limit}",
        mutes=mutes,
    )


def _rejected(select: str) -> str:
    return f"sum by {_TYPE} (increase(telemetry_lake_rejected_rows_total{select}[<1h|1m>]))"


def _share_of_rejected(select: str) -> str:
    live = "sum by (namespace, document_type) (increase(telemetry_lake_rows_total[<1h|1m>]))"
    every = _rejected("")
    return f"{_rejected(select)} / ({every} + ({live} or 0 * {every}))"


FLOW_ALARMS: Final = (
    _freshness_budget(_BUDGETS[0], Severity.PAGE, FAST, _BUDGETS[1:]),
    _freshness_budget(_BUDGETS[1], Severity.PAGE, SLOW, _BUDGETS[2:]),
    _freshness_budget(_BUDGETS[2], Severity.TICKET, LOW, ()),
    Alarm(
        "QueueOld",
        Severity.PAGE,
        "A raw object has waited {{ $value | humanizeDuration }} for the drain to claim it.",
        "telemetry_lake_queue_oldest_age_seconds > <15m:s|1m>",
        wait="5m",
        mutes=("QueueDeep", *_BUDGETS[:2]),
        cloudwatch=CloudWatchForm(
            "AWS/SQS",
            "ApproximateAgeOfOldestMessage",
            "Maximum",
            threshold=900,
            period_seconds=60,
            periods=5,
            dimensions=("QueueName",),
        ),
    ),
    Alarm(
        "QueueDeep",
        Severity.TICKET,
        "{{ $value | humanize }} index messages wait: the drain is slower than pings arrive.",
        'telemetry_lake_queue_messages{queue="index", state="waiting"} > 1000',
        wait="15m",
        cloudwatch=CloudWatchForm(
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            "Minimum",
            threshold=1_000,
            period_seconds=300,
            periods=3,
            dimensions=("QueueName",),
        ),
    ),
    Alarm(
        "DeadLetters",
        Severity.TICKET,
        "{{ $value | humanize }} messages are in the dead letters: their pings are in no table.",
        'sum(telemetry_lake_queue_messages{queue="dead_letters"}) > 0',
        wait="5m",
        cloudwatch=CloudWatchForm(
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            "Maximum",
            threshold=0,
            period_seconds=300,
            dimensions=("QueueName",),
        ),
    ),
    Alarm(
        "BatchStuck",
        Severity.TICKET,
        "A batch was claimed {{ $value | humanizeDuration }} ago and is still not committed.",
        "telemetry_lake_batches_open_oldest_age_seconds > <30m:s|90s>",
        wait="5m",
    ),
    Alarm(
        "PingsOverdue",
        Severity.PAGE,
        "{{ $value | humanize }} raw objects are not finished long after they were shipped: acknowledged "
        "pings do not come to their end by themselves.",
        "sum(telemetry_lake_overdue_raw_objects) > 0",
    ),
    Alarm(
        "QueueForgets",
        Severity.TICKET,
        "{{ $value | humanize }} queues keep messages for less than 14 days.",
        "telemetry_lake_queue_problems > 0",
    ),
    Alarm(
        "RejectedUnusual",
        Severity.TICKET,
        "{{ $value | humanizePercentage }} of the pings {{ $labels.namespace }}/{{ $labels.document_type }} "
        "of the last <1h> were rejected for reasons that are not usual.",
        f'{_share_of_rejected(f"""{{error_type!~"{BORING}"}}""")} > 0.01 '
        f'and {_rejected(f"""{{error_type!~"{BORING}"}}""")} > {REJECTED_MIN}',
        wait="10m",
    ),
    Alarm(
        "RejectedMany",
        Severity.TICKET,
        "{{ $value | humanizePercentage }} of all pings of the last <1h> were rejected.",
        "sum(increase(telemetry_lake_rejected_rows_total[<1h|1m>])) / "
        "(sum(increase(telemetry_lake_rejected_rows_total[<1h|1m>])) + "
        "(sum(increase(telemetry_lake_rows_total[<1h|1m>])) or vector(0))) > 0.1 "
        f"and sum(increase(telemetry_lake_rejected_rows_total[<1h|1m>])) > {REJECTED_MIN}",
        wait="10m",
    ),
)

WORK_ALARMS: Final = (
    Alarm(
        "AirflowComponentDead",
        Severity.PAGE,
        "Airflow's {{ $labels.component }} gave its last sign of life {{ $value | humanizeDuration }} ago.",
        # An age grows while it is not read: when the API is away, that says nothing of the components.
        "telemetry_lake_airflow_heartbeat_age_seconds > <3m:s|45s> "
        'and on (instance) telemetry_lake_exporter_source_up{source="airflow"} == 1',
        wait="1m",
        mutes=_WHAT_AIRFLOW_STOPS,
    ),
    Alarm(
        "AirflowUnreachable",
        Severity.PAGE,
        "Airflow's API does not answer, so nothing says whether the drain runs.",
        'telemetry_lake_exporter_source_up{source="airflow"} == 0',
        wait="5m",
        mutes=("DagLate", "SourceUnread"),
    ),
    Alarm(
        "DagFailed",
        Severity.TICKET,
        "{{ $value | humanize }} runs of the DAG {{ $labels.dag }} have failed within <1h>.",
        # Whoever asked for a map-reduce run is told of its end, and a replay is watched by who started it.
        'increase(telemetry_lake_airflow_runs_total{state="failed", dag!~"mapreduce|replay"}[<1h|1m>]) > 0',
    ),
    Alarm(
        "DagLate",
        Severity.TICKET,
        "The DAG {{ $labels.dag }} should have ended well {{ $value | humanizeDuration }} ago.",
        "telemetry_lake_airflow_dag_late_seconds > <15m:s|10s>",
        wait="5m",
    ),
    Alarm(
        "DagUnreadable",
        Severity.TICKET,
        "Airflow cannot read {{ $value | humanize }} files of DAGs; what they schedule does not run.",
        "telemetry_lake_airflow_import_errors > 0",
        wait="5m",
    ),
    Alarm(
        "DerivedStale",
        Severity.TICKET,
        "{{ $labels.work }} was due {{ $value | humanizeDuration }} ago: readers see old figures.",
        f'telemetry_lake_work_late_seconds{{work=~"{MADE_FROM_LIVE}"}} > <1h:s|10s>',
        wait="5m",
    ),
    Alarm(
        "MaintenanceLate",
        Severity.TICKET,
        "Maintenance was due {{ $value | humanizeDuration }} ago: queries become slower and old files stay.",
        'telemetry_lake_work_late_seconds{work="maintenance"} > <6h:s|10s>',
        wait="5m",
    ),
    Alarm(
        "ProofLate",
        Severity.TICKET,
        "{{ $labels.work }} was due {{ $value | humanizeDuration }} ago: lost pings would not be noticed.",
        f'telemetry_lake_work_late_seconds{{work=~"{PROOFS}"}} > <1h:s|10s>',
        wait="5m",
    ),
    Alarm(
        "SnapshotsKept",
        Severity.TICKET,
        "{{ $labels.table }} keeps {{ $value | humanize }} snapshots: each commit reads and writes them all.",
        "telemetry_lake_table_snapshots > 5000",
        wait="15m",
    ),
    Alarm(
        "AnalysesLate",
        Severity.TICKET,
        "{{ $value | humanize }} runs of analysts were due and have not begun.",
        "telemetry_lake_analysis_runs_late > 0",
        wait="30m",
    ),
    Alarm(
        "WebDown",
        Severity.TICKET,
        "The web pages do not answer.",
        "telemetry_lake_web_up == 0",
        wait="5m",
        mutes=("WebSlow",),
    ),
    Alarm(
        "WebSlow",
        Severity.TICKET,
        "The home page of the web pages takes {{ $value | humanizeDuration }}.",
        "avg_over_time(telemetry_lake_web_answer_seconds[<15m|30s>]) > 2",
        wait="5m",
    ),
    Alarm(
        "CostJump",
        Severity.TICKET,
        "A day like the last hour costs {{ $value | humanize }} dollars, half as much again as last week.",
        "sum(telemetry_lake_cost_dollars_per_day) > "
        "1.5 * sum(avg_over_time(telemetry_lake_cost_dollars_per_day[<7d>] offset <2h>)) "
        # The estimate of a new lake rises during its first hour: at first the average is of that hour.
        "and sum(telemetry_lake_cost_dollars_per_day offset <3h>) > 0",
        wait="1h",
    ),
)

WATCHER_ALARMS: Final = (
    Alarm(
        "ExporterDown",
        Severity.PAGE,
        "The exporter does not answer, so nothing watches the queue, the tables and Airflow.",
        'up{job="exporter"} == 0 or absent(up{job="exporter"})',
        wait="5m",
    ),
    Alarm(
        "SourceUnread",
        Severity.TICKET,
        "The exporter has not been able to read {{ $labels.source }}: what rests on it is not watched.",
        'telemetry_lake_exporter_source_up{source!="airflow"} == 0',
        wait="15m",
    ),
    Alarm(
        "NotTold",
        Severity.PAGE,
        "Alertmanager failed {{ $value | humanize }} times to tell by {{ $labels.integration }} in <15m>.",
        "increase(alertmanager_notifications_failed_total[<15m|30s>]) > 0",
    ),
    Alarm(
        "Watchdog",
        Severity.WATCHDOG,
        "Always fires. When it does not arrive, Prometheus, Alertmanager or the way of the mails is broken.",
        "vector(1)",
    ),
)

AWS_ALARMS: Final = (
    Alarm(
        "BalancerErrors",
        Severity.PAGE,
        "The load balancer answers 5xx by itself: clients do not reach the nodes.",
        None,
        cloudwatch=CloudWatchForm(
            "AWS/ApplicationELB",
            "HTTPCode_ELB_5XX_Count",
            "Sum",
            threshold=50,
            period_seconds=60,
            periods=3,
            dimensions=("LoadBalancer",),
        ),
    ),
    Alarm(
        "SpoolDiskBurst",
        Severity.TICKET,
        "The spool's volume has used up four fifths of its burst credits: commits will become slow.",
        None,
        cloudwatch=CloudWatchForm(
            "AWS/EBS",
            "BurstBalance",
            "Minimum",
            threshold=20,
            comparison="LessThanThreshold",
            period_seconds=300,
            dimensions=("VolumeId",),
        ),
    ),
    Alarm(
        "DatabaseDisk",
        Severity.TICKET,
        "The disk of Airflow's database has less than 2 GiB left.",
        None,
        cloudwatch=CloudWatchForm(
            "AWS/RDS",
            "FreeStorageSpace",
            "Minimum",
            threshold=2 * 1024**3,
            comparison="LessThanThreshold",
            period_seconds=300,
            dimensions=("DBInstanceIdentifier",),
        ),
    ),
)
"""What only AWS sees."""
