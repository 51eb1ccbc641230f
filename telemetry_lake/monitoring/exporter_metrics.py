"""The metrics of facts, which the exporter reads from the queue, the ledger, the tables and Airflow.

Ages are counted when the page is asked for, so they also grow while nothing new is read.
"""

from typing import Final

from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.metric import OTHER, Kind, Label, Metric, Unit

PREFIX: Final = "telemetry_lake_"
LABEL_SETS_MAX: Final = 500
"""The most label sets of one metric. What comes after them is counted under `other`."""

SOURCES: Final = (
    *("queue", "batches", "tables", "completeness", "work", "analyses", "airflow", "anomalies"),
    *("cost", "web"),
)
"""What the exporter reads, each by itself: one that fails takes no other with it."""
QUEUES: Final = ("index", "dead_letters")
MESSAGE_STATES: Final = ("waiting", "in_flight")
BATCH_STAGES: Final = ("claimed", "converted", "held_back", "committed")
CHANNELS: Final = ("release", "esr", "beta", "aurora", "nightly", OTHER)
"""The update channels that people group by, as `normalized_channel` in live.pings has them."""
RAW_OBJECT_STATES: Final = ("waiting", "claimed_lately", "claimed", "held_back")
"""Why a raw object is not finished, as `telemetry_lake.recovery.survey.State` has it."""
DAY_STATES: Final = ("open", "complete")
WORKS: Final = (
    *("maintenance", "stable_pings", "histogram_aggregates", "ping_volumes", "ping_counts"),
    *("dashboard_cubes", "completeness", "reconcile", "backfill"),
)
"""What is made again and again, and leaves behind when it was made last."""
DAGS: Final = (
    *(
        "anomalies",
        "backfill",
        "completeness",
        "count_pings",
        "dashboard",
        "drain",
        "expire_snapshots",
        "fresh_aggregates",
    ),
    *("housekeeping", "maintenance", "mapreduce", "ping_volumes", "reconcile", "replay"),
    *("scheduled_analyses", "stable_tables"),
)
AIRFLOW_COMPONENTS: Final = ("scheduler", "triggerer", "dag_processor")
RUN_STATES: Final = ("success", "failed")
COST_PARTS: Final = ("machines", "raw_storage", "table_storage", "requests", "queue", "traffic")
ANOMALY_KINDS: Final = (
    *("volume_fall", "volume_rise", "day_fall", "day_rise", "error_share", "new_error"),
    *("build_shift", "day_shift", OTHER),
)
ANOMALY_SEVERITIES: Final = ("critical", "warning", OTHER)

_NAMESPACE: Final = Label("namespace", bound="namespaces of schemas/ and of the settings, else other")
_DOCUMENT_TYPE: Final = Label("document_type", bound="document types that schemas/ names, else other")
_TABLE: Final = Label("table", bound="the tables of sql/")
_DAG: Final = Label("dag", DAGS)


def _metric(
    source: str, name: str, kind: Kind, unit: Unit, meaning: str, action: str, *labels: Label
) -> Metric:
    return Metric(PREFIX + name, kind, unit, meaning, action, labels, source=source)


QUEUE_METRICS: Final = (
    _metric(
        "queue",
        "queue_messages",
        Kind.GAUGE,
        Unit.COUNT,
        "About how many messages a queue holds: waiting, or received and not deleted yet.",
        "index waiting rises: the drain is too slow or stands still; look at the DAG Drain. dead_letters "
        "above 0: python -m telemetry_lake dead-letters says why.",
        Label("queue", QUEUES),
        Label("state", MESSAGE_STATES),
    ),
)

BATCH_METRICS: Final = (
    _metric(
        "batches",
        "queue_oldest_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long the oldest shipped raw object has waited for a batch to claim it; 0 when none waits. SQS "
        "tells the age of its oldest message only to CloudWatch, and forgets what is lost; this one does "
        "not.",
        "Above some minutes: the drain stands still; look at the runs of the DAG Drain and at the scheduler.",
    ),
    _metric(
        "batches",
        "raw_objects_waiting",
        Kind.GAUGE,
        Unit.COUNT,
        "Shipped raw objects that no batch claims yet, of the hours that are watched.",
        "Rises without end: the drain is slower than the pings arrive.",
    ),
    _metric(
        "batches",
        "batches_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Batches by how far they came: claimed, converted (its rows were staged and the gates looked at "
        "them), held back by the gates, committed.",
        "committed stops while claimed rises: look at the failed tasks of the DAG Drain. held_back: the page "
        "Audits says which gate and why.",
        Label("stage", BATCH_STAGES),
    ),
    _metric(
        "batches",
        "batches_open",
        Kind.GAUGE,
        Unit.COUNT,
        "Batches that are claimed and not committed.",
        "Rises: conversions fail or the catalog is away; look at the DAG Drain.",
    ),
    _metric(
        "batches",
        "batches_open_oldest_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long the oldest of them has been claimed; 0 when none is open.",
        "Above ten minutes: its run has failed; the reconciler sends its messages again after a quarter of "
        "an hour, unless the gates hold it back.",
    ),
    _metric(
        "batches",
        "rows_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Rows committed to live.pings.",
        "Falls or rises against the same hour of last week: see the anomalies; ask who released what.",
        _NAMESPACE,
        _DOCUMENT_TYPE,
        Label("channel", CHANNELS),
    ),
    _metric(
        "batches",
        "rejected_rows_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Rows committed to live.rejected_pings.",
        "A share above its usual one: SELECT error_type, error_message FROM live.rejected_pings, then mend "
        "the schema or tell the client's owner, and replay.",
        _NAMESPACE,
        _DOCUMENT_TYPE,
        Label("error_type", tuple(ErrorType)),
    ),
    _metric(
        "batches",
        "live_newest_row_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Age of the newest committed ping, by the clock of the ingest node that received it.",
        "Above its promise while requests arrive: follow the ping: oldest segment, queue, open batches.",
    ),
)

TABLE_METRICS: Final = (
    _metric(
        "tables",
        "table_commit_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since rows were last added to a table or replaced in it, compaction aside; absent for an empty "
        "table.",
        "Live tables: look at the drain. Others: look at the DAG that makes them.",
        _TABLE,
    ),
    _metric(
        "tables",
        "table_rows",
        Kind.GAUGE,
        Unit.COUNT,
        "Rows of the current snapshot.",
        "Falls without a deletion: look at the table's last snapshots before anything expires.",
        _TABLE,
    ),
    _metric(
        "tables",
        "table_bytes",
        Kind.GAUGE,
        Unit.BYTES,
        "Bytes of the data files of the current snapshot.",
        "Use it to see what storage costs.",
        _TABLE,
    ),
    _metric(
        "tables",
        "table_files",
        Kind.GAUGE,
        Unit.COUNT,
        "Data files of the current snapshot.",
        "Rises for more than a day: maintenance does not compact the table.",
        _TABLE,
    ),
    _metric(
        "tables",
        "table_snapshots",
        Kind.GAUGE,
        Unit.COUNT,
        "Snapshots that the table keeps.",
        "Rises without end: the DAG that expires snapshots does not work, and commits become slow.",
        _TABLE,
    ),
    _metric(
        "tables",
        "table_oldest_snapshot_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Age of the oldest snapshot that the table keeps.",
        "Far above the time that snapshots are kept: expiry does not work; deleted rows can still be read.",
        _TABLE,
    ),
)

COMPLETENESS_METRICS: Final = (
    _metric(
        "completeness",
        "unfinished_raw_objects",
        Kind.GAUGE,
        Unit.COUNT,
        "Raw objects that were shipped and are neither in a table nor set aside, as the last look at all "
        "days found them, by why.",
        "claimed or waiting rises from look to look: look at the drain. held_back: a person has to decide, "
        "see the page Audits.",
        Label("state", RAW_OBJECT_STATES),
    ),
    _metric(
        "completeness",
        "unfinished_oldest_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since the oldest of them was shipped; 0 when all are finished.",
        "Above some hours: python -m telemetry_lake completeness names it and says what to do.",
    ),
    _metric(
        "completeness",
        "overdue_raw_objects",
        Kind.GAUGE,
        Unit.COUNT,
        "Those that are unfinished for longer than drain.complete_within_hours, by why.",
        "Any: acknowledged pings do not come to their end by themselves; see Completeness in docs/drain.md.",
        Label("state", RAW_OBJECT_STATES),
    ),
    _metric(
        "completeness",
        "set_aside_raw_objects",
        Kind.GAUGE,
        Unit.COUNT,
        "Raw objects of open days that are in no table, because they are damaged or could not be converted.",
        "Any: python -m telemetry_lake dead-letters says why; replay brings them back.",
    ),
    _metric(
        "completeness",
        "days",
        Kind.GAUGE,
        Unit.COUNT,
        "Days with raw objects: complete, or still open.",
        "open above 3: a day does not become complete; python -m telemetry_lake completeness says why.",
        Label("state", DAY_STATES),
    ),
    _metric(
        "completeness",
        "days_reopened",
        Kind.GAUGE,
        Unit.COUNT,
        "Days that had been complete and hold something else now.",
        "Any: a node shipped late, which is fine, or raw objects were removed, which is not.",
    ),
    _metric(
        "completeness",
        "foreign_keys",
        Kind.GAUGE,
        Unit.COUNT,
        "Keys in the raw bucket that are not those of raw objects.",
        "Any: something else writes to the raw bucket.",
    ),
    _metric(
        "completeness",
        "queue_problems",
        Kind.GAUGE,
        Unit.COUNT,
        "Queues that keep messages for a shorter time than they have to.",
        "Any: set MessageRetentionPeriod as the DAG Completeness says.",
    ),
)

WORK_METRICS: Final = (
    _metric(
        "work",
        "work_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since a work was last done well, by what it left behind; absent when it never was.",
        "Look at work_late_seconds first: how old is too old differs.",
        Label("work", WORKS),
    ),
    _metric(
        "work",
        "work_late_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long ago a work was due; 0 when it is on time. One that was never done counts from when the "
        "exporter first saw the lake. A backfill is late when one is unfinished and copies nothing.",
        "Any for longer than a run takes: look at the DAG that does it: its last run, or whether it is "
        "paused.",
        Label("work", WORKS),
    ),
    _metric(
        "work",
        "backfill_units",
        Kind.GAUGE,
        Unit.COUNT,
        "Units of all backfills: copied, or still to be copied.",
        "open does not fall: look at the DAG Backfill.",
        Label("state", ("copied", "open")),
    ),
)

ANALYSIS_METRICS: Final = (
    _metric(
        "analyses",
        "analysis_runs_late",
        Kind.GAUGE,
        Unit.COUNT,
        "Runs of the analysis service that were due or asked for and have not begun, missed schedules "
        "included.",
        "Any: python -m telemetry_lake jobs late names them; look at the DAG Scheduled analyses.",
    ),
    _metric(
        "analyses",
        "analysis_runs_open",
        Kind.GAUGE,
        Unit.COUNT,
        "Runs of the analysis service that have not ended.",
        "Stays high: the machines for map-reduce are too few, or runs hang.",
    ),
    _metric(
        "analyses",
        "analysis_jobs",
        Kind.GAUGE,
        Unit.COUNT,
        "Saved jobs of the analysis service by the outcome of their newest run; new has none.",
        "failed rises for several owners at once: the cause is the lake and not a script.",
        Label("outcome", ("new", "good", "failed")),
    ),
)

AIRFLOW_METRICS: Final = (
    _metric(
        "airflow",
        "airflow_heartbeat_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since a component of Airflow last gave a sign of life; absent for one that never did.",
        "Above a minute: the process is dead or hangs; start it again and read its log.",
        Label("component", AIRFLOW_COMPONENTS),
    ),
    _metric(
        "airflow",
        "airflow_runs_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Runs that ended, by DAG and outcome, since the exporter first looked.",
        "failed rises: open the DAG's newest run in Airflow; the last line of the failed task says what to "
        "do.",
        _DAG,
        Label("state", RUN_STATES),
    ),
    _metric(
        "airflow",
        "airflow_failed_tasks_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Task instances that failed for good, by DAG, since the exporter first looked.",
        "As airflow_runs_total.",
        _DAG,
    ),
    _metric(
        "airflow",
        "airflow_last_success_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since a run of a DAG last ended well; absent when none ever did.",
        "Look at airflow_dag_late_seconds first.",
        _DAG,
    ),
    _metric(
        "airflow",
        "airflow_dag_late_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long ago a scheduled DAG should have ended well again; 0 when it is on time.",
        "Any: the DAG is paused, fails, or the scheduler does not start it.",
        _DAG,
    ),
    _metric(
        "airflow",
        "airflow_runs_open",
        Kind.GAUGE,
        Unit.COUNT,
        "Runs of all DAGs that are queued or running.",
        "queued rises: the scheduler is dead, or a limit of parallel runs or tasks is reached.",
        Label("state", ("queued", "running")),
    ),
    _metric(
        "airflow",
        "airflow_import_errors",
        Kind.GAUGE,
        Unit.COUNT,
        "DAG files that Airflow cannot read.",
        "Any: the DAG is gone from the schedule; Airflow's home page shows the error.",
    ),
)

OTHER_METRICS: Final = (
    _metric(
        "cost",
        "cost_dollars_per_day",
        Kind.GAUGE,
        Unit.DOLLARS,
        "What a day like the last hour costs, estimated from counters and TELEMETRY_LAKE_MONITORING__PRICES.",
        "A jump: compare the parts; requests and queue rise with tiny segments, storage with what is kept.",
        Label("part", COST_PARTS),
    ),
    _metric(
        "anomalies",
        "anomalies",
        Kind.GAUGE,
        Unit.COUNT,
        "Anomalies that are open and not silenced, by kind and severity.",
        "The page of anomalies and derived.anomalies say in what, since when, and against what they were "
        "found.",
        Label("kind", ANOMALY_KINDS),
        Label("severity", ANOMALY_SEVERITIES),
    ),
    _metric(
        "anomalies",
        "anomalies_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since anomalies were last looked for; absent before the first time.",
        "Above an hour: look at the DAG that looks for them.",
    ),
    _metric(
        "web",
        "web_up",
        Kind.GAUGE,
        Unit.YES_OR_NO,
        "Whether the home page of the web pages was answered; absent when nobody says where they are.",
        "0: look at the process `python -m web`, then at what stands in front of it.",
    ),
    _metric(
        "web",
        "web_answer_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long the home page took until all of it was there, or until it was given up.",
        "Above two seconds: the machine of the pages is busy; its log says which requests take long.",
    ),
)

EXPORTER_METRICS_OF_ITSELF: Final = (
    _metric(
        "",
        "exporter_source_up",
        Kind.GAUGE,
        Unit.YES_OR_NO,
        "Whether the last reading of a source succeeded and is not too old; absent before the first one.",
        "0: the exporter's log says what the source answered. Its metrics keep their last figures for three "
        "intervals and are absent after that.",
        Label("source", SOURCES),
    ),
    _metric(
        "",
        "exporter_source_errors_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Readings of a source that failed.",
        "Rising: as exporter_source_up.",
        Label("source", SOURCES),
    ),
    _metric(
        "",
        "exporter_source_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Since a source was last read with success; absent before the first time.",
        "Above three intervals: its metrics are absent; do not trust what rests on them.",
        Label("source", SOURCES),
    ),
    _metric(
        "",
        "exporter_source_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "How long the last reading of a source took.",
        "Near its interval: the source is slow; ages become coarser.",
        Label("source", SOURCES),
    ),
    _metric(
        "",
        "exporter_cpu_seconds_total",
        Kind.COUNTER,
        Unit.SECONDS,
        "Processor time of the exporter.",
        "A rate above 0.03: something that is read has grown; compare exporter_source_seconds.",
    ),
    _metric(
        "",
        "exporter_folded_rows_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Rows counted under other because a metric has as many label sets as it may have.",
        "Any: more namespaces or document types have schemas than the limit allows; raise LABEL_SETS_MAX.",
    ),
)

EXPORTER_METRICS: Final = (
    *QUEUE_METRICS,
    *BATCH_METRICS,
    *TABLE_METRICS,
    *COMPLETENESS_METRICS,
    *WORK_METRICS,
    *ANALYSIS_METRICS,
    *AIRFLOW_METRICS,
    *OTHER_METRICS,
    *EXPORTER_METRICS_OF_ITSELF,
)
"""Every metric that the exporter shows, in the order of the page."""
